//! Quantisers against slow versions of their formulas.

use crate::common::*;
use lacuna::criteria::{Evidence, Measured, Wanda};
use lacuna::io::Checkpoint;
use lacuna::mask::{Mask, Pattern, Scope};
use lacuna::quantize::{AffineGrid, CodeGrid, Granularity, ScaleType, Step};
use lacuna::rng::Seed;
use lacuna::solve::{Awq, Gptq, Hqq, JointPruning, Obr, Order, Pruner, Quantizer, Rounded, Rtn, Scored, SparseGpt};
use ndarray::{Array1, Array2, s};

const DAMPING: f64 = 0.01;

/// Inverse by elimination, of a small positive definite matrix.
fn inverse(a: &Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    let mut work = Array2::zeros((n, 2 * n));
    work.slice_mut(s![.., ..n]).assign(a);
    (0..n).for_each(|i| work[[i, n + i]] = 1.0);
    for i in 0..n {
        let pivot = work[[i, i]];
        work.row_mut(i).mapv_inplace(|v| v / pivot);
        let row = work.row(i).to_owned();
        for j in (0..n).filter(|j| *j != i) {
            let by = work[[j, i]];
            work.row_mut(j).scaled_add(-by, &row);
        }
    }
    work.slice(s![.., n..]).to_owned()
}

/// GPTQ as the paper says it: of each row, column by column, with the inverse of the columns that are left made anew each time. Steps are found on the weights
/// as they are when their group begins, or before.
fn naive(layer: &Layer, grid: CodeGrid, order: &[usize], fixed: bool, mask: Option<&Mask>) -> (Array2<u8>, Array2<Step>) {
    let (rows, cols) = layer.weight.dim();
    let group = grid.check(cols).unwrap();
    let mut h = layer.gram().clone();
    let damp = DAMPING * h.diag().sum() / cols as f64;
    h.diag_mut().mapv_inplace(|d| d + damp);
    let inverses: Vec<Array2<f64>> = (0..cols)
        .map(|j| {
            let left = &order[j..];
            inverse(&Array2::from_shape_fn((left.len(), left.len()), |(a, b)| h[[left[a], left[b]]]))
        })
        .collect();
    let kept = |r: usize, c: usize| mask.is_none_or(|m| m.get(r, c));
    let start = mask.map_or_else(|| layer.weight.clone(), |m| m.applied(&layer.weight));
    let mut codes = Array2::zeros((rows, cols));
    let mut steps = grid.fit_all(&start).unwrap();
    for r in 0..rows {
        let mut w: Vec<f64> = start.row(r).iter().map(|w| f64::from(*w)).collect();
        let mut begun = vec![fixed; cols / group];
        for (j, &c) in order.iter().enumerate() {
            if !std::mem::replace(&mut begun[c / group], true) {
                let of = (0..group).map(|i| c / group * group + i).filter(|c| kept(r, *c)).map(|c| w[c] as f32);
                steps[[r, c / group]] = grid.fit(of);
            }
            let step = steps[[r, c / group]];
            let value = match kept(r, c) {
                true => {
                    codes[[r, c]] = grid.code(step, w[c] as f32);
                    f64::from(step.value(codes[[r, c]]))
                }
                false => {
                    codes[[r, c]] = step.zero as u8;
                    0.0
                }
            };
            let error = (w[c] - value) / inverses[j][[0, 0]];
            order[j..].iter().enumerate().for_each(|(i, &later)| w[later] -= error * inverses[j][[0, i]]);
        }
    }
    (codes, steps)
}

/// Rows in which a code differs: one that lies between two values takes those behind it along.
fn differing(found: &Rounded, codes: &Array2<u8>) -> Vec<usize> {
    (0..codes.nrows()).filter(|r| found.codes.codes.row(*r) != codes.row(*r)).collect()
}

#[test]
fn gptq_gives_the_codes_of_the_slow_version_in_every_order() {
    let layer = Layer::random(24, 64, 200, 3);
    let natural: Vec<usize> = (0..64).collect();
    let by = |of: &dyn Fn(usize) -> f64, all: &[usize]| {
        let mut order = all.to_vec();
        order.sort_by(|a, b| of(*b).total_cmp(&of(*a)));
        order
    };
    let diagonal = |c: usize| layer.gram()[[c, c]];
    let activation = by(&diagonal, &natural);
    // Groups by their largest entry, within them as by activation.
    let largest = |g: usize| (16 * g..16 * g + 16).map(diagonal).fold(0.0, f64::max);
    let groups = by(&largest, &[0, 1, 2, 3]);
    let aware: Vec<usize> = groups.iter().flat_map(|g| by(&diagonal, &(16 * g..16 * g + 16).collect::<Vec<_>>())).collect();
    let mask = Mask::from_fn(24, 64, |r, c| (r * 7 + c * 5) % 3 != 0);
    for bits in [3u32, 4] {
        for (symmetric, granularity) in
            [(true, Granularity::Group(16)), (false, Granularity::Group(16)), (false, Granularity::Row)]
        {
            let grid = CodeGrid { symmetric, ..CodeGrid::new(bits, granularity) };
            for (order, columns, fixed) in [
                (Order::Natural, &natural, false),
                (Order::Natural, &natural, true),
                (Order::Activation, &activation, true),
                (Order::GroupAware, &aware, false),
            ] {
                if granularity == Granularity::Row && order == Order::GroupAware {
                    continue;
                }
                for mask in [None, Some(&mask)] {
                    // Steps of a group are found at its first column: blocks of a group, so that the weights are what they are there.
                    let gptq = Gptq { block: 16, order, static_groups: fixed, ..Gptq::default() };
                    let found = gptq.quantize(&Evidence { mask, ..layer.evidence() }, grid).unwrap();
                    let (codes, steps) = naive(&layer, grid, columns, fixed, mask);
                    let case = format!(
                        "{bits} bits, {granularity}, symmetric {symmetric}, {order:?}, static {fixed}, {}",
                        mask.is_some()
                    );
                    let other = differing(&found, &codes);
                    assert!(other.len() <= 1, "{case}: rows {other:?} of {}", codes.nrows());
                    for ((r, g), wanted) in steps.indexed_iter().filter(|((r, _), _)| !other.contains(r)) {
                        let found = found.codes.scales[[r, g]];
                        assert!((found - wanted.scale).abs() <= 1e-3 * wanted.scale, "{case}: {found} {}", wanted.scale);
                    }
                    assert_eq!(found.weight, found.codes.to_dense());
                    if let Some(mask) = mask {
                        assert_eq!(mask.dropped_nonzeros(&found.weight), 0, "{case}");
                        assert_eq!(found.mask.as_ref(), Some(mask));
                    }
                    if mask.is_none() {
                        let rtn = Rtn.quantize(&layer.evidence(), grid).unwrap();
                        assert!(found.loss < rtn.loss, "{case}: {:?} {:?}", found.loss, rtn.loss);
                    }
                }
            }
        }
    }
}

/// Optimal Brain Restoration as its module says it: of each row the least squares solution on what stays, then column by column as [`naive`], with inverses
/// of what stays alone.
fn naive_on_what_stays(layer: &Layer, grid: CodeGrid, mask: &Mask) -> (Array2<u8>, Array2<Step>) {
    let (rows, cols) = layer.weight.dim();
    let group = grid.check(cols).unwrap();
    let mut h = layer.gram().clone();
    let damp = DAMPING * h.diag().sum() / cols as f64;
    h.diag_mut().mapv_inplace(|d| d + damp);
    let mut codes = Array2::zeros((rows, cols));
    let mut steps = Array2::from_elem((rows, cols / group), grid.fit([]));
    for r in 0..rows {
        let stays: Vec<usize> = (0..cols).filter(|c| mask.get(r, *c)).collect();
        let dense: Vec<f64> = layer.weight.row(r).iter().map(|w| f64::from(*w)).collect();
        let mut w = least_squares(&dense, &stays, &h);
        (0..cols / group).for_each(|g| codes.slice_mut(s![r, g * group..(g + 1) * group]).fill(steps[[r, g]].zero as u8));
        for (j, &c) in stays.iter().enumerate() {
            let of = c / group;
            if j == 0 || stays[j - 1] / group != of {
                steps[[r, of]] = grid.fit(stays.iter().filter(|c| **c / group == of).map(|c| w[*c] as f32));
                codes.slice_mut(s![r, of * group..(of + 1) * group]).fill(steps[[r, of]].zero as u8);
            }
            codes[[r, c]] = grid.code(steps[[r, of]], w[c] as f32);
            let left = &stays[j..];
            let inverse = inverse(&Array2::from_shape_fn((left.len(), left.len()), |(a, b)| h[[left[a], left[b]]]));
            let error = (w[c] - f64::from(steps[[r, of]].value(codes[[r, c]]))) / inverse[[0, 0]];
            left.iter().enumerate().for_each(|(i, &later)| w[later] -= error * inverse[[0, i]]);
        }
    }
    (codes, steps)
}

#[test]
fn obr_gives_the_codes_of_the_slow_version_on_what_stays() {
    let layer = Layer::random(16, 64, 200, 5);
    let masks = [Mask::from_fn(16, 64, |r, c| (r * 7 + c * 5) % 3 != 0), Mask::from_fn(16, 64, |_, c| !(16..32).contains(&c))];
    for bits in [3u32, 4] {
        for (symmetric, granularity) in [
            (true, Granularity::Group(16)),
            (false, Granularity::Group(16)),
            (false, Granularity::Row),
            (true, Granularity::Tensor),
        ] {
            let grid = CodeGrid { symmetric, ..CodeGrid::new(bits, granularity) };
            for mask in &masks {
                let case = format!("{bits} bits, {granularity}, symmetric {symmetric}, {} stay", mask.kept());
                let found = Obr::default().quantize(&Evidence { mask: Some(mask), ..layer.evidence() }, grid).unwrap();
                assert_eq!(mask.dropped_nonzeros(&found.weight), 0, "{case}");
                assert_eq!((found.mask.as_ref(), &found.weight), (Some(mask), &found.codes.to_dense()));
                if granularity == Granularity::Tensor {
                    assert!(found.codes.scales.iter().all(|s| *s == found.codes.scales[[0, 0]]), "{case}");
                    continue;
                }
                let (codes, steps) = naive_on_what_stays(&layer, grid, mask);
                let other = differing(&found, &codes);
                assert!(other.len() <= 1, "{case}: rows {other:?} of {}", codes.nrows());
                for ((r, g), wanted) in
                    steps.indexed_iter().filter(|((r, g), _)| !other.contains(r) && mask.get(*r, g * 64 / steps.ncols()))
                {
                    let found = found.codes.scales[[r, g]];
                    assert!((found - wanted.scale).abs() <= 1e-3 * wanted.scale, "{case}: {found} {}", wanted.scale);
                }
            }
            // With nothing gone it is GPTQ.
            if granularity != Granularity::Tensor {
                let obr = Obr::default().quantize(&layer.evidence(), grid).unwrap();
                let gptq = Gptq { block: 16, ..Gptq::default() }.quantize(&layer.evidence(), grid).unwrap();
                assert!(differing(&obr, &gptq.codes.codes).len() <= 1);
            }
        }
    }
}

#[test]
fn obr_loses_less_than_gptq_with_the_same_mask_and_prunes_by_wanda() {
    let (mut obr, mut gptq) = (0.0, 0.0);
    for seed in 0..6 {
        let layer = Layer::random(24, 96, 300, 20 + seed);
        let grid = CodeGrid::new(4, Granularity::Group(32));
        let pruned = layer.prune(&SparseGpt::default(), Pattern::Unstructured, 0.5).unwrap();
        let evidence = Evidence { weight: pruned.weight.view(), mask: Some(&pruned.mask), ..layer.evidence() };
        obr += Obr::default().quantize(&evidence, grid).unwrap().loss.unwrap();
        gptq += Gptq::default().quantize(&evidence, grid).unwrap().loss.unwrap();
        let prune = JointPruning { pattern: Pattern::Unstructured, scope: Scope::Row, sparsity: 0.5 };
        let joint = Obr { prune: Some(prune), ..Obr::default() }.quantize(&layer.evidence(), grid).unwrap();
        let wanda = layer.prune_in(&Scored(Wanda), Pattern::Unstructured, Scope::Row, 0.5).unwrap();
        assert_eq!(joint.mask.as_ref(), Some(&wanda.mask));
        // Restored: even in codes of 4 bits it is nearer to the layer than Wanda's weights are.
        assert!(joint.loss < wanda.loss, "{:?} {:?}", joint.loss, wanda.loss);
    }
    assert!(obr < 0.985 * gptq, "{obr} {gptq}");
    let layer = Layer::random(4, 32, 60, 1);
    let grid = CodeGrid::new(4, Granularity::Row);
    let rows = JointPruning { pattern: Pattern::Rows, scope: Scope::Layer, sparsity: 0.5 };
    let line = Obr { prune: Some(rows), ..Obr::default() }.quantize(&layer.evidence(), grid).unwrap_err().to_string();
    assert!(line.starts_with("pattern: rows that go whole leave nothing"), "{line}");
    // An input that is another's copy, told by its place in the layer.
    let mut gram = layer.gram().clone();
    let row = gram.row(20).to_owned();
    gram.row_mut(7).assign(&row);
    let column = gram.column(20).to_owned();
    gram.column_mut(7).assign(&column);
    let measured = Measured { tokens: 60, gram: Some(gram), ..Measured::default() };
    let mask = Mask::from_fn(4, 32, |_, c| c % 3 != 0);
    let evidence = Evidence { mask: Some(&mask), ..Evidence::new("fc1", &layer.weight, &measured) };
    let found = Obr { damping: 0.0, prune: None }.quantize(&evidence, grid).unwrap_err();
    assert!(found.to_string().contains("column 7"), "{found}");
}

#[test]
fn gptq_gives_the_codes_of_a_plain_transcription_of_the_authors_loop() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/quantize.safetensors");
    let file = Checkpoint::read(path).unwrap();
    let layer = Layer::new(file.matrix("weight").unwrap(), &file.matrix("inputs").unwrap());
    let (rows, cols) = layer.weight.dim();
    for (name, bits, symmetric, granularity, order, fixed) in [
        ("row4", 4, false, Granularity::Row, Order::Natural, false),
        ("group3", 3, false, Granularity::Group(32), Order::Natural, false),
        ("sym4", 4, true, Granularity::Group(32), Order::Natural, false),
        ("static2", 2, false, Granularity::Group(32), Order::Natural, true),
        ("act4", 4, true, Granularity::Group(32), Order::Activation, true),
        ("aware3", 3, true, Granularity::Group(32), Order::GroupAware, false),
    ] {
        let grid = CodeGrid { symmetric, ..CodeGrid::new(bits, granularity) };
        let gptq = Gptq { order, static_groups: fixed, ..Gptq::default() };
        let found = gptq.quantize(&layer.evidence(), grid).unwrap();
        let wanted: Array2<f32> = file.matrix(name).unwrap();
        let same = found.codes.codes.iter().zip(&wanted).filter(|(a, b)| f32::from(**a) == **b).count();
        assert!(same * 1000 >= rows * cols * 999, "{name}: {same} of {}", rows * cols);
    }
}

#[test]
fn weights_of_dead_inputs_take_part_in_no_range() {
    let layer = Layer::random(8, 32, 60, 3);
    let (mut weight, mut gram) = (layer.weight.clone(), layer.gram().clone());
    weight.column_mut(5).fill(100.0);
    gram.row_mut(5).fill(0.0);
    gram.column_mut(5).fill(0.0);
    let measured = Measured { tokens: 60, gram: Some(gram), ..Measured::default() };
    let mut without = weight.clone();
    without.column_mut(5).fill(0.0);
    for granularity in [Granularity::Row, Granularity::Group(16), Granularity::Tensor] {
        let grid = CodeGrid::new(4, granularity).asymmetric();
        let found = Gptq::default().quantize(&Evidence::new("fc1", &weight, &measured), grid).unwrap();
        let wanted = Gptq::default().quantize(&Evidence::new("fc1", &without, &measured), grid).unwrap();
        assert_eq!(found.codes, wanted.codes, "{granularity}");
        assert!(found.weight.column(5).iter().all(|w| *w == 0.0), "{granularity}");
    }
}

#[test]
fn pruning_in_the_loop_is_sparsegpt_on_the_same_grid() {
    let layer = Layer::random(20, 48, 150, 5);
    for (pattern, sparsity) in
        [(Pattern::Unstructured, 0.5), (Pattern::Nm { n: 2, m: 4 }, 0.5), (Pattern::Block { rows: 4, cols: 2 }, 0.25)]
    {
        for symmetric in [true, false] {
            let (affine, grid) =
                (AffineGrid { bits: 4, symmetric }, CodeGrid { symmetric, ..CodeGrid::new(4, Granularity::Row) });
            let pruner = SparseGpt { block: 16, grid: Some(affine), ..SparseGpt::default() };
            let pruned = layer.prune(&pruner, pattern, sparsity).unwrap();
            let prune = Some(JointPruning { pattern, scope: Scope::Layer, sparsity });
            let found = Gptq { block: 16, prune, ..Gptq::default() }.quantize(&layer.evidence(), grid).unwrap();
            assert_eq!((found.mask, found.weight), (Some(pruned.mask), pruned.weight), "{pattern} {symmetric}");
        }
    }
    assert_eq!(
        SparseGpt::default().name(),
        Gptq {
            prune: Some(JointPruning { pattern: Pattern::Unstructured, scope: Scope::Layer, sparsity: 0.5 }),
            ..Gptq::default()
        }
        .name()
    );
}

#[test]
fn ranges_are_those_that_lose_least_of_all_that_are_tried() {
    let layer = Layer::random(6, 32, 90, 7);
    for (symmetric, granularity) in [(true, Granularity::Group(8)), (false, Granularity::Group(16)), (false, Granularity::Row)] {
        let grid = CodeGrid { symmetric, ..CodeGrid::new(3, granularity) };
        let found = Awq::default().quantize(&layer.evidence(), grid).unwrap();
        let group = grid.check(32).unwrap();
        let mut cut = 0;
        for r in 0..6 {
            for g in 0..32 / group {
                let columns = g * group..(g + 1) * group;
                let w: Vec<f32> = columns.clone().map(|c| layer.weight[[r, c]]).collect();
                let most = w.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                let gram = layer.gram().slice(s![columns.clone(), columns.clone()]);
                let loss = |step: Step| {
                    let e: Array1<f64> = w.iter().map(|&w| f64::from(step.value(grid.code(step, w)) - w)).collect();
                    e.dot(&gram.dot(&e))
                };
                let tried: Vec<Step> = (0..10)
                    .map(|i| most * (1.0 - i as f32 / 20.0))
                    .map(|range| grid.fit(w.iter().map(|w| w.clamp(-range, range))))
                    .collect();
                let least = tried.iter().map(|s| loss(*s)).fold(f64::INFINITY, f64::min);
                let step = found.codes.step(r, g);
                assert!(loss(step) <= least * (1.0 + 1e-4), "row {r}, group {g}: {} {least}", loss(step));
                cut += usize::from(step.scale < tried[0].scale);
            }
        }
        assert!(cut > 0, "some range is cut off");
        let plain = Awq { clip: false, ..Awq::default() }.quantize(&layer.evidence(), grid).unwrap();
        assert_eq!(plain, Rtn.quantize(&layer.evidence(), grid).unwrap());
        // Queries keep their range.
        let query = Evidence { layer: "h.0.q_proj", ..layer.evidence() };
        assert_eq!(Awq::default().quantize(&query, grid).unwrap(), plain);
    }
}

#[test]
fn scales_of_inputs_are_those_that_lose_least_over_all_layers_that_read_them() {
    let mut stream = Seed(11).stream("inputs");
    let mut x: Array2<f32> = stream.normal_array(70, 24, 1.0);
    x.column_mut(3).mapv_inplace(|v| 30.0 * v);
    x.column_mut(9).mapv_inplace(|v| 8.0 * v);
    let base = Layer::new(stream.normal_array(10, 24, 0.3), &x);
    let magnitudes = x.mapv(|v| f64::from(v).abs()).sum_axis(ndarray::Axis(0));
    let measured = Measured { input_magnitudes: Some(magnitudes.clone()), ..base.measured.clone() };
    let (a, b) = (base.weight.clone(), stream.normal_array(6, 24, 0.5));
    let grid = CodeGrid::new(3, Granularity::Group(8)).asymmetric();
    let layers = [Evidence::new("a", &a, &measured), Evidence::new("b", &b, &measured)];
    let found = Awq::default().input_scales(&layers, grid).unwrap();
    let of = |exponent: f64| -> (Array1<f32>, f64) {
        let raw = magnitudes.mapv(|m| (m / 70.0).powf(exponent).max(1e-4));
        let (least, most) = raw.iter().fold((f64::INFINITY, 0.0f64), |(l, m), v| (l.min(*v), m.max(*v)));
        let scales = raw.mapv(|v| (v / (least * most).sqrt()) as f32);
        let loss = [&a, &b].into_iter().map(|w| {
            let scaled = w * &scales;
            let rounded = Rtn.quantize(&Evidence::weight_only("w", &scaled), grid).unwrap().weight / &scales;
            let out = x.mapv(f64::from).dot(&(rounded - w).mapv(f64::from).t());
            out.iter().map(|v| v * v).sum::<f64>()
        });
        (scales.clone(), loss.sum())
    };
    let all: Vec<(Array1<f32>, f64)> = (0..20).map(|i| of(f64::from(i) / 20.0)).collect();
    let best = (0..20).min_by(|a, b| all[*a].1.total_cmp(&all[*b].1)).unwrap();
    assert!(best > 0, "scales pay here");
    assert_eq!(found.exponent, best as f64 / 20.0);
    assert_eq!(found.scales, all[best].0);
    for (found, wanted) in [(found.loss, all[best].1), (found.plain, all[0].1)] {
        assert!((found - wanted).abs() < 1e-3 * wanted, "{found} {wanted}");
    }
}

#[test]
fn hqq_solves_by_turns_as_it_is_written_down() {
    let layer = Layer::random(5, 32, 40, 9);
    let grid = CodeGrid::new(3, Granularity::Group(16)).asymmetric();
    let hqq = Hqq { whole_zeros: false, ..Hqq::default() };
    let found = hqq.quantize(&layer.evidence(), grid).unwrap();
    // All groups at once, a line a line of the formula.
    let groups: Vec<Vec<f64>> =
        (0..10).map(|at| layer.weight.row(at / 2).iter().skip(at % 2 * 16).take(16).map(|w| f64::from(*w)).collect()).collect();
    let steps = grid.fit_all(&layer.weight).unwrap();
    let scales: Vec<f64> = steps.iter().map(|s| f64::from(s.scale)).collect();
    let mut zeros: Vec<f64> = steps.iter().map(|s| f64::from(s.zero)).collect();
    let code = |w: f64, scale: f64, zero: f64| (w / scale + zero).round_ties_even().clamp(0.0, 7.0);
    let (mut best, mut least, mut beta) = (zeros.clone(), f64::INFINITY, 10.0);
    for _ in 0..20 {
        let (mut next, mut lost) = (Vec::new(), 0.0);
        for (g, weights) in groups.iter().enumerate() {
            let mut sum = 0.0;
            for w in weights {
                let c = code(*w, scales[g], zeros[g]);
                let x = w - scales[g] * (c - zeros[g]);
                lost += x.abs();
                let e = if x == 0.0 { 0.0 } else { x.signum() * (x.abs() - x.abs().powf(0.7 - 1.0) / beta).max(0.0) };
                sum += c - (w - e) / scales[g];
            }
            next.push((sum / 16.0).clamp(0.0, 7.0));
        }
        if lost >= least {
            break;
        }
        (best, least, zeros) = (zeros, lost, next);
        beta *= 1.01;
    }
    for (found, wanted) in found.codes.zeros.iter().zip(&best) {
        assert!((f64::from(*found) - wanted).abs() < 1e-3, "{found} {wanted}");
    }
    let sum = |weight: &Array2<f32>, power: f64| -> f64 {
        weight.iter().zip(&layer.weight).map(|(q, w)| f64::from(q - w).abs().powf(power)).sum()
    };
    let rtn = Rtn.quantize(&layer.evidence(), grid).unwrap();
    assert!(sum(&found.weight, 1.0) < sum(&rtn.weight, 1.0));
    let whole = Hqq::default().quantize(&layer.evidence(), grid).unwrap();
    assert!(whole.codes.zeros.iter().all(|z| z.fract() == 0.0));
    assert!(sum(&whole.weight, 0.7) <= sum(&rtn.weight, 0.7));
    let line = Hqq::default().quantize(&layer.evidence(), CodeGrid::new(3, Granularity::Row)).unwrap_err().to_string();
    assert!(line.starts_with("scheme: hqq finds zero points"), "{line}");
}

#[test]
fn masks_scales_of_files_and_single_steps_are_kept_by_all() {
    let layer = Layer::random(9, 32, 120, 13);
    let measured = Measured { input_magnitudes: Some(Array1::from_elem(32, 3.0)), ..layer.measured.clone() };
    let mask = Mask::from_fn(9, 32, |r, c| (r + c) % 4 != 1);
    let all: [&dyn Quantizer; 5] = [&Rtn, &Gptq::default(), &Obr::default(), &Awq::default(), &Hqq::default()];
    for quantizer in all {
        for scales in [ScaleType::F16, ScaleType::BF16, ScaleType::F32] {
            for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(8)] {
                let grid = CodeGrid::new(4, granularity).asymmetric().scales(scales);
                let evidence = Evidence { mask: Some(&mask), measured: &measured, ..layer.evidence() };
                let found = quantizer.quantize(&evidence, grid).unwrap();
                let case = format!("{} {granularity} {scales:?}", quantizer.name());
                assert_eq!(mask.dropped_nonzeros(&found.weight), 0, "{case}");
                assert!(found.codes.scales.iter().all(|s| scales.round(*s) == *s), "{case}");
                if granularity == Granularity::Tensor {
                    assert!(found.codes.scales.iter().all(|s| *s == found.codes.scales[[0, 0]]), "{case}");
                }
                let again = rayon::ThreadPoolBuilder::new()
                    .num_threads(1)
                    .build()
                    .unwrap()
                    .install(|| quantizer.quantize(&evidence, grid));
                assert_eq!(again.unwrap(), found, "{case}: one thread and two make the same bits");
            }
        }
    }
}

#[test]
fn what_cannot_be_meant_is_refused_in_a_line() {
    let layer = Layer::random(4, 24, 40, 1);
    let line = |quantizer: &dyn Quantizer, grid: CodeGrid| quantizer.quantize(&layer.evidence(), grid).unwrap_err().to_string();
    let row = CodeGrid::new(4, Granularity::Row);
    assert_eq!(line(&Rtn, CodeGrid::new(9, Granularity::Row)), "layer blocks.3.o: bits: 9 is not 1 to 8");
    assert!(line(&Rtn, CodeGrid::new(4, Granularity::Group(16))).contains("groups of 16 do not divide rows of 24 inputs"));
    assert!(line(&Gptq { block: 0, ..Gptq::default() }, row).contains("block-size: 0 is not at least 1"));
    let act = Gptq { order: Order::Activation, ..Gptq::default() };
    assert!(line(&act, CodeGrid::new(4, Granularity::Group(8))).starts_with("order: by activation it scatters"));
    assert!(line(&Gptq { damping: -1.0, ..Gptq::default() }, row).contains("damping: -1 is not a finite number"));
    let bare = Evidence::weight_only("fc1", &layer.weight);
    assert!(Gptq::default().quantize(&bare, row).unwrap_err().to_string().contains("the Gram matrix of the inputs"));
    let huge = Array2::from_elem((1, 4), 1e9f32);
    let error = Rtn.quantize(&Evidence::weight_only("fc1", &huge), row.scales(ScaleType::F16)).unwrap_err().to_string();
    assert_eq!(error, "layer fc1: scale: that of row 0, group 0 is inf, and has to be a finite number above 0");
}
