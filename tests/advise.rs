//! Advice against machines that are made up, whose times are known at every place; and one short measurement.

use lacuna::advise::{
    Advice, Key, LayerShape, MeasurementGrid, Median, Profile, ProfileFile, Query, ShapeTimings, Sparse, measure,
};
use lacuna::mask::Pattern;
use lacuna::rng::Seed;
use lacuna::sparse::Format;
use proptest::prelude::*;

const NM: Pattern = Pattern::Nm { n: 2, m: 4 };
const BLOCKS: Pattern = Pattern::Block { rows: 16, cols: 1 };
const SPARSITIES: [f64; 4] = [0.5, 0.6, 0.8, 0.95];

fn key() -> Key {
    Key { cpu: "made up".into(), isa: "avx2".into(), threads: 1, version: "0".into() }
}

/// Bounds as wide as a share on both sides.
fn about(us: f64, spread: f64) -> Median {
    Median { us, low: us / (1.0 + spread), high: us * (1.0 + spread) }
}

/// Microseconds of a dense product on a machine whose logarithms are straight lines.
fn dense((out, inputs): (usize, usize), tokens: usize) -> f64 {
    1e-3 * ((out * inputs) as f64).powf(1.1) * (tokens as f64).powf(0.8)
}

/// Its speed-up, which is 1 at a sparsity of 0.7 for one token, at a higher one for more.
fn gain(tokens: usize, sparsity: f64) -> f64 {
    (3.0 * (sparsity - 0.7) - 0.1 * (tokens as f64).log2()).exp()
}

fn cell(shape: (usize, usize), tokens: usize, from_memory: bool, slower: f64) -> ShapeTimings {
    let us = slower * dense(shape, tokens);
    let of = |pattern: Pattern, sparsity: f64, format: &str| {
        let time = about(us / gain(tokens, sparsity), 0.01);
        Sparse { pattern, sparsity, format: format.into(), time }
    };
    let mut sparse: Vec<Sparse> = SPARSITIES
        .into_iter()
        .map(|s| of(Pattern::Unstructured, s, if s < 0.7 { "bitmask:128" } else { "sell:padded" }))
        .collect();
    sparse.extend([of(NM, 0.5, "nm:2:4"), of(BLOCKS, 0.5, "bsr:16x1"), of(BLOCKS, 0.9, "bsr:16x1")]);
    ShapeTimings { shape, tokens, from_memory, dense: about(us, 0.01), dense_kernel: "lacuna".into(), sparse }
}

/// A machine of squares from 256 to 4096 and 1 to 64 tokens, on which weights from memory take twice as long.
fn machine() -> Profile {
    let mut cells = Vec::new();
    for side in [256, 1024, 4096] {
        for tokens in [1, 4, 64] {
            cells.push(cell((side, side), tokens, false, 1.0));
        }
        cells.push(cell((side, side), 1, true, 2.0));
    }
    Profile { key: key(), grid: MeasurementGrid::full(), seconds: 1.0, last_cache: 32 << 20, cells }
}

fn near(found: f64, expected: f64) -> bool {
    (found / expected - 1.0).abs() <= 1e-9
}

#[test]
fn what_was_measured_is_answered_with_its_own_numbers() {
    let machine = machine();
    for c in &machine.cells {
        for s in &c.sparse {
            let plain = Query::new(c.shape, c.tokens, s.sparsity);
            let a = machine.advise(&Query { pattern: s.pattern, from_memory: c.from_memory, ..plain }).unwrap();
            assert!(a.measured && a.extrapolated.is_empty(), "{a:?}");
            assert!(near(a.dense.us, c.dense.us) && near(a.sparse_time.us, s.time.us), "{a:?}");
            assert!(near(a.sparse_time.low, s.time.low) && near(a.dense.high, c.dense.high), "{a:?}");
            assert_eq!((a.sparse.as_str(), a.dense_kernel.as_str()), (s.format.as_str(), "lacuna"));
            assert_eq!(a.storage, if a.speedup.median > 1.0 { s.format.as_str() } else { "dense" });
            // Quartiles of 1 % on both sides are less than what two measurements differ by.
            let s = a.speedup;
            assert!(near(s.low, s.median / 1.05) && near(s.high, s.median * 1.05), "{s:?}");
        }
    }
}

proptest! {
    #[test]
    fn between_measured_products_straight_lines_of_logarithms_are_found(
        side in 256..=4096usize, tokens in 1..=64usize, sparsity in 0.5..0.95f64,
    ) {
        let a = machine().advise(&Query::new((side, side), tokens, sparsity)).unwrap();
        prop_assert!(a.extrapolated.is_empty(), "{:?}", a);
        prop_assert!(near(a.dense.us, dense((side, side), tokens)), "{:?}", a);
        // A sparsity within 0.0005 of a measured one is taken for it, over which the gain changes by 0.15 %.
        prop_assert!((a.speedup.median / gain(tokens, sparsity) - 1.0).abs() < 1.6e-3, "{:?}", a);
        prop_assert!(a.speedup.low <= a.speedup.median / 1.05 + 1e-12 && a.speedup.high >= a.speedup.median * 1.05 - 1e-12);
        // 3 (s - 0.7) = 0.1 log2 tokens, or beyond what was measured.
        let even = 0.7 + 0.1 * (tokens as f64).log2() / 3.0;
        prop_assert!(a.wins_from.is_some_and(|s| (s - even).abs() < 1e-6) && !a.wins_at_all, "{:?} of {}", a.wins_from, even);
    }
}

#[test]
fn sparse_wins_always_or_never_where_it_does_at_all_sparsities_that_were_measured() {
    let with = |factor: f64| -> Advice {
        let mut machine = machine();
        for s in machine.cells.iter_mut().flat_map(|c| &mut c.sparse) {
            s.time = about(s.time.us * factor, 0.01);
        }
        machine.advise(&Query::new((1024, 1024), 1, 0.6)).unwrap()
    };
    let (always, never) = (with(0.1), with(10.0));
    assert_eq!((always.wins_from, always.wins_at_all, always.storage.as_str()), (Some(0.5), true, "bitmask:128"));
    assert_eq!((never.wins_from, never.wins_at_all, never.storage.as_str()), (None, false, "dense"));
}

#[test]
fn what_lies_beyond_the_measured_products_is_said_and_takes_the_nearest() {
    let machine = machine();
    let ask = |shape, tokens, sparsity| machine.advise(&Query::new(shape, tokens, sparsity)).unwrap();
    let one = ask((1024, 1024), 1, 0.6);
    for (a, axes) in [
        (ask((8192, 8192), 1, 0.6), vec!["shape"]),
        (ask((128, 128), 1, 0.6), vec!["shape"]),
        (ask((1024, 1024), 256, 0.6), vec!["tokens"]),
        (ask((1024, 1024), 1, 0.99), vec!["sparsity"]),
        (ask((1024, 1024), 1, 0.2), vec!["sparsity"]),
        // No weight that is not square was measured.
        (ask((2048, 512), 1, 0.6), vec!["shape"]),
        (ask((64, 64), 512, 0.0), vec!["shape", "tokens", "sparsity"]),
    ] {
        assert!(a.extrapolated == axes && !a.measured, "{:?}: {:?}", a.query, a.extrapolated);
    }
    // The time of a weight and token stays that of the nearest.
    let large = ask((8192, 8192), 1, 0.6);
    assert!(near(large.dense.us, 4.0 * dense((4096, 4096), 1)), "{large:?}");
    assert!(near(large.speedup.median, one.speedup.median), "{large:?}");
    // More than half of the weights take longer than half of them, as they are more.
    let fifth = ask((1024, 1024), 1, 0.2);
    assert!(near(fifth.sparse_time.us, dense((1024, 1024), 1) / gain(1, 0.5) * 0.8 / 0.5), "{fifth:?}");
    let most = ask((1024, 1024), 1, 0.99);
    assert!(near(most.speedup.median, gain(1, 0.95)), "{most:?}");
}

#[test]
fn bounds_are_wider_the_less_was_measured_around() {
    let width = |machine: &Profile, query: Query| {
        let s = machine.advise(&query).unwrap().speedup;
        assert!(s.low < s.median && s.median < s.high, "{s:?}");
        s.high / s.low
    };
    let full = machine();
    let inner = width(&full, Query::new((1024, 1024), 4, 0.8));
    // Logarithms that are straight lines have no bends: between points nothing is added.
    assert!(near(width(&full, Query::new((1024, 1024), 4, 0.7)), inner));
    // Beyond them as much as neighbours differ by: 0.1 for each doubling of the tokens, which were 4 and 16 fold.
    let beyond = width(&full, Query::new((1024, 1024), 256, 0.8));
    assert!(near(beyond / inner, (2.0 * 0.1 * (2.0 + 4.0) / 2.0f64).exp()), "{beyond} {inner}");
    // Of two sparsities nobody knows how the line bends between them.
    let mut two = machine();
    for cell in &mut two.cells {
        cell.sparse.retain(|s| s.pattern != Pattern::Unstructured || [0.5, 0.95].contains(&s.sparsity));
    }
    let between = width(&two, Query::new((1024, 1024), 4, 0.8));
    assert!(near(between / inner, (2.0 * 3.0 * 0.45 / 2.0f64).exp()), "{between} {inner}");
    // Of one shape nothing is known of another: a factor of 2 on both sides.
    let mut one = machine();
    one.cells.retain(|c| c.shape == (1024, 1024));
    assert!(near(width(&one, Query::new((512, 512), 4, 0.8)) / inner, 4.0));
}

#[test]
fn more_tokens_than_were_measured_from_memory_are_answered_from_the_caches_and_said_to_be() {
    let machine = machine();
    let ask = |tokens| machine.advise(&Query::new((1024, 1024), tokens, 0.8).from_memory()).unwrap();
    let (one, four) = (ask(1), ask(4));
    assert!(one.from_memory && near(one.dense.us, 2.0 * dense((1024, 1024), 1)), "{one:?}");
    assert!(!four.from_memory && four.query.from_memory && near(four.dense.us, dense((1024, 1024), 4)), "{four:?}");
}

#[test]
fn shapes_that_were_measured_with_fewer_tokens_say_nothing_of_more() {
    let mut short = machine();
    short.cells.retain(|c| c.shape != (4096, 4096) || c.tokens == 1);
    let ask = |shape, tokens| short.advise(&Query::new(shape, tokens, 0.8)).unwrap();
    let inner = ask((512, 512), 8);
    assert!(inner.extrapolated.is_empty() && near(inner.dense.us, dense((512, 512), 8)), "{inner:?}");
    // Beyond the largest that was measured with as many tokens.
    for shape in [(2048, 2048), (4096, 4096)] {
        let outer = ask(shape, 64);
        let times = (shape.0 * shape.1 / (1 << 20)) as f64;
        assert!(outer.extrapolated == ["shape"] && near(outer.dense.us, times * dense((1024, 1024), 64)), "{outer:?}");
    }
    let one = ask((4096, 4096), 1);
    assert!(one.measured && near(one.dense.us, dense((4096, 4096), 1)), "{one:?}");
}

#[test]
fn weights_that_are_not_square_are_corrected_by_those_that_were_measured() {
    let mut machine = machine();
    for tokens in [1, 4, 64] {
        // Four times as many outputs as inputs take 1.44 times as long, and sparse ones as long as square ones.
        let mut tall = cell((2048, 512), tokens, false, 1.0);
        tall.dense = about(1.44 * tall.dense.us, 0.01);
        machine.cells.push(tall);
    }
    let ask = |shape| machine.advise(&Query::new(shape, 4, 0.8)).unwrap();
    let own = ask((2048, 512));
    assert!(own.measured && near(own.dense.us, 1.44 * dense((1024, 1024), 4)), "{own:?}");
    // Another size of that ratio, and half of the ratio in logarithms.
    let other = ask((4096, 1024));
    assert!(other.extrapolated.is_empty() && !other.measured && near(other.dense.us, 1.44 * dense((2048, 2048), 4)), "{other:?}");
    let half = ask((1448, 724));
    assert!((half.dense.us / dense((1448, 724), 4) - 1.2).abs() < 1e-3, "{half:?}");
    assert!(near(half.speedup.median, half.dense.us / half.sparse_time.us), "{half:?}");
    assert_eq!(ask((4096, 512)).extrapolated, ["shape"]);
    assert_eq!(ask((512, 2048)).extrapolated, ["shape"]);
}

#[test]
fn bounds_are_wider_between_points_that_do_not_lie_on_straight_lines() {
    let mut bent = machine();
    for c in bent.cells.iter_mut().filter(|c| c.tokens == 4) {
        c.dense = about(2.0 * c.dense.us, 0.01);
    }
    let width = |machine: &Profile, tokens| {
        let s = machine.advise(&Query::new((1024, 1024), tokens, 0.6)).unwrap().speedup;
        assert!(s.low < s.median && s.median < s.high);
        s.high / s.low
    };
    // On a point the bends of others do not matter. Between them the mean bend counts half, on both sides: that of 4 tokens is ln 2.
    assert!(near(width(&bent, 4), width(&machine(), 4)));
    assert!(near(width(&bent, 8), width(&machine(), 8) * 2.0), "{} {}", width(&bent, 8), width(&machine(), 8));
}

#[test]
fn weights_from_memory_have_times_of_their_own_for_as_few_tokens_as_were_measured() {
    let machine = machine();
    let ask = |tokens| machine.advise(&Query::new((1024, 1024), tokens, 0.8).from_memory()).unwrap();
    assert!(near(ask(1).dense.us, 2.0 * dense((1024, 1024), 1)));
    assert!(near(ask(64).dense.us, dense((1024, 1024), 64)) && ask(64).extrapolated.is_empty());
    let mut warm = machine.clone();
    warm.cells.retain(|c| !c.from_memory);
    let says = warm.advise(&Query::new((1024, 1024), 1, 0.8).from_memory()).unwrap_err().to_string();
    assert_eq!(says, "cold: no weights from memory were measured; measure this machine in full");
}

#[test]
fn questions_that_have_no_answer_are_refused_with_the_numbers() {
    let machine = machine();
    let says = |query: Query| machine.advise(&query).unwrap_err().to_string();
    let plain = Query::new((16, 16), 1, 0.5);
    assert_eq!(says(Query { shape: (0, 5), ..plain }), "shape: 0x5, where 1x1 and more are possible");
    assert_eq!(
        says(Query { shape: (usize::MAX, 2), ..plain }),
        format!("shape: {}x2, where 1x1 and more are possible", usize::MAX)
    );
    assert_eq!(says(Query { tokens: 0, ..plain }), "tokens: 0, where 1 or more are possible");
    assert_eq!(says(Query { sparsity: 1.0, ..plain }), "sparsity: 1.0 is not in [0, 1)");
    assert_eq!(says(Query { sparsity: f64::NAN, ..plain }), "sparsity: NaN is not in [0, 1)");
    let eight = Pattern::Nm { n: 4, m: 8 };
    assert_eq!(says(plain.with_pattern(eight)), "pattern: 4:8 was not measured; 2:4, block16x1, unstructured were");
    let odd = Query::new((16, 18), 1, 0.0).with_pattern(NM);
    assert_eq!(says(odd), "pattern 2:4 does not fit a 16 x 18 matrix: 4 does not divide the 18 inputs of a row");
    assert_eq!(odd.sparsity, 0.5);
}

#[test]
fn a_model_is_the_sum_of_its_layers_each_in_its_faster_storage() {
    let machine = machine();
    let layer = |name: &str, shape, mask| LayerShape { name: name.into(), shape, mask };
    let un = |s| Some((Pattern::Unstructured, s));
    let layers = [
        layer("a", (1024, 1024), un(0.8)),
        layer("b", (1024, 1024), un(0.95)),
        layer("c", (256, 256), un(0.6)),
        layer("d", (256, 256), Some((NM, 0.5))),
        layer("e", (1024, 1024), None),
    ];
    let model = machine.advise_model(&layers, 1, Some(0.9), false).unwrap();
    let (large, small) = (dense((1024, 1024), 1), dense((256, 256), 1));
    let rows: Vec<_> = model.rows.iter().map(|r| (r.shape, r.pattern, r.layers, r.storage.as_str())).collect();
    assert_eq!(
        rows,
        [
            ((1024, 1024), Pattern::Unstructured, 3, "sell:padded"),
            ((256, 256), Pattern::Unstructured, 1, "dense"),
            ((256, 256), NM, 1, "dense")
        ]
    );
    assert!(near(model.rows[0].sparsity, (0.8 + 0.95 + 0.9) / 3.0));
    // At 0.6 and in 2:4 dense is faster.
    let sparse = large / gain(1, 0.8) + large / gain(1, 0.95) + large / gain(1, 0.9);
    assert!(near(model.dense_us, 3.0 * large + 2.0 * small) && near(model.best_us, sparse + 2.0 * small), "{model:?}");
    assert!(near(model.speedup.median, model.dense_us / model.best_us));
    assert!(model.speedup.low < model.speedup.median && model.speedup.median < model.speedup.high);
    assert!(near(model.rows[1].speedup.median, gain(1, 0.6)), "a row says what its sparse storage would take");
    let says = machine.advise_model(&layers, 1, None, false).unwrap_err().to_string();
    assert_eq!(says, "sparsity: e has no mask; give a sparsity");
    let odd = [layer("odd", (16, 18), Some((NM, 0.5)))];
    let says = machine.advise_model(&odd, 1, None, false).unwrap_err().to_string();
    assert!(says.starts_with("layer odd: pattern 2:4 does not fit"), "{says}");
}

#[test]
fn profiles_come_back_from_their_files_and_those_of_other_machines_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let (machine, file) = (machine(), dir.path().join("machine.json"));
    let cache = ProfileFile::file(&file);
    let (own, other) = (key(), Key { threads: 2, ..key() });
    assert_eq!(cache.read(&own, &machine.grid).unwrap(), None);
    cache.write(&machine).unwrap();
    // Who names a file gets what is in it.
    assert_eq!(cache.read(&own, &machine.grid).unwrap(), Some(machine.clone()));
    assert_eq!(cache.read(&other, &MeasurementGrid::quick()).unwrap(), Some(machine.clone()));
    let says = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let says = cache.read(&own, &machine.grid).unwrap_err().to_string();
        assert!(says.starts_with(&file.display().to_string()) && says.lines().count() == 1, "{says}");
        says
    };
    assert!(says("{}").contains("is no profile of a machine"));
    let broken = |change: fn(&mut Profile)| {
        let mut broken = machine.clone();
        change(&mut broken);
        serde_json::to_string(&broken).unwrap()
    };
    assert!(says(&broken(|p| p.cells.clear())).ends_with("profile: has no cells"));
    assert!(says(&broken(|p| p.cells[0].dense.us = -1.0)).contains("cell 256x256, 1 tokens has a time of -1 µs"));
    assert!(says(&broken(|p| p.cells[1].sparse[0].sparsity = 1.5)).ends_with("cell 256x256, 4 tokens has a sparsity of 1.5"));
    assert!(says(&broken(|p| p.cells[0].sparse[0].format = "coo".into())).contains("'coo' is none of"));
    assert!(says(&broken(|p| p.cells[0].tokens = 0)).ends_with("has no weights, tokens or masks"));
}

#[test]
fn a_short_measurement_has_all_masks_and_answers_what_it_measured() {
    let grid = MeasurementGrid::quick();
    let mut told = Vec::new();
    let profile = measure(&grid, 1, Seed(0), |done, of| told.push((done, of))).unwrap();
    profile.check().unwrap();
    assert_eq!(profile.key, Key::here(1));
    assert!(!profile.cells.is_empty() && told.last() == Some(&(4, 4)), "{told:?}");
    let first = &profile.cells[0];
    assert_eq!((first.shape, first.tokens, first.from_memory, first.sparse.len()), ((128, 128), 1, false, 3));
    for cell in &profile.cells {
        for s in &cell.sparse {
            assert!(matches!(s.format.parse::<Format>(), Ok(format) if format != Format::Dense), "{}", s.format);
            let query = Query { pattern: s.pattern, ..Query::new(cell.shape, cell.tokens, s.sparsity) };
            let a = profile.advise(&query).unwrap();
            assert!(a.measured && near(a.sparse_time.us, s.time.us) && near(a.dense.us, cell.dense.us), "{a:?}");
        }
    }
    let says = measure(&grid, 0, Seed(0), |_, _| {}).unwrap_err().to_string();
    assert_eq!(says, "threads: 0, where 1 to 1024 are possible");
    let none = MeasurementGrid { shapes: vec![], ..grid };
    assert_eq!(measure(&none, 1, Seed(0), |_, _| {}).unwrap_err().to_string(), "grid: has no shapes, tokens or masks");
}
