//! Methods of the whole Hessian against direct inverses, exhaustive search, and each other.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;

use close::{assert_close, assert_within};
use lacuna::allocate::{Global, Target};
use lacuna::calibrate::{Calibration, LayerWeights, measure};
use lacuna::criteria::{Evidence, Fisher, Measured, Saliency};
use lacuna::linalg::spd_inverse;
use lacuna::mask::{Mask, Pattern, Scope};
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Loss, Network};
use lacuna::prune::{Criterion, Pruning, Surgeon, compensated};
use lacuna::rng::Seed;
use lacuna::solve::{InverseHessian, WoodFisher, obs};
use lacuna::train::{Bfgs, bfgs};
use ndarray::{Array1, Array2, array, aview1, s};

fn rows(seed: u64, m: usize, n: usize) -> Array2<f32> {
    Seed(seed).stream("rows").normal_array(m, n, 1.0)
}

/// α I + 1/P Σ x xᵀ.
fn hessian(x: &Array2<f32>, alpha: f64) -> Array2<f64> {
    let x = x.mapv(f64::from);
    x.t().dot(&x) / x.nrows() as f64 + Array2::<f64>::eye(x.ncols()) * alpha
}

/// The largest absolute entry; infinite where one is NaN.
fn largest(a: &Array2<f64>) -> f64 {
    a.iter().fold(0.0, |m, v| if v.is_nan() { f64::INFINITY } else { f64::max(m, v.abs()) })
}

/// min over the kept of ½ δwᵀ H δw when the rest goes, and the weights there, by a direct solve.
fn exact(h: &Array2<f64>, w: &[f64], keep: &[usize]) -> (f64, Vec<f64>) {
    let go: Vec<usize> = (0..w.len()).filter(|i| !keep.contains(i)).collect();
    let sub = |r: &[usize], c: &[usize]| Array2::from_shape_fn((r.len(), c.len()), |(i, j)| h[[r[i], c[j]]]);
    let mut delta: Array1<f64> = w.iter().map(|w| -w).collect();
    if !keep.is_empty() {
        let gone: Array1<f64> = go.iter().map(|&q| w[q]).collect();
        let answer = spd_inverse(&sub(keep, keep)).unwrap().dot(&sub(keep, &go).dot(&gone));
        keep.iter().zip(answer).for_each(|(&k, d)| delta[k] = d);
    }
    (0.5 * delta.dot(&h.dot(&delta)), w.iter().zip(&delta).map(|(w, d)| w + d).collect())
}

#[test]
fn the_recursion_over_patterns_is_the_direct_inverse() {
    for (m, n, alpha) in [(100, 40, 1e-2), (30, 40, 1e-4), (1, 3, 1e-8), (500, 25, 1e-8)] {
        let x = rows(1, m, n);
        let by_rank_one = InverseHessian::of_rows(&x, m as f64, alpha).unwrap();
        let h = hessian(&x, alpha);
        // H H⁻¹ = I: relative to the entries, which reach 1/α where the patterns do not span the space.
        let product = h.dot(by_rank_one.matrix()) - Array2::<f64>::eye(n);
        let scale = largest(by_rank_one.matrix()) * largest(&h);
        assert!(largest(&product) < 1e-12 * scale.max(1e4), "{m} x {n}, α {alpha}: {:e} of {scale:e}", largest(&product));
        if m > n {
            let direct = spd_inverse(&h).unwrap();
            let off = largest(&(by_rank_one.matrix() - &direct)) / largest(&direct);
            assert!(off < 1e-8, "{m} x {n}, α {alpha}: {off:e} from the direct inverse");
        }
        assert_eq!(by_rank_one.matrix(), &by_rank_one.matrix().t(), "symmetric to the bit");
    }
}

#[test]
fn taking_parameters_out_leaves_the_inverse_of_what_is_left() {
    let h = hessian(&rows(2, 60, 12), 1e-3);
    let mut inverse = InverseHessian::of(&h).unwrap();
    let mut left: Vec<usize> = (0..12).collect();
    for q in [3, 11, 0, 7] {
        inverse.remove(q);
        left.retain(|&i| i != q);
        let sub = Array2::from_shape_fn((left.len(), left.len()), |(i, j)| h[[left[i], left[j]]]);
        let direct = spd_inverse(&sub).unwrap();
        for (i, &a) in left.iter().enumerate() {
            for (j, &b) in left.iter().enumerate() {
                assert!((inverse.matrix()[[a, b]] - direct[[i, j]]).abs() < 1e-10 * largest(&direct));
            }
        }
        assert!(inverse.matrix().row(q).iter().chain(inverse.matrix().column(q)).all(|v| *v == 0.0));
    }
}

#[test]
fn every_removal_is_the_constrained_minimum_and_the_saliencies_add_up() {
    let h = hessian(&rows(3, 80, 15), 1e-3);
    let start: Vec<f64> = rows(4, 1, 15).iter().map(|&w| f64::from(w)).collect();
    let (mut w, mut inverse, mut total) = (start.clone(), InverseHessian::of(&h).unwrap(), 0.0);
    let mut keep: Vec<usize> = (0..15).collect();
    for _ in 0..14 {
        let cut = obs::surgery(&mut w, &mut inverse, &[true; 15], 1).unwrap()[0];
        keep.retain(|&i| i != cut.index);
        total += cut.saliency;
        let (increase, best) = exact(&h, &start, &keep);
        assert!((total - increase).abs() < 1e-8 * increase, "{total} and {increase}");
        assert_close(&aview1(&w), &aview1(&best), 1e-8f64.next_down(), format!("{} left", keep.len()));
        assert_eq!(w[cut.index], 0.0);
    }
}

/// Ten weights: a linear network of nine inputs and a bias, whose squared error is a quadratic.
fn ten_weights() -> (Network, Array2<f32>, Array2<f32>) {
    let x = rows(5, 60, 9);
    let t = x.dot(&rows(6, 9, 1)) + rows(7, 60, 1) * 0.3 + 0.4;
    let mut net = mlp(&[9, 1], Activation::Tanh, Init::LeCun, Seed(0)).unwrap();
    let how = Bfgs { loss: Loss::SquaredError, decay: 0.0, steps: 200, tolerance: 1e-7 };
    bfgs(&mut net, &x, &t, &how).unwrap();
    (net, x, t)
}

#[test]
fn ten_weights_against_all_subsets() {
    let (net, x, t) = ten_weights();
    let data = Calibration::new(&x, &t, Loss::SquaredError);
    let with_one = ndarray::concatenate![ndarray::Axis(1), x, Array2::ones((60, 1))];
    let h = hessian(&with_one, 0.0) * 2.0;
    let weights =
        |n: &Network| -> Vec<f64> { n.params().iter().flat_map(|(_, p)| p.value().iter().map(|&w| f64::from(w))).collect() };
    let w = weights(&net);
    // In f64: what rounding does to a loss in f32 is no small part of these differences.
    let off = |n: &Network| with_one.mapv(f64::from).dot(&Array1::from(weights(n))) - t.column(0).mapv(f64::from);
    let loss = |n: &Network| off(n).mapv(|e| e * e).sum() / 60.0;
    // Training stops where the gradient is small, not none, and what the gradient adds is no part of the prediction.
    let slope = |n: &Network| 2.0 * (off(&net) * (off(n) - off(&net))).sum() / 60.0;
    for count in 1..=4usize {
        let mut best = f64::INFINITY;
        for subset in 0u32..1 << 10 {
            if subset.count_ones() as usize == count {
                let keep: Vec<usize> = (0..10).filter(|i| subset >> i & 1 == 0).collect();
                best = best.min(exact(&h, &w, &keep).0);
            }
        }
        let (smaller, cuts) = Surgeon::new(Criterion::Obs, 1e-9).cut(&net, &data, count).unwrap();
        let predicted = cuts.iter().map(|c| c.saliency).sum::<f64>();
        let measured = loss(&smaller) - loss(&net) - slope(&smaller);
        assert!((predicted - measured).abs() < 1e-5 * measured, "{count}: predicted {predicted}, measured {measured}");
        // One weight: the best of ten. More: greedy, so never better than the best, and here not far from it.
        assert!(measured > best * (1.0 - 1e-4), "{count}: {measured} below the best {best}");
        assert!(measured < best * if count == 1 { 1.0 + 1e-4 } else { 1.25 }, "{count}: {measured}, the best is {best}");
        for criterion in [Criterion::Obd, Criterion::Magnitude] {
            let (other, _) = Surgeon::new(criterion, 1e-9).cut(&net, &data, count).unwrap();
            assert!(loss(&other) >= loss(&smaller) - 1e-6, "{criterion:?} beats OBS at {count} removed");
            assert_eq!(other.kept_parameters(), 10 - count);
        }
    }
}

#[test]
fn the_hessian_of_a_network_is_that_of_hessian_vector_products_where_gauss_newton_is_exact() {
    // A linear network has no second derivatives for Gauss-Newton to drop, under either loss.
    for loss in [Loss::SquaredError, Loss::CrossEntropy] {
        let net = mlp(&[3, 4], Activation::Tanh, Init::He, Seed(8)).unwrap();
        let x = rows(9, 20, 3);
        let t = Array2::from_shape_fn((20, 4), |(i, k)| f32::from(u8::from(i % 4 == k)));
        let alpha = 0.05;
        let inverse = Surgeon::new(Criterion::Obs, alpha).inverse(&net, &Calibration::new(&x, &t, loss)).unwrap();
        let mut h = Array2::<f64>::zeros((16, 16));
        for q in 0..16 {
            let mut v = vec![Array2::zeros((4, 3)), Array2::zeros((4, 1))];
            if q < 12 {
                v[0][[q / 3, q % 3]] = 1.0
            } else {
                v[1][[q - 12, 0]] = 1.0
            }
            let column = net.hessian_times(&x, &t, loss, &v);
            column.iter().flatten().enumerate().for_each(|(i, &c)| h[[i, q]] = f64::from(c));
        }
        h.diag_mut().mapv_inplace(|d| d + alpha);
        let off = largest(&(h.dot(inverse.matrix()) - Array2::<f64>::eye(16)));
        assert!(off < 1e-4, "{loss:?}: {off}");
    }
}

#[test]
fn a_surgeon_leaves_masked_weights_alone_and_says_what_went() {
    let net = mlp(&[3, 4, 1], Activation::Tanh, Init::He, Seed(10)).unwrap();
    let (x, t) = (rows(11, 30, 3), rows(12, 30, 1));
    let data = Calibration::new(&x, &t, Loss::SquaredError);
    for criterion in [Criterion::Obs, Criterion::Obd, Criterion::Magnitude] {
        let surgeon = Surgeon::new(criterion, 1e-3);
        let (once, first) = surgeon.cut(&net, &data, 5).unwrap();
        let (twice, then) = surgeon.cut(&once, &data, 5).unwrap();
        assert_eq!((once.kept_parameters(), twice.kept_parameters()), (16, 11));
        for cut in first.iter().chain(&then) {
            assert_eq!(twice.param(&cut.param).unwrap().value()[[cut.row, cut.col]], 0.0);
        }
        assert!(then.iter().all(|c| !first.iter().any(|f| (&f.param, f.row, f.col) == (&c.param, c.row, c.col))));
        let path = surgeon.path(&net, &data, |_| Ok(())).unwrap();
        assert_eq!(path.iter().map(Network::kept_parameters).collect::<Vec<_>>(), (1..=21).rev().collect::<Vec<_>>());
        let error = surgeon.cut(&net, &data, 22).unwrap_err().to_string();
        assert_eq!(error, "count: 22 parameters are to go, and after 21 none is left to go");
    }
    let error = Surgeon::new(Criterion::Obs, 0.0).cut(&net, &data, 1).unwrap_err().to_string();
    assert_eq!(error, "alpha: 0: the inverse begins at 1/alpha, so it must be positive");
    let few = Calibration::new(&t, &t, Loss::SquaredError);
    assert!(Surgeon::new(Criterion::Obd, 1.0).cut(&net, &few, 1).is_err());
}

fn layer_of<'a>(w: &'a Array2<f32>, measured: &'a Measured) -> Evidence<'a> {
    Evidence { measured, ..Evidence::weight_only("fc", w) }
}

#[test]
fn woodfisher_is_the_direct_inverse_block_by_block_and_full_for_a_block_of_the_layer() {
    let (n, g) = (24, rows(13, 10, 24));
    for block in [1, 5, 9, 10, 11, 24, 1000] {
        let fisher = WoodFisher { damping: 1e-3, block };
        let diagonal = fisher.inverse_diagonal(&g).unwrap();
        for from in (0..n).step_by(block.min(n)) {
            let part = g.slice(s![.., from..(from + block).min(n)]).to_owned();
            let direct = spd_inverse(&hessian(&part, 1e-3)).unwrap();
            for (i, d) in direct.diag().iter().enumerate() {
                let off = (diagonal[from + i] / d - 1.0).abs();
                assert!(off < 1e-8, "block {block}, weight {}: {off:e} off", from + i);
            }
        }
    }
}

#[test]
fn woodfisher_with_blocks_of_one_scores_as_the_diagonal_fisher_does() {
    let (w, g) = (rows(14, 4, 5), rows(15, 30, 20));
    let squares = (&g * &g).mean_axis(ndarray::Axis(0)).unwrap().into_shape_with_order((4, 5)).unwrap();
    let measured = Measured { sample_gradients: Some(g), squared_gradients: Some(squares), ..Measured::default() };
    let layer = layer_of(&w, &measured);
    let a = WoodFisher { damping: 1e-9, block: 1 }.score(&layer).unwrap();
    let b = Fisher.score(&layer).unwrap();
    assert_within(&a, &b, |_, b: f32| 1e-5 * b.abs(), "WoodFisher and Fisher");
}

#[test]
fn survivors_answer_with_the_minimum_over_each_block() {
    let (w, g) = (rows(16, 4, 6), rows(17, 9, 24));
    let mask = Mask::from_fn(4, 6, |r, c| (r * 7 + c * 5) % 3 == 0);
    let held = Mask::from_fn(4, 6, |r, c| mask.get(r, c) || (r + c) % 2 == 0);
    let flat: Vec<f64> = held.applied(&w).iter().map(|&w| f64::from(w)).collect();
    for block in [1, 6, 8, 24, 500] {
        let fisher = WoodFisher { damping: 0.01, block };
        let (new, predicted) = fisher.compensate(&held.applied(&w), &g, Some(&held), &mask).unwrap();
        let mut total = 0.0;
        for from in (0..24).step_by(block.min(24)) {
            let to = (from + block).min(24);
            // What was dropped before is not there: it takes no part.
            let there: Vec<usize> = (from..to).filter(|&i| held.get(i / 6, i % 6)).collect();
            let part = g.select(ndarray::Axis(1), &there);
            let own: Vec<f64> = there.iter().map(|&i| flat[i]).collect();
            let keep: Vec<usize> = (0..there.len()).filter(|&k| mask.get(there[k] / 6, there[k] % 6)).collect();
            let (cost, best) = exact(&hessian(&part, 0.01), &own, &keep);
            total += cost;
            for (k, &i) in there.iter().enumerate() {
                let found = f64::from(new[[i / 6, i % 6]]);
                assert!((found - best[k]).abs() < 1e-5, "block {block}, weight {i}: {found}, the minimum is at {}", best[k]);
            }
        }
        assert!((predicted - total).abs() < 1e-8 * total, "block {block}: {predicted} and {total}");
        assert!(mask.not().iter_kept().all(|at| new[at] == 0.0));
    }
}

#[test]
fn on_a_network_the_survivors_answer_makes_the_loss_smaller() {
    let (x, labels) = (rows(18, 200, 6), 3);
    let t = Array2::from_shape_fn((200, labels), |(n, k)| {
        let best = (0..labels).max_by(|&a, &b| x[[n, a]].total_cmp(&(x[[n, b]] + 0.3 * x[[n, 5]]))).unwrap();
        f32::from(u8::from(best == k))
    });
    let mut net = mlp(&[6, 12, labels], Activation::Tanh, Init::Glorot, Seed(19)).unwrap();
    bfgs(&mut net, &x, &t, &Bfgs { loss: Loss::CrossEntropy, decay: 1e-3, steps: 60, tolerance: 1e-5 }).unwrap();
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    let fisher = WoodFisher { damping: 1e-3, block: 1000 };
    let (target, pattern, scope) = (Target::Sparsity(0.5), Pattern::Unstructured, Scope::Layer);
    let pruning = Pruning { saliency: &fisher, allocate: &Global, target, pattern, scope, skip: &[] };
    let answered = compensated(&net, &data, &pruning, &fisher).unwrap();
    let alone = lacuna::prune::one_shot(&net, &data, &pruning).unwrap();
    assert_eq!(answered.masks, alone.masks);
    let loss = |n: &Network| Loss::CrossEntropy.value(&n.forward(&x), &t);
    assert!(loss(&answered.model) < loss(&alone.model), "{} and {}", loss(&answered.model), loss(&alone.model));
    // ½ δwᵀ F δw of survivors that do not move, from the gradients themselves: no answer can be predicted to cost more.
    let measured = measure(&net, &data, fisher.needs()).unwrap();
    let mut unmoved = 0.0;
    for (layer, (_, mask)) in LayerWeights::of(&net).unwrap().evidence(&measured).iter().zip(&answered.masks) {
        let gone: Array1<f64> = mask.not().applied(&layer.weight.to_owned()).iter().map(|&w| f64::from(w)).collect();
        let seen = layer.sample_gradients("test").unwrap().mapv(f64::from).dot(&gone);
        unmoved += 0.5 * (fisher.damping * gone.dot(&gone) + seen.dot(&seen) / seen.len() as f64);
    }
    let predicted = answered.predicted_increase.unwrap();
    assert!(predicted > 0.0 && predicted < unmoved, "{predicted} with the survivors' answer, {unmoved} without");
    for (name, mask) in &answered.masks {
        let weight = answered.model.param(&format!("{name}.weight")).unwrap();
        assert!(mask.not().iter_kept().all(|at| weight.value()[at] == 0.0));
        assert_eq!(weight.mask(), Some(mask));
    }
}

#[test]
fn mini_batches_average_their_samples_gradients_and_settings_are_checked() {
    let net = mlp(&[4, 3, 2], Activation::Tanh, Init::He, Seed(20)).unwrap();
    let (x, t) = (rows(21, 10, 4), rows(22, 10, 2));
    let fisher = WoodFisher::default();
    let of = |minibatch: usize| {
        let data = Calibration { minibatch, ..Calibration::new(&x, &t, Loss::SquaredError) };
        measure(&net, &data, fisher.needs()).unwrap()
    };
    let (single, fours) = (of(1), of(4));
    for (a, b) in single.iter().zip(&fours) {
        let (a, b) = (a.sample_gradients.as_ref().unwrap(), b.sample_gradients.as_ref().unwrap());
        assert_eq!((a.nrows(), b.nrows()), (10, 3));
        for (i, row) in b.rows().into_iter().enumerate() {
            let mean = a.slice(s![4 * i..(4 * i + 4).min(10), ..]).mean_axis(ndarray::Axis(0)).unwrap();
            assert_close(&row, &mean, 1e-5f32.next_down(), format!("mini-batch {i}"));
        }
    }
    let weights = LayerWeights::of(&net).unwrap();
    let layers = weights.evidence(&single);
    assert!(fisher.score(&layers[0]).is_ok());
    let error = |f: WoodFisher| f.score(&layers[0]).unwrap_err().to_string();
    assert_eq!(
        error(WoodFisher { damping: 0.0, ..fisher }),
        "damping: 0: the inverse begins at 1/damping, so it must be positive"
    );
    assert_eq!(error(WoodFisher { block: 0, ..fisher }), "block: a block has at least one weight");
    let nothing = [Measured::default(), Measured::default()];
    let missing = fisher.score(&weights.evidence(&nothing)[0]).unwrap_err().to_string();
    assert_eq!(missing, "woodfisher needs the gradients of single mini-batches of layer fc1, which was not measured");
    let bad = array![[f32::NAN, 0.0]];
    assert!(fisher.inverse_diagonal(&bad).unwrap_err().to_string().starts_with("gradients: NaN at row 0"));
}

#[test]
fn more_removals_than_there_are_parameters_are_refused_however_many() {
    let mut inverse = InverseHessian::of_diagonal(&[1.0, 2.0]).unwrap();
    let error = obs::surgery(&mut [1.0, 1.0], &mut inverse, &[true; 2], usize::MAX).unwrap_err().to_string();
    assert_eq!(error, format!("count: {} parameters are to go, and after 2 none is left to go", usize::MAX));
}

#[test]
fn an_inverse_that_rounding_or_a_tiny_diagonal_has_broken_is_an_error_and_not_a_saliency() {
    let error = InverseHessian::of_diagonal(&[1.0, 1e-320]).unwrap_err().to_string();
    assert!(error.contains("(at column 1); its entry is 0.000"), "{error}");
    for damping in [0.0, -1.0, f64::NAN, 1e-320] {
        let error = WoodFisher { damping, block: 2 }.inverse_diagonal(&array![[1.0, 2.0]]).unwrap_err().to_string();
        assert!(error.starts_with("damping: "), "{error}");
    }
    // α of 1e-14 beside patterns of 1e6: what is left of 1e14 after them is rounding, of either sign.
    let (mut broken, mut sound) = (0, 0);
    for seed in 0..40 {
        let x = rows(100 + seed, 3, 3).mapv(|x| x * 1e6);
        let mut inverse = InverseHessian::of_rows(&x, 3.0, 1e-14).unwrap();
        let positive = inverse.matrix().diag().iter().all(|d| *d > 0.0);
        match obs::surgery(&mut [1.0, 1.0, 1.0], &mut inverse, &[true; 3], 1) {
            Ok(cuts) => {
                assert!(cuts[0].saliency >= 0.0, "seed {seed}: {cuts:?}");
                sound += 1;
            }
            Err(e) => {
                assert!(!positive && e.to_string().contains("a larger alpha would help"), "seed {seed}: {e}");
                broken += 1;
            }
        }
    }
    assert!(broken > 0, "{sound} sound inverses show nothing");
    let (mut broken, g) = (0, |seed: u64| rows(200 + seed, 3, 4).mapv(|g| g * 1e6));
    for seed in 0..40 {
        for block in [2, 4] {
            match (WoodFisher { damping: 1e-14, block }).inverse_diagonal(&g(seed)) {
                Ok(d) => assert!(d.iter().all(|d| *d > 0.0 && d.is_finite()), "seed {seed}, block {block}: {d}"),
                Err(e) => {
                    broken += 1;
                    assert!(e.to_string().contains("a damping above 0.00000000000001 would help"), "{e}");
                }
            }
        }
    }
    assert!(broken > 0, "nothing was broken");
}

#[test]
fn a_derivative_that_is_not_finite_is_refused_with_its_own_sample() {
    let net = mlp(&[2, 1], Activation::Tanh, Init::He, Seed(14)).unwrap();
    let (mut x, t) = (rows(15, 20, 2), rows(16, 20, 1));
    x[[13, 1]] = 3e38;
    for batch in [1, 4, 8, 256] {
        let data = Calibration { batch, ..Calibration::new(&x, &t, Loss::SquaredError) };
        let error = Surgeon::new(Criterion::Obs, 1e-3).inverse(&net, &data).unwrap_err().to_string();
        assert!(error.starts_with("derivatives (samples, parameters): inf at row 13, column 1"), "batches of {batch}: {error}");
    }
}
