//! What training can do beyond following a target: distillation, dropout, jitter, max-norm, few levels, BFGS, synthetic samples.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;

use close::{assert_close, assert_within};
use lacuna::mask::Mask;
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Dropout, Loss, Method, Mode, Network};
use lacuna::quantize::{AffineGrid, Grid, discretise};
use lacuna::rng::Seed;
use lacuna::train::{
    Bfgs, Decay, Distil, Jitter, Munge, Objective, Regularization, Targets, TrainConfig, bfgs, discretised, distillation, munge,
    side_by_side, train, train_discretised,
};
use ndarray::{Array2, array, aview1};

fn normal(seed: u64, rows: usize, cols: usize) -> Array2<f32> {
    Seed(seed).stream("numbers").normal_array(rows, cols, 1.0)
}

fn recipe(epochs: usize, learning_rate: f32) -> TrainConfig {
    let method = Method::Sgd { momentum: 0.0, weight_decay: 0.0 };
    TrainConfig { loss: Loss::SquaredError, method, learning_rate, decay: Decay::Constant, epochs, batch: 8, seed: Seed(1) }
}

#[test]
fn the_soft_gradient_is_the_difference_of_the_soft_loss() {
    let (student, teacher) = (normal(1, 3, 5), normal(2, 3, 5));
    for t in [0.5, 1.0, 4.0, 20.0] {
        let (_, d) = distillation(&student, &teacher, t);
        for i in 0..3 {
            for k in 0..5 {
                let at = |by: f32| {
                    let mut moved = student.clone();
                    moved[[i, k]] += by;
                    distillation(&moved, &teacher, t).0.sum()
                };
                let slope = (at(0.01) - at(-0.01)) / 0.02;
                assert!((slope - f64::from(d[[i, k]])).abs() < 1e-3, "τ {t}: {slope} and {}", d[[i, k]]);
            }
        }
    }
}

#[test]
fn a_high_temperature_matches_logits_and_the_gradient_keeps_its_size() {
    let centred = |a: Array2<f32>| &a - &a.mean_axis(ndarray::Axis(1)).unwrap().insert_axis(ndarray::Axis(1));
    let (student, teacher) = (centred(normal(3, 4, 6)), centred(normal(4, 4, 6)));
    let (loss, d) = distillation(&student, &teacher, 1e4);
    let matching = (&student - &teacher) / 6.0; // (z − v) / N
    assert_close(&d, &matching, 1e-3f32.next_down(), "the gradient");
    let squares = (&student - &teacher).mapv(|v| f64::from(v * v)).sum_axis(ndarray::Axis(1)) / 12.0;
    assert_within(&loss, &squares, |_, b: f64| (1e-3 * b.max(1.0)).next_down(), "the loss");
    // Without τ² the gradient would be 10⁻⁸ of this.
    let size = |t: f32| distillation(&student, &teacher, t).1.iter().map(|d| d.abs()).sum::<f32>();
    assert!((size(100.0) / size(1e4) - 1.0).abs() < 0.05, "{} and {}", size(100.0), size(1e4));
}

#[test]
fn a_mixed_objective_is_the_weighted_sum_and_a_teacher_teaches_itself_nothing() {
    let (output, teacher) = (normal(5, 4, 3), normal(6, 4, 3));
    let labels = Array2::from_shape_fn((4, 3), |(n, k)| f32::from(u8::from(n % 3 == k)));
    let rows = [0, 1, 2, 3];
    let of = |hard: f32, temperature: f32, output: &Array2<f32>| {
        let mut d = output.clone();
        (Distil::new(&teacher, &labels, temperature, hard).unwrap().loss(&rows, &mut d, 1), d)
    };
    let (soft, hard, mixed) = (of(0.0, 2.0, &output), of(1.0, 2.0, &output), of(0.25, 2.0, &output));
    assert!((mixed.0 - (0.75 * soft.0 + 0.25 * hard.0)).abs() < 1e-5);
    assert_close(&mixed.1, &(&soft.1 * 0.75 + &hard.1 * 0.25), 1e-6f32.next_down(), "the gradient of a quarter");
    assert!((hard.0 - Loss::CrossEntropy.values(&output, &labels).sum()).abs() < 1e-5);
    let (own, d) = of(0.0, 3.0, &teacher);
    assert!(own.abs() < 1e-6 && d.iter().all(|d| d.abs() < 1e-6));
    let error = |t, h| Distil::new(&teacher, &labels, t, h).unwrap_err().to_string();
    assert_eq!(error(0.0, 0.5), "temperature: 0: it must be positive");
    assert_eq!(error(1.0, 1.5), "hard: 1.5 is not in [0, 1]: 0 learns from the teacher alone");
}

#[test]
fn dropped_units_are_dropped_on_the_way_back_too() {
    let net = mlp(&[5, 8, 6, 2], Activation::Tanh, Init::He, Seed(7)).unwrap();
    let (x, t) = (normal(8, 6, 5), normal(9, 6, 2));
    let dropout = Dropout { inputs: 0.2, hidden: 0.5 };
    // The same units in every run: a clone of one stream.
    let stream = Seed(10).stream("units");
    let loss = |n: &Network| {
        let tape = n.run_dropped(x.clone(), dropout, &mut stream.clone());
        Loss::SquaredError.value(tape.output(), &t)
    };
    let tape = net.run_dropped(x.clone(), dropout, &mut stream.clone());
    let d = Loss::SquaredError.gradient(tape.output(), &t) / 6.0;
    let gradients = net.backward(&tape, d);
    for (k, (name, p)) in net.params().iter().enumerate() {
        for at in [(0, 0), (p.value().nrows() - 1, p.value().ncols() - 1)] {
            let moved = |by: f32| {
                let mut n = net.clone();
                let mut v = p.value().clone();
                v[at] += by;
                n.param_mut(name).unwrap().set_value(v).unwrap();
                loss(&n)
            };
            let slope = (moved(0.005) - moved(-0.005)) / 0.01;
            let found = f64::from(gradients[k][at]);
            assert!((slope - found).abs() < 2e-3 * slope.abs().max(1.0), "{name} {at:?}: {found}, differences say {slope}");
        }
    }
}

#[test]
fn dropout_keeps_the_mean_and_none_of_it_is_the_plain_pass() {
    let net = mlp(&[50, 3], Activation::Tanh, Init::He, Seed(11)).unwrap();
    let x = Array2::ones((2000, 50));
    let plain = net.run(x.clone(), Mode::Train);
    let mut stream = Seed(12).stream("units");
    let none = net.run_dropped(x.clone(), Dropout { inputs: 0.0, hidden: 0.0 }, &mut stream);
    assert_eq!(plain.output(), none.output());
    let half = net.run_dropped(x, Dropout { inputs: 0.5, hidden: 0.0 }, &mut stream);
    let mean = half.output().mean_axis(ndarray::Axis(0)).unwrap();
    assert_close(&mean, &plain.output().row(0), 0.15f32.next_down(), "the mean output");
    let dropped = half.input(0).iter().filter(|v| **v == 0.0).count() as f64 / 1e5;
    assert!((dropped - 0.5).abs() < 0.01, "{dropped}");
}

#[test]
fn jitter_moves_whole_images_and_lets_zeros_in() {
    let shape = (2, 3, 4);
    let image = Array2::from_shape_fn((200, 24), |(_, i)| 1.0 + i as f32);
    let mut moved = image.clone();
    Jitter { shape, pixels: 1 }.apply(&mut moved, &mut Seed(13).stream("moves"));
    let mut seen = std::collections::BTreeSet::new();
    for row in moved.rows() {
        let fits = |down: isize, right: isize| {
            (0..24usize).all(|at| {
                let (c, i, j) = (at / 12, (at / 4 % 3) as isize - down, (at % 4) as isize - right);
                let inside = (0..3).contains(&i) && (0..4).contains(&j);
                row[at] == if inside { 1.0 + (c as isize * 12 + i * 4 + j) as f32 } else { 0.0 }
            })
        };
        let moves = (-1..=1).flat_map(|d| (-1..=1).map(move |r| (d, r)));
        seen.insert(moves.into_iter().find(|&(d, r)| fits(d, r)).expect("a move of at most one pixel"));
    }
    assert_eq!(seen.len(), 9, "all nine moves are drawn");
    let mut still = image.clone();
    Jitter { shape, pixels: 0 }.apply(&mut still, &mut Seed(13).stream("moves"));
    assert_eq!(still, image);
}

#[test]
fn no_row_is_longer_than_the_largest_norm_and_bad_care_is_refused() {
    let (x, t) = (normal(14, 32, 4), normal(15, 32, 3) * 10.0);
    let lesson = Targets { target: &t, loss: Loss::SquaredError };
    let mut net = mlp(&[4, 6, 3], Activation::Tanh, Init::He, Seed(16)).unwrap();
    let care = Regularization { max_norm: Some(0.7), ..Regularization::default() };
    train(&mut net, &x, &lesson, &recipe(5, 0.05), &care, &mut |_, _| {}).unwrap();
    let norms = |n: &Network| -> Vec<f32> {
        n.affines()
            .flat_map(|(_, _, a)| a.weight.value().rows().into_iter().map(|r| r.dot(&r).sqrt()).collect::<Vec<_>>())
            .collect()
    };
    assert!(norms(&net).iter().all(|n| *n <= 0.7001) && norms(&net).iter().any(|n| *n > 0.699), "{:?}", norms(&net));
    let error = |care: Regularization| {
        train(&mut net.clone(), &x, &lesson, &recipe(1, 0.1), &care, &mut |_, _| {}).unwrap_err().to_string()
    };
    let dropout = Some(Dropout { inputs: 1.0, hidden: 0.0 });
    assert!(error(Regularization { dropout, ..Regularization::default() }).starts_with("dropout: 1 of the inputs"));
    assert!(
        error(Regularization { jitter: Some(Jitter { shape: (1, 2, 3), pixels: 1 }), ..Regularization::default() })
            .starts_with("images to jitter")
    );
}

#[test]
fn grids_have_their_levels_and_the_scale_is_the_best_of_a_fine_search() {
    assert_eq!(Grid::Uniform { levels: 5 }.levels().unwrap(), [-1.0, -0.5, 0.0, 0.5, 1.0]);
    assert_eq!(Grid::PowerOfTwo { levels: 6 }.levels().unwrap(), [-1.0, -0.5, -0.25, 0.25, 0.5, 1.0]);
    assert_eq!(Grid::Ternary.levels().unwrap(), [-1.0, 0.0, 1.0]);
    assert_eq!(Grid::Uniform { levels: 1 }.levels().unwrap_err().to_string(), "levels: 1: from 2 to 255");
    let w = normal(17, 1, 200);
    for grid in [2, 3, 5, 7].map(|levels| Grid::Uniform { levels }).into_iter().chain([Grid::PowerOfTwo { levels: 7 }]) {
        let error = |s: f32| grid.round(&w, s).unwrap().iter().zip(&w).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let found = grid.scale(w.iter().copied()).unwrap();
        let best = (1..400).map(|i| error(0.01 * i as f32)).fold(f64::INFINITY, f64::min);
        assert!(error(found) <= best * 1.02, "{grid:?}: {} at {found}, {best} by search", error(found));
        let levels = grid.levels().unwrap();
        let rounded = grid.round(&w, found).unwrap();
        let used = |v: f32| levels.iter().any(|l| (l * found - v).abs() < 1e-6);
        assert!(rounded.iter().all(|&v| used(v)), "{grid:?}");
    }
    assert_eq!(Grid::Ternary.scale([0.0, 0.0]).unwrap(), 0.0);
    let mask = Mask::from_array(&array![[true, false]]);
    let (binary, _) = discretise(&array![[2.0, 3.0]], Some(&mask), Grid::Uniform { levels: 2 }).unwrap();
    assert_eq!(binary, array![[2.0, 0.0]]);
}

#[test]
fn one_step_moves_the_continuous_weight_by_the_gradient_at_the_discretised_one() {
    let (x, t) = (normal(18, 8, 3), normal(19, 8, 1));
    let mut net = mlp(&[3, 1], Activation::Tanh, Init::He, Seed(20)).unwrap();
    let before = net.clone();
    let grid = Grid::Ternary;
    let rounded = discretised(&before, grid, false).unwrap();
    let lesson = Targets { target: &t, loss: Loss::SquaredError };
    let (returned, losses) =
        train_discretised(&mut net, &x, &lesson, &recipe(1, 0.1), &Regularization::default(), grid, false).unwrap();
    let (loss, gradient) = rounded.gradient(&x, &t, Loss::SquaredError, Mode::Eval);
    assert!((losses[0] - loss).abs() < 1e-5 * loss);
    let expected = before.param("fc1.weight").unwrap().value() - &(&gradient[0] * 0.1);
    let found = net.param("fc1.weight").unwrap().value();
    assert_close(found, &expected, 1e-5f32.next_down(), "a step of 0.1");
    let (_, scale) = discretise(returned.param("fc1.weight").unwrap().value(), None, grid).unwrap();
    assert!(
        returned.param("fc1.weight").unwrap().value().iter().all(|w| [-scale, 0.0, scale].iter().any(|l| (l - w).abs() < 1e-5))
    );
}

#[test]
fn bfgs_finds_the_least_squares_solution_and_holds_masks() {
    let x = normal(21, 40, 6);
    let t = x.dot(&normal(22, 6, 1)) + 0.7;
    let mut net = mlp(&[6, 1], Activation::Tanh, Init::LeCun, Seed(23)).unwrap();
    net.param_mut("fc1.weight").unwrap().set_mask(Mask::from_fn(1, 6, |_, c| c != 2)).unwrap();
    let how = Bfgs { loss: Loss::SquaredError, decay: 0.01, steps: 100, tolerance: 1e-6 };
    let objective = bfgs(&mut net, &x, &t, &how).unwrap();
    // The normal equations, with the column of the dropped weight left out and one of ones for the bias.
    let kept = x.select(ndarray::Axis(1), &[0, 1, 3, 4, 5]).mapv(f64::from);
    let a = ndarray::concatenate![ndarray::Axis(1), kept, Array2::<f64>::ones((40, 1))];
    let h = a.t().dot(&a) / 40.0 + Array2::<f64>::eye(6) * 0.01;
    let w = lacuna::linalg::solve_spd(&h, &(a.t().dot(&t.mapv(f64::from)) / 40.0)).unwrap();
    let weight = net.param("fc1.weight").unwrap().value();
    let found = [
        weight[[0, 0]],
        weight[[0, 1]],
        weight[[0, 3]],
        weight[[0, 4]],
        weight[[0, 5]],
        net.param("fc1.bias").unwrap().value()[[0, 0]],
    ];
    assert!(found.iter().zip(&w).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4), "{found:?} and {w}");
    assert_eq!(weight[[0, 2]], 0.0);
    let residual = a.dot(&w) - t.mapv(f64::from);
    let expected = residual.iter().map(|r| r * r).sum::<f64>() / 40.0 + 0.01 * w.iter().map(|w| w * w).sum::<f64>();
    assert!((objective - expected).abs() < 1e-5, "{objective} and {expected}");
    assert!(bfgs(&mut net, &t, &t, &how).is_err());
}

#[test]
fn munged_samples_lie_between_neighbours_and_nominal_values_only_change_places() {
    // Two far clusters: attribute 0 says which, attribute 1 is a name, attribute 2 a number.
    let random = normal(24, 40, 1);
    let x = Array2::from_shape_fn((40, 3), |(n, a)| match a {
        0 => {
            if n < 20 {
                -50.0
            } else {
                50.0
            }
        }
        1 => {
            if n < 20 {
                1.0 + (n % 2) as f32
            } else {
                8.0 + (n % 2) as f32
            }
        }
        _ => random[[n, 0]],
    });
    let how = Munge { times: 3, swap: 1.0, variance: 1e6, seed: Seed(25) };
    let made = munge(&x, &[false, true, false], &how).unwrap();
    assert_eq!(made.dim(), (120, 3));
    for row in made.rows() {
        let low = row[0] < 0.0;
        assert!((row[0].abs() - 50.0).abs() < 1e-3, "neighbours are of one cluster: {row}");
        assert!(if low { [1.0, 2.0] } else { [8.0, 9.0] }.contains(&row[1]), "{row}");
    }
    // With a large s every attribute is an old one of a neighbour: as sets the values stay.
    for time in 0..3 {
        let mut new: Vec<f32> = made.slice(ndarray::s![40 * time..40 * time + 40, 2]).to_vec();
        let mut old: Vec<f32> = x.column(2).to_vec();
        new.sort_by(f32::total_cmp);
        old.sort_by(f32::total_cmp);
        assert_close(&aview1(&new), &aview1(&old), 1e-3f32.next_down(), format!("time {time}"));
    }
    let still = munge(&x, &[false; 3], &Munge { swap: 0.0, times: 1, ..how }).unwrap();
    assert_eq!(still, x);
    assert_eq!(made, munge(&x, &[false, true, false], &how).unwrap());
    let error = |how: &Munge| munge(&x, &[false; 3], how).unwrap_err().to_string();
    assert_eq!(error(&Munge { swap: 2.0, ..how }), "munge: swap 2 must be in [0, 1], variance 1000000 positive");
    assert!(munge(&x, &[false; 2], &how).is_err());
}

#[test]
fn networks_trained_side_by_side_are_those_trained_one_after_the_other() {
    // Wide enough for products and steps of the optimiser that a pool would share out.
    let (x, t) = (normal(26, 64, 300), normal(27, 64, 200));
    let job = |k: usize| {
        let mut net = mlp(&[300, 200, 200], Activation::Relu, Init::He, Seed(k as u64))?;
        let lesson = Targets { target: &t, loss: Loss::SquaredError };
        let care = Regularization { dropout: Some(Dropout { inputs: 0.1, hidden: 0.5 }), max_norm: Some(2.0), jitter: None };
        let adam = TrainConfig { method: Method::Adam { weight_decay: 0.0 }, ..recipe(3, 1e-3) };
        train(&mut net, &x, &lesson, &adam, &care, &mut |_, _| {})?;
        let weights: Vec<Array2<f32>> = net.params().iter().map(|(_, p)| p.value().clone()).collect();
        Ok((rayon::current_num_threads(), weights))
    };
    let alone: Vec<_> = (0..5).map(|k| job(k).unwrap().1).collect();
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let beside = pool.install(|| side_by_side(5, job)).unwrap();
        for (k, (seen, weights)) in beside.into_iter().enumerate() {
            assert_eq!(seen, 1, "a job has its thread to itself");
            assert!(weights == alone[k], "network {k} on {threads} threads differs");
        }
    }
    let none: Vec<usize> = side_by_side(0, Ok).unwrap();
    assert!(none.is_empty());
}

#[test]
fn the_first_job_that_fails_is_told_of_and_no_later_one_is_begun() {
    let begun = std::sync::atomic::AtomicUsize::new(0);
    let job = |k: usize| {
        begun.fetch_max(k, std::sync::atomic::Ordering::SeqCst);
        if k >= 3 { Err(lacuna::Error::invalid_option("job", format!("{k}"))) } else { Ok(k) }
    };
    for threads in [1, 2] {
        begun.store(0, std::sync::atomic::Ordering::SeqCst);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let error = pool.install(|| side_by_side(1000, job)).unwrap_err().to_string();
        assert_eq!(error, "job: 3");
        let last = begun.load(std::sync::atomic::Ordering::SeqCst);
        // A thread that had begun before the failure was known may be one further.
        assert!(last < 3 + threads, "{threads} threads went on to {last}");
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_no_minimum() {
    let mut net = mlp(&[1, 1, 1], Activation::Tanh, Init::LeCun, Seed(24)).unwrap();
    // The hidden unit is saturated, and the loss is still a number: its gradient is not.
    net.param_mut("fc1.weight").unwrap().set_value(array![[1e30]]).unwrap();
    net.param_mut("fc2.weight").unwrap().set_value(array![[3e38]]).unwrap();
    let how = Bfgs { loss: Loss::SquaredError, decay: 0.0, steps: 10, tolerance: 1e-6 };
    let error = bfgs(&mut net, &array![[1.0], [2.0]], &array![[0.0], [0.0]], &how).unwrap_err().to_string();
    assert!(error.starts_with("layer fc1.weight: gradient: ") && error.contains("at row 0, column 0"), "{error}");
}

#[test]
fn numbers_that_are_not_finite_have_no_level() {
    for value in [f32::NAN, f32::INFINITY] {
        let w = array![[1.0, -2.0, 0.5], [0.0, value, 1.0]];
        let place = format!("weights: {value} at row 1, column 1");
        assert!(Grid::Ternary.round(&w, 1.0).unwrap_err().to_string().starts_with(&place));
        assert!(AffineGrid::new(4).fit(&w).unwrap_err().to_string().starts_with(&place));
        assert_eq!(Grid::Ternary.round(&array![[1.0]], value).unwrap_err().to_string(), format!("scale: {value} is not finite"));
    }
}

#[test]
fn settings_of_training_that_are_no_numbers_for_it_are_refused_by_name() {
    let (x, t) = (normal(30, 12, 4), normal(31, 12, 2));
    let lesson = Targets { target: &t, loss: Loss::SquaredError };
    let net = mlp(&[4, 3, 2], Activation::Relu, Init::He, Seed(32)).unwrap();
    let refused = |x: &Array2<f32>, recipe: &TrainConfig, care: &Regularization| {
        let mut trained = net.clone();
        let line = train(&mut trained, x, &lesson, recipe, care, &mut |_, _| {}).unwrap_err().to_string();
        assert_eq!(trained, net, "{line}");
        line
    };
    let (plain, none) = (recipe(1, 0.1), Regularization::default());
    for rate in [f32::NAN, f32::INFINITY, -0.1] {
        let line = refused(&x, &TrainConfig { learning_rate: rate, ..plain.clone() }, &none);
        assert_eq!(line, format!("learning rate: {rate}; it must be a finite number of at least 0"));
    }
    let sgd = |momentum, weight_decay| TrainConfig { method: Method::Sgd { momentum, weight_decay }, ..plain.clone() };
    assert_eq!(refused(&x, &sgd(1.0, 0.0), &none), "momentum: 1 is not in [0, 1)");
    assert_eq!(refused(&x, &sgd(f32::NAN, 0.0), &none), "momentum: NaN is not in [0, 1)");
    for method in [
        Method::Sgd { momentum: 0.0, weight_decay: -1.0 },
        Method::Adam { weight_decay: -1.0 },
        Method::AdamW { weight_decay: -1.0 },
    ] {
        let line = refused(&x, &TrainConfig { method, ..plain.clone() }, &none);
        assert_eq!(line, "weight decay: -1; it must be a finite number of at least 0");
    }
    for most in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let line = refused(&x, &plain, &Regularization { max_norm: Some(most), ..none });
        assert!(line.starts_with(&format!("max-norm: {most};")), "{line}");
    }
    let moved = |shape, pixels| refused(&x, &plain, &Regularization { jitter: Some(Jitter { shape, pixels }), ..none });
    assert_eq!(moved((1, 2, 2), 2), "jitter: images of 2 x 2 moved by up to 2 pixels may lose all that is in them");
    assert!(moved((1, 2, 2), usize::MAX).starts_with("jitter: "));
    assert!(moved((usize::MAX, 2, 2), 0).starts_with("images to jitter: "));
    for value in [f32::NAN, f32::INFINITY] {
        let mut bad = x.clone();
        bad[[7, 2]] = value;
        assert!(refused(&bad, &plain, &none).contains(&format!("training samples': {value} at row 7, column 2")));
    }
}

#[test]
fn no_epochs_leave_the_network_and_numbers_that_run_away_behind_a_rectifier_are_found() {
    let (x, t) = (normal(33, 12, 4), normal(34, 12, 2));
    let lesson = Targets { target: &t, loss: Loss::SquaredError };
    let net = mlp(&[4, 3, 2], Activation::Relu, Init::He, Seed(35)).unwrap();
    let mut same = net.clone();
    let losses = train(&mut same, &x, &lesson, &recipe(0, 0.1), &Regularization::default(), &mut |_, _| {}).unwrap();
    assert_eq!((losses, same), (vec![], net.clone()));
    // One step: its loss is that of the weights before it.
    let far = TrainConfig { batch: 12, ..recipe(1, 3e38) };
    let line = train(&mut net.clone(), &x, &lesson, &far, &Regularization::default(), &mut |_, _| {}).unwrap_err().to_string();
    assert!(line.starts_with("training: fc") && line.contains("is no longer finite in epoch 0"), "{line}");
}

#[test]
fn the_divergence_at_the_highest_temperatures_is_half_the_squared_distance_of_the_logits() {
    let (student, teacher) = (array![[1.0f32, -1.0, 0.0]], array![[-2.0f32, 2.0, 0.0]]);
    for temperature in [1e4f32, 1e6, 1e8, 1e10] {
        let (loss, d) = distillation(&student, &teacher, temperature);
        assert!((loss[0] - (9.0 + 9.0) / 6.0).abs() < 1e-2, "τ {temperature:e}: {}", loss[0]);
        assert!((d[[0, 0]] - 1.0).abs() < 1e-2, "τ {temperature:e}: {d}");
    }
    // At low ones, where p of some classes is 0, it is what the definition says.
    let (loss, _) = distillation(&array![[900.0, 0.0]], &array![[0.0, 900.0]], 1.0);
    assert!((loss[0] - 900.0).abs() < 1e-3, "{}", loss[0]);
    let (student, teacher) = (normal(36, 5, 4), normal(37, 5, 4));
    let (loss, _) = distillation(&student, &teacher, 2.0);
    for (n, loss) in loss.iter().enumerate() {
        let soft = |z: &Array2<f32>| -> Vec<f64> {
            let e: Vec<f64> = z.row(n).iter().map(|z| (f64::from(*z) / 2.0).exp()).collect();
            e.iter().map(|v| v / e.iter().sum::<f64>()).collect()
        };
        let (p, q) = (soft(&teacher), soft(&student));
        let by_hand = 4.0 * p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        assert!((loss - by_hand).abs() < 1e-9, "{loss} and {by_hand}");
    }
}

#[test]
fn settings_of_bfgs_and_of_made_up_samples_that_cannot_be_are_refused() {
    let (x, t) = (normal(38, 10, 3), normal(39, 10, 1));
    let how = Bfgs { loss: Loss::SquaredError, decay: 0.01, steps: 5, tolerance: 1e-6 };
    let net = mlp(&[3, 1], Activation::Tanh, Init::He, Seed(40)).unwrap();
    let error = |how: &Bfgs| bfgs(&mut net.clone(), &x, &t, how).unwrap_err().to_string();
    assert_eq!(error(&Bfgs { decay: -0.1, ..how }), "decay: -0.1; it must be a finite number of at least 0");
    assert_eq!(error(&Bfgs { tolerance: f64::NAN, ..how }), "tolerance: NaN; it must be a finite number of at least 0");
    let many = Munge { times: usize::MAX / 4, swap: 0.5, variance: 1.0, seed: Seed(1) };
    let line = munge(&x, &[false; 3], &many).unwrap_err().to_string();
    assert!(line.starts_with("munge: ") && line.ends_with("times 10 samples of 3 attributes are beyond any memory"), "{line}");
    let wild = Munge { times: 2, swap: 1.0, variance: 1e-38, seed: Seed(1) };
    let line = munge(&x, &[false; 3], &wild).unwrap_err().to_string();
    assert!(line.starts_with("samples made with variance 0.00000000000000000000000000000000000001: "), "{line}");
}

#[test]
fn a_weight_that_is_not_finite_has_no_level_and_is_named_by_its_place() {
    let mut weight = normal(41, 3, 4);
    weight[[1, 2]] = f32::NAN;
    let says = "weights: NaN at row 1, column 2; only finite numbers can be ranked or stored";
    assert_eq!(discretise(&weight, None, Grid::Ternary).unwrap_err().to_string(), says);
    // What a mask drops is nobody's concern.
    let mask = Mask::from_fn(3, 4, |r, c| (r, c) != (1, 2));
    let (rounded, _) = discretise(&weight, Some(&mask), Grid::Ternary).unwrap();
    assert!(rounded.iter().all(|w| w.is_finite()) && rounded[[1, 2]] == 0.0);
}
