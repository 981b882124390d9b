//! Comparisons of methods: against loops by hand, with methods that are not of this crate, on networks, lists of layers and a language model.

use lacuna::allocate::{Allocate, Global, Target, Uniform};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Evidence, Magnitude, Measured, Need, Needs, Obd, Random, Saliency, Wanda};
use lacuna::eval::score;
use lacuna::linalg::Gram;
use lacuna::mask::{Budget, Mask, Pattern, Scope};
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Loss, Method, Network};
use lacuna::prune::{Pruning, compensated, one_shot};
use lacuna::report::Cell;
use lacuna::rng::Seed;
use lacuna::solve::{Pruned, Pruner, SparseGpt, WoodFisher};
use lacuna::study::{BUILT_IN, Candidate, Compare, Comparison, LayerLists, Metric, Networks, Subject, Trained};
use lacuna::train::{Decay, TrainConfig, fit};
use lacuna::{Error, Result};
use ndarray::{Array2, array};

#[path = "language/common.rs"]
#[allow(dead_code)]
mod common;

const LOSS: Loss = Loss::CrossEntropy;

/// |w| times the root mean square of the weights of its row: of no paper.
#[derive(Debug)]
struct RowScaled;

impl Saliency for RowScaled {
    fn name(&self) -> &str {
        "row-scaled"
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        let norms = layer.weight.map_axis(ndarray::Axis(1), |row| row.dot(&row).sqrt());
        Ok(Array2::from_shape_fn(layer.weight.dim(), |(r, c)| layer.weight[[r, c]].abs() * norms[r]))
    }
}

/// Samples and one-hot targets.
type Data = (Array2<f32>, Array2<f32>);

fn data(seed: Seed) -> (Data, Data) {
    let all = lacuna::data::digits();
    let order = seed.stream("split").permutation(all.len());
    let part = |rows: &[usize]| (all.select(rows).x().clone(), all.select(rows).one_hot(1.0, 0.0));
    (part(&order[..300]), part(&order[300..600]))
}

fn trained(seed: Seed) -> Result<Network> {
    let (train, _) = data(seed);
    let mut network = mlp(&[64, 12, 10], Activation::Relu, Init::He, seed)?;
    let method = Method::Adam { weight_decay: 0.0 };
    let recipe = TrainConfig { loss: LOSS, method, learning_rate: 1e-2, decay: Decay::Cosine, epochs: 4, batch: 32, seed };
    fit(&mut network, &train.0, &train.1, &recipe)?;
    Ok(network)
}

fn networks<'a>() -> Networks<'a> {
    Networks::new(|seed| {
        let (train, test) = data(seed);
        Ok(Trained::new(trained(seed)?, train, test, LOSS))
    })
}

fn recovered(network: &mut Network, seed: Seed) -> Result<()> {
    let (train, _) = data(seed);
    let method = Method::Sgd { momentum: 0.9, weight_decay: 0.0 };
    let recipe = TrainConfig { loss: LOSS, method, learning_rate: 1e-2, decay: Decay::Linear, epochs: 1, batch: 32, seed };
    fit(network, &train.0, &train.1, &recipe).map(|_| ())
}

#[test]
fn the_numbers_are_those_of_a_loop_by_hand_to_the_last_bit() -> Result<()> {
    let (sparsities, seeds) = ([0.5, 0.9], [Seed(0), Seed(3)]);
    for (allocate, recover) in [(&Global as &dyn Allocate, false), (&Uniform, true)] {
        let subject = if recover { networks().recover(|n, _, seed| recovered(n, seed)) } else { networks() };
        let woodfisher = WoodFisher { damping: 1e-4, block: 20 };
        let compare = Compare::new().criterion(&RowScaled).built_in(["magnitude", "obd", "wanda", "random"]);
        let compare = compare.with(Candidate::pruner(&woodfisher).ranked_by(&woodfisher));
        let found = compare.allocate(allocate).sparsities(sparsities).seeds(seeds).run(&subject)?;
        assert_eq!(found.methods(), ["row-scaled", "woodfisher", "magnitude", "obd", "wanda", "random"]);
        for seed in seeds {
            let (network, (train, test)) = (trained(seed)?, data(seed));
            let calibration = Calibration::new(&train.0, &train.1, LOSS);
            let judge = |mut network: Network, pruned: bool| -> Result<Vec<f64>> {
                if recover && pruned {
                    recovered(&mut network, seed)?;
                }
                let score = score(&network, &test.0, &test.1, LOSS);
                Ok(vec![100.0 * score.accuracy, score.loss])
            };
            let dense = judge(network.clone(), false)?;
            assert_eq!(found.values("dense", 0.5)?.iter().find(|(s, _)| *s == seed).unwrap().1, dense[0]);
            let (magnitude, random) = (Magnitude::default(), Random { seed });
            let all: [(&str, &dyn Saliency); 6] = [
                ("row-scaled", &RowScaled),
                ("woodfisher", &woodfisher),
                ("magnitude", &magnitude),
                ("obd", &Obd),
                ("wanda", &Wanda),
                ("random", &random),
            ];
            for (name, saliency) in all {
                for sparsity in sparsities {
                    let (target, pattern, scope) = (Target::Sparsity(sparsity), Pattern::Unstructured, Scope::Layer);
                    let pruning = Pruning { saliency, allocate, target, pattern, scope, skip: &[] };
                    let outcome = match name {
                        "woodfisher" => compensated(&network, &calibration, &pruning, &woodfisher)?,
                        _ => one_shot(&network, &calibration, &pruning)?,
                    };
                    let kept: usize = outcome.masks.iter().map(|(_, m)| m.kept()).sum();
                    let trial = found.trial(name, sparsity, seed)?.outcome.as_ref().unwrap();
                    assert_eq!(trial.values, judge(outcome.model, true)?, "{name} at {sparsity}, {seed:?}");
                    assert_eq!((trial.kept, trial.of), (kept, 64 * 12 + 12 * 10), "{name}");
                    assert_eq!(trial.predicted, outcome.predicted_increase.filter(|_| name != "woodfisher"), "{name}");
                }
            }
        }
    }
    Ok(())
}

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

/// Keeps the weight of one input.
#[derive(Debug)]
struct Keeps(usize, &'static str);

impl Saliency for Keeps {
    fn name(&self) -> &str {
        self.1
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(Array2::from_shape_fn(layer.weight.dim(), |(_, c)| f32::from(u8::from(c == self.0))))
    }
}

/// A layer of two weights 1 and 2, of which a method keeps one; which of the numbers of a seed it gets hangs on that alone.
fn told<'a>(numbers: &'a [[f64; 2]], metric: Metric) -> LayerLists<'a> {
    LayerLists::new(|_| Ok(vec![("only".into(), array![[1., 2.]], Measured::default())])).judge([metric], |weights, seed| {
        let kept = weights[0].1;
        Ok(vec![if kept[[0, 0]] == 0.0 { numbers[seed.0 as usize][1] } else { numbers[seed.0 as usize][0] }])
    })
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
        ("rows,layer", "cols,layer", "another setting than in the rows before"),
    ] {
        let text = csv.replacen(old, new, 1);
        assert_ne!(text, csv, "{old}");
        let error = Comparison::from_csv(&text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    Ok(())
}

#[test]
fn what_a_method_cannot_do_is_in_the_table_with_its_reason_and_ends_nothing() -> Result<()> {
    // SparseGPT has no rows; 2:4 has one sparsity.
    let compare = Compare::new().built_in(["magnitude", "sparsegpt"]).seeds([0]).sparsities([0.5, 0.75]);
    let found = compare.clone().pattern(Pattern::Rows).run(&networks())?;
    let table = found.table();
    assert_eq!(table.columns().last().unwrap(), "not measured");
    let row = |table: &lacuna::report::Table, name: &str| table.rows().iter().find(|r| r[0].exact() == name).unwrap().clone();
    let (magnitude, gpt) = (row(&table, "magnitude"), row(&table, "sparsegpt"));
    assert!(magnitude[1] != Cell::Missing && magnitude[4] == Cell::Missing, "{magnitude:?}");
    assert!(gpt[1] == Cell::Missing && gpt[2] == Cell::Missing && gpt[3] == Cell::Missing, "{gpt:?}");
    assert!(gpt[4].exact().contains("a row that goes whole leaves none"), "{gpt:?}");

    let found = compare.pattern(Pattern::Nm { n: 2, m: 4 }).run(&networks())?;
    let gpt = row(&found.table(), "sparsegpt");
    assert!(gpt[1] != Cell::Missing && gpt[2] == Cell::Missing);
    assert_eq!(gpt[4].exact(), "75 %: pattern 2:4 has no sparsity but 0.5");
    let of = found.trial("sparsegpt", 0.5, Seed(0))?.outcome.as_ref().unwrap();
    assert_eq!(2 * of.kept, of.of);
    let usual = Compare::new().built_in(["magnitude"]).seeds([0]).pattern(Pattern::Nm { n: 1, m: 4 }).run(&networks())?;
    assert_eq!(usual.sparsities(), [0.75]);
    // Who wants all of it or nothing says so.
    assert!(usual.complete().is_ok());
    let reason = found.complete().unwrap_err().to_string();
    assert_eq!(reason, "magnitude at 0.75 with seed 0: pattern 2:4 has no sparsity but 0.5");

    // An allocation that ranks has nothing to rank a pruner by.
    let found = Compare::new().built_in(["obc", "woodfisher"]).allocate(&Global).seeds([0]).sparsities([0.5]).run(&networks())?;
    assert!(found.trial("obc", 0.5, Seed(0))?.outcome.as_ref().unwrap_err().contains("allocation global: ranks scores"));
    assert!(found.trial("woodfisher", 0.5, Seed(0))?.outcome.is_ok());
    Ok(())
}

#[test]
fn every_built_in_method_has_numbers_on_a_network_or_the_reason_why_its_measure_fails_on_a_list() -> Result<()> {
    let found = Compare::new().seeds([0]).sparsities([0.5]).run(&networks())?;
    assert_eq!(found.methods(), BUILT_IN);
    assert!(found.trials().iter().all(|t| t.outcome.is_ok()), "{}", found.table().to_text());
    assert!(found.trials().iter().all(|t| t.outcome.as_ref().unwrap().kept == 444), "{}", found.table().to_text());

    let mut gram = Gram::new(4);
    gram.update(&Seed(1).stream("inputs").normal_array(20, 4, 1.0))?;
    let measured = Measured { tokens: 20, gram: Some(gram.matrix()), ..Measured::default() };
    let lists = LayerLists::new(|seed| Ok(vec![("fc".into(), seed.stream("weights").normal_array(3, 4, 1.0), measured.clone())]));
    let found = Compare::new().seeds([0]).sparsities([0.5]).run(&lists)?;
    for trial in found.trials() {
        let can =
            ["magnitude", "magnitude-l2", "random", "wanda", "ria", "sparsegpt", "obc", "alps"].contains(&trial.method.as_str());
        assert_eq!(trial.outcome.is_ok(), can, "{trial:?}");
        if let Err(reason) = &trial.outcome {
            assert!(reason.starts_with("needs the ") && reason.contains("not among what was measured of layer fc"), "{reason}");
        }
    }
    Ok(())
}

/// Keeps everything, whatever the budget.
#[derive(Debug)]
struct Cheats;

impl Pruner for Cheats {
    fn name(&self) -> &str {
        "cheats"
    }

    fn needs(&self) -> Needs {
        Needs::none()
    }

    fn prune(&self, layer: &Evidence<'_>, _: Pattern, _: Scope, _: Budget) -> Result<Pruned> {
        let (rows, cols) = layer.weight.dim();
        Ok(Pruned { mask: Mask::full(rows, cols), weight: layer.weight.to_owned(), loss: None })
    }
}

/// Scores of a shape that is not the weight's.
#[derive(Debug)]
struct Misshapen;

impl Saliency for Misshapen {
    fn name(&self) -> &str {
        "misshapen"
    }

    fn score(&self, _: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(Array2::zeros((1, 1)))
    }
}

#[test]
fn methods_that_break_their_contract_are_told_so_in_the_table() -> Result<()> {
    let found = Compare::new().pruner(&Cheats).criterion(&Misshapen).only_own().seeds([0]).sparsities([0.5]).run(&networks())?;
    let reason = |name: &str| found.trial(name, 0.5, Seed(0)).unwrap().outcome.clone().unwrap_err();
    assert!(
        reason("cheats").contains("layer fc1: budget: cannot keep 384 of 768: 768 weights were kept"),
        "{}",
        reason("cheats")
    );
    assert!(reason("misshapen").contains("scores: expected shape [12, 64], found [1, 1]"), "{}", reason("misshapen"));
    assert!(found.figure().to_svg()?.contains("dense"), "the dense model is still drawn");
    Ok(())
}

#[test]
fn a_number_that_is_not_finite_is_a_reason_and_no_number() -> Result<()> {
    let lists = told(&[[2.0, f64::INFINITY]], Metric::smaller("perplexity"));
    let (a, b) = (Keeps(0, "first"), Keeps(1, "second"));
    let found = Compare::new().criterion(&a).criterion(&b).only_own().sparsities([0.5]).seeds([0]).run(&lists)?;
    assert_eq!(found.trial("second", 0.5, Seed(0))?.outcome, Err("perplexity is inf".into()));
    assert_eq!(found.values("second", 0.5)?, []);
    assert_eq!(found.values("first", 0.5)?, [(Seed(0), 2.0)]);
    assert_eq!(found.differences("first", "second")?.all[0].summary, None);
    Ok(())
}

#[test]
fn one_thread_and_three_make_the_same_bits() -> Result<()> {
    let compare =
        Compare::new().criterion(&RowScaled).built_in(["obd", "alps", "random", "woodfisher"]).sparsities([0.6]).seeds([0, 1]);
    let on = |threads: usize| -> Result<String> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compare.run(&networks())).map(|found| found.to_csv())
    };
    let one = on(1)?;
    assert_eq!(one, on(3)?);
    // More threads than jobs: they are then not side by side.
    assert_eq!(one, on(16)?);
    Ok(())
}

#[test]
fn settings_that_cannot_be_meant_are_refused_in_one_line() {
    let base = || Compare::new().built_in(["magnitude"]).seeds([0]).sparsities([0.5]);
    let error = |compare: Compare<'_>| compare.run(&networks()).unwrap_err().to_string();
    assert_eq!(error(base().sparsities([])), "sparsities: there are none");
    assert_eq!(error(base().sparsities([0.5, 1.0])), "sparsities: 1.0 is not in [0, 1)");
    assert_eq!(error(base().sparsities([f64::NAN])), "sparsities: NaN is not in [0, 1)");
    assert_eq!(error(base().sparsities([0.5, 0.5])), "sparsities: 0.5 is there twice");
    assert_eq!(error(base().seeds([3, 3])), "seeds: 3 is there twice");
    assert_eq!(error(base().only_own()), "methods: there are none");
    assert_eq!(error(base().criterion(&Magnitude::default())), "methods: \"magnitude\" is there twice");
    assert!(error(base().built_in(["wandda"])).starts_with("built-in method: 'wandda' is not among magnitude, "));
    let dense = Keeps(0, "dense");
    assert_eq!(error(base().criterion(&dense)), "methods: 'dense' is the name of what was not pruned");
    assert!(error(base().skip(["fc9"])).contains("no layer is named 'fc9'"));
    assert!(error(base().skip(["fc1", "fc2"])).contains("none of 2 is left to prune"));
    assert!(error(base().pattern(Pattern::Cols).scope(Scope::Row)).starts_with("scope: pattern cols"));
    let found = base().run(&networks()).unwrap();
    assert!(found.values("wanda", 0.5).unwrap_err().to_string().contains("'wanda': not among magnitude"));
    assert!(found.differences("magnitude", "wanda").is_err() && found.by("speed").is_err());
    assert!(found.trial("magnitude", 0.4, Seed(0)).is_err() && found.trial("magnitude", 0.5, Seed(1)).is_err());
}

/// A subject of one's own: a network whose first half of fc1 is gone before.
struct HalfGone;

impl Subject for HalfGone {
    type Model = Trained;

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::larger("weights left in fc1"), Metric::larger("of them among those that were gone")]
    }

    fn model(&self, seed: Seed) -> Result<Trained> {
        let mut network = trained(seed)?;
        network.param_mut("fc1.weight")?.set_mask(Mask::from_fn(12, 64, |_, c| c >= 32))?;
        let (train, test) = data(seed);
        Ok(Trained::new(network, train, test, LOSS))
    }

    fn layers<'m>(&self, model: &'m Trained) -> Vec<lacuna::allocate::Layer<'m>> {
        networks().layers(model)
    }

    fn mask<'m>(&self, model: &'m Trained, layer: usize) -> Option<&'m Mask> {
        networks().mask(model, layer)
    }

    fn measure(&self, model: &Trained, needs: Needs) -> Result<Vec<Measured>> {
        if needs.contains(Need::SynapticFlow) {
            return Err(Error::invalid_option("synaptic flow", "nobody knows how"));
        }
        networks().measure(model, needs)
    }

    fn judge(&self, _: &Trained, _: Seed, pruned: &[(usize, Pruned)]) -> Result<Vec<f64>> {
        let held = Mask::from_fn(12, 64, |_, c| c >= 32);
        let mask = pruned.iter().find(|(layer, _)| *layer == 0).map_or(&held, |(_, p)| &p.mask);
        Ok(vec![mask.kept() as f64, mask.minus(&held).kept() as f64])
    }
}

#[test]
fn what_a_mask_dropped_stays_dropped_and_skipped_layers_are_left_alone() -> Result<()> {
    let gpt = SparseGpt::default();
    let compare =
        Compare::new().criterion(&RowScaled).pruner(&gpt).built_in(["synflow", "obd"]).sparsities([0.25, 0.75]).seeds([0]);
    let found = compare.clone().skip(["fc2"]).run(&HalfGone)?;
    let gone = found.by("of them among those that were gone")?;
    for method in ["row-scaled", "sparsegpt", "obd"] {
        // Half is gone: room for three quarters leaves half, room for a quarter a quarter.
        let left = [0.25, 0.75].map(|s| found.values(method, s).unwrap()[0].1);
        assert_eq!(left, [384.0, 192.0], "{method}");
        assert_eq!(gone.values(method, 0.75)?[0].1, 0.0);
        assert_eq!(found.trial(method, 0.25, Seed(0))?.outcome.as_ref().unwrap().of, 768, "fc2 is not counted");
    }
    let reason = found.trial("synflow", 0.25, Seed(0))?.outcome.clone().unwrap_err();
    assert_eq!(reason, "needs the synaptic flow, which cannot be measured: synaptic flow: nobody knows how");
    let found = compare.skip(["fc1"]).run(&HalfGone)?;
    assert_eq!(found.values("obd", 0.75)?[0].1, 384.0);
    Ok(())
}

#[test]
fn a_language_model_is_compared_by_its_perplexity_through_its_lists_of_layers() -> Result<()> {
    let written = common::Model::new(lacuna::io::Dtype::F32);
    let model = common::model(&written.dir);
    let text = common::tokens(4);
    let perplexity = |model: &lacuna::lm::LanguageModel| -> Result<f64> {
        let losses = text.chunks(common::LENGTH).map(|ids| model.nll(ids)).collect::<Result<Vec<_>>>()?;
        let all: Vec<f64> = losses.into_iter().flatten().collect();
        Ok((all.iter().sum::<f64>() / all.len() as f64).exp())
    };
    let lists = LayerLists::new(|seed| {
        // Other calibration tokens for each seed.
        let mut stream = seed.stream("calibration");
        let ids: Vec<u32> = (0..5 * common::LENGTH).map(|_| stream.below(50) as u32).collect();
        let measured = common::seen(&model, &ids);
        let layer = |l: &lacuna::nn::Linear| (l.name().to_string(), l.dense_weight().into_owned(), measured[l.name()].clone());
        Ok(model.linears().into_iter().map(layer).collect())
    })
    .judge([Metric::smaller("perplexity")], |weights, _| {
        let mut pruned = common::model(&written.dir);
        for (name, weight) in weights {
            pruned.linear_mut(name)?.set_weight((*weight).clone())?;
        }
        Ok(vec![perplexity(&pruned)?])
    });
    let found =
        Compare::new().criterion(&RowScaled).built_in(["wanda", "sparsegpt"]).sparsities([0.5]).seeds([0, 1]).run(&lists)?;
    assert_eq!(found.values("dense", 0.5)?, [Seed(0), Seed(1)].map(|seed| (seed, perplexity(&model).unwrap())));
    // By hand: half of every layer by the criterion.
    let mut pruned = common::model(&written.dir);
    for linear in model.linears() {
        let weight = linear.dense_weight().into_owned();
        let scores = RowScaled.score(&Evidence::weight_only(linear.name(), &weight))?;
        let budget = Budget::from_sparsity(weight.len(), 0.5)?;
        let mask = lacuna::mask::select(&scores, Pattern::Unstructured, Scope::Layer, budget)?;
        pruned.linear_mut(linear.name())?.set_weight(mask.applied(&weight))?;
    }
    let by_hand = perplexity(&pruned)?;
    assert_eq!(found.values("row-scaled", 0.5)?, [(Seed(0), by_hand), (Seed(1), by_hand)]);
    let wanda = found.values("wanda", 0.5)?;
    assert!(wanda[0].1 != wanda[1].1, "the calibration is that of the seed: {wanda:?}");
    Ok(())
}
