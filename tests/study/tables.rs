//! Differences, intervals, ranks, and comparisons as CSV.

use super::common::{Keeps, RowScaled, networks, told};
use lacuna::Result;
use lacuna::mask::Pattern;
use lacuna::rng::Seed;
use lacuna::study::{Candidate, Compare, Comparison, Metric};

#[test]
fn a_method_compared_with_itself_differs_by_exactly_0_and_shares_its_rank() -> Result<()> {
    let compare = Compare::new().built_in(["magnitude"]).with(Candidate::criterion(&RowScaled).named("one"));
    let found = compare.with(Candidate::criterion(&RowScaled).named("other")).sparsities([0.7, 0.95]).run(&networks())?;
    for d in found.differences("one", "other")?.all {
        assert_eq!(d.values.iter().map(|(_, v)| *v).collect::<Vec<_>>(), [0.0; 3]);
        assert_eq!((d.interval, d.counts(), d.better()), (Some((0.0, 0.0)), (0, 3, 0), None));
    }
    let ranks = found.ranks();
    let of = |name: &str| ranks.only(&ranks.columns()[0], name).unwrap().rows()[0][1..].to_vec();
    assert_eq!(of("one"), of("other"));
    // Three methods, of which two are equal: 1 with 2.5 and 2.5, or 1.5 and 1.5 with 3.
    for (a, b) in of("one").iter().zip(of("magnitude")) {
        assert!((2.0 * a.number().unwrap() + b.number().unwrap() - 6.0).abs() < 1e-9);
    }
    Ok(())
}

#[test]
fn differences_are_paired_over_seeds_and_their_intervals_are_those_of_a_table_of_t() -> Result<()> {
    let (a, b) = (Keeps(0, "first"), Keeps(1, "second"));
    // Differences 1, 2, 4 with n = 3, and 1, 2, 4, −1, 3 with n = 5; means and deviations by hand.
    let numbers = [[11.0, 10.0], [22.0, 20.0], [34.0, 30.0], [39.0, 40.0], [53.0, 50.0]];
    for (n, mean, sd, t) in [(3u64, 7.0 / 3.0, 1.527_525_232, 4.303), (5, 1.8, 1.923_538_406, 2.776)] {
        for larger in [true, false] {
            let metric = if larger { Metric::larger("score") } else { Metric::smaller("score") };
            let compare = Compare::new().criterion(&a).criterion(&b).only_own().sparsities([0.5]).seeds(0..n);
            let found = compare.run(&told(&numbers, metric))?;
            let difference = &found.differences("first", "second")?.all[0];
            let expected: Vec<f64> = numbers[..n as usize].iter().map(|[a, b]| a - b).collect();
            assert_eq!(difference.values.iter().map(|(_, v)| *v).collect::<Vec<_>>(), expected);
            let (summary, (low, high)) = (difference.summary.unwrap(), difference.interval.unwrap());
            let half = t * sd / (n as f64).sqrt();
            assert!((summary.mean - mean).abs() < 1e-9 && (summary.sd - sd).abs() < 1e-8, "{summary:?}");
            // The table of t has three digits.
            let near = |x: f64, y: f64| (x - y).abs() < 5e-4 * sd;
            assert!(near(low, mean - half) && near(high, mean + half), "{low} {high}: {mean} ± {half}");
            let up = expected.iter().filter(|d| **d > 0.0).count();
            let down = expected.len() - up;
            assert_eq!(difference.counts(), if larger { (up, 0, down) } else { (down, 0, up) });
            assert_eq!(difference.better(), None, "the interval holds 0");
            let back = &found.differences("second", "first")?.all[0];
            assert_eq!(back.interval.unwrap(), (-high, -low));
        }
    }
    // Of 3, 4 and 5 the interval is 4 ± 2.48, above 0: better or worse by the metric.
    let numbers = [[13.0, 10.0], [24.0, 20.0], [35.0, 30.0]];
    for (metric, better) in [(Metric::larger("score"), true), (Metric::smaller("score"), false)] {
        let compare = Compare::new().criterion(&a).criterion(&b).only_own().sparsities([0.5]);
        let found = compare.run(&told(&numbers, metric))?;
        assert_eq!(found.differences("first", "second")?.all[0].better(), Some(better));
        assert_eq!(found.differences("second", "first")?.all[0].better(), Some(!better));
        let against = found.against("first")?;
        assert_eq!(against.rows()[0][1].exact(), format!("+4.00 [+1.52, +6.48], {}/3", if better { 3 } else { 0 }));
        let rank = |name: &str| {
            found.trial(name, 0.5, Seed(0)).map(|_| ()).and_then(|()| {
                let ranks = found.ranks().only(&found.ranks().columns()[0], name)?;
                Ok(ranks.rows()[0][2].number())
            })
        };
        assert_eq!((rank("first")?, rank("second")?), if better { (Some(1.0), Some(2.0)) } else { (Some(2.0), Some(1.0)) });
    }
    // One seed has a difference and no interval.
    let compare = Compare::new().criterion(&a).criterion(&b).only_own().sparsities([0.5]).seeds([1]);
    let difference = &compare.run(&told(&numbers, Metric::larger("score")))?.differences("first", "second")?.all[0];
    assert_eq!((difference.summary.unwrap().mean, difference.interval, difference.better()), (4.0, None, None));
    Ok(())
}

#[test]
fn what_is_written_as_csv_reads_back_as_it_was_reasons_too() -> Result<()> {
    let compare =
        Compare::new().criterion(&RowScaled).built_in(["obd", "sparsegpt"]).pattern(Pattern::Rows).sparsities([0.25, 0.5]);
    let found = compare.seeds([4, 7]).run(&networks())?;
    assert!(found.trials().iter().any(|t| t.outcome.is_err()) && found.trials().iter().any(|t| t.outcome.is_ok()));
    let csv = found.to_csv();
    let read = Comparison::from_csv(&csv)?;
    assert_eq!(read, found);
    assert_eq!(read.to_csv(), csv);
    assert_eq!(read.by("loss")?.table(), found.by("loss")?.table());
    assert_eq!(read.figure().to_svg()?, found.figure().to_svg()?);

    let lines: Vec<&str> = csv.lines().collect();
    let without =
        |line: usize| -> String { lines.iter().enumerate().filter(|(i, _)| *i != line).map(|(_, l)| format!("{l}\n")).collect() };
    for (i, line) in lines.iter().enumerate() {
        assert!(Comparison::from_csv(&without(i)).is_err(), "without line {i}: {line}");
        assert!(Comparison::from_csv(&format!("{csv}{line}\n")).is_err(), "line {i} twice: {line}");
    }
    for (old, new, says) in [
        (",larger,", ",more,", "row 1: better is 'more'"),
        (",0.25,4,", ",x,4,", "sparsity is no finite number"),
        ("rows,the method's", "cols,the method's", "another setting than in the rows before"),
    ] {
        let text = csv.replacen(old, new, 1);
        assert_ne!(text, csv, "{old}");
        let error = Comparison::from_csv(&text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    Ok(())
}
