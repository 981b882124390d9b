use crate::common::*;
use lacuna::linalg::solve_spd;
use lacuna::rng::Seed;
use lacuna::solve::{GroupObs, Removal, loss_of};
use ndarray::{Array2, Axis};

const PLAIN: GroupObs = GroupObs { damping: 0.0, rounds: 1000, swaps: 0 };

/// The exact least squares solution of a layer on some columns, in f64, and its loss.
fn exact(layer: &Layer, columns: &[usize]) -> (Array2<f64>, f64) {
    let (w, h) = (layer.weight.mapv(f64::from), layer.gram());
    let right = w.dot(h).select(Axis(1), columns);
    let part = h.select(Axis(0), columns).select(Axis(1), columns);
    let v = solve_spd(&part, &right.t().to_owned()).unwrap().reversed_axes();
    let mut d = -w;
    columns.iter().zip(v.columns()).for_each(|(&c, v)| d.column_mut(c).zip_mut_with(&v, |d, v| *d += v));
    (v, (d.dot(h) * &d).sum())
}

/// All choices of `keep` of `of`.
fn choices(of: usize, keep: usize) -> Vec<Vec<usize>> {
    (0u32..1 << of)
        .filter(|bits| bits.count_ones() as usize == keep)
        .map(|bits| (0..of).filter(|i| bits >> i & 1 == 1).collect())
        .collect()
}

fn columns(groups: &[usize], width: usize) -> Vec<usize> {
    groups.iter().flat_map(|g| g * width..(g + 1) * width).collect()
}

#[test]
fn the_loss_after_each_removal_is_that_of_exact_least_squares_on_what_is_left() {
    for (width, seed) in [(1, 1), (3, 2), (4, 3)] {
        let layer = Layer::random(9, 24, 200, seed);
        let groups = 24 / width;
        for keep in 1..groups {
            let left = PLAIN.remove(&layer.evidence(), &[Removal { width, run: groups, keep }]).unwrap();
            let (weight, loss) = exact(&layer, &left.columns);
            let said = *left.steps.last().unwrap();
            assert!((said - loss).abs() <= 1e-8 * loss.max(1.0), "width {width}, {keep} of {groups}: {said} and {loss}");
            let off = left.weight.iter().zip(&weight).map(|(f, r)| (f64::from(*f) - r).abs() / (1.0 + r.abs()));
            let off = off.fold(0.0, f64::max);
            assert!(off < 1e-6, "width {width}, {keep} of {groups}: weights differ by {off}");
            assert!((left.loss - loss).abs() < 1e-4 * loss, "width {width}, {keep} of {groups}: {} and {loss}", left.loss);
        }
    }
}

#[test]
fn exchanges_come_within_5_percent_of_the_best_set_in_95_of_100_cases() {
    let (mut near, mut without) = (0, 0);
    for case in 0..200u64 {
        let mut stream = Seed(case).stream("sizes");
        let (width, groups) = (1 + stream.below(3), 6 + stream.below(7));
        let keep = 1 + stream.below(groups - 1);
        let layer = Layer::random(4, width * groups, 3 * width * groups, 1000 + case);
        let removal = [Removal { width, run: groups, keep }];
        let best = choices(groups, keep).iter().map(|c| exact(&layer, &columns(c, width)).1).fold(f64::INFINITY, f64::min);
        let of = |obs: GroupObs| exact(&layer, &obs.remove(&layer.evidence(), &removal).unwrap().columns).1;
        near += usize::from(of(GroupObs { damping: 0.0, ..GroupObs::default() }) <= 1.05 * best);
        without += usize::from(of(PLAIN) <= 1.05 * best);
    }
    assert!(near >= 190, "{near} of 200 within 5 %");
    assert!(near > without, "{near} with exchanges, {without} without");
}

#[test]
fn as_many_groups_leave_each_run_and_runs_before_the_groups_in_them() {
    let layer = Layer::random(7, 24, 100, 5);
    // Four runs of three groups of two columns: three runs stay, and two groups of each.
    let removals = [Removal { width: 6, run: 4, keep: 3 }, Removal { width: 2, run: 3, keep: 2 }];
    for swaps in [0, 100] {
        let obs = GroupObs { swaps, ..GroupObs::default() };
        let left = obs.remove(&layer.evidence(), &removals).unwrap();
        assert_eq!(left.columns.len(), 12);
        let in_run = |r: usize| left.columns.iter().filter(|c| **c / 6 == r).count();
        assert_eq!((0..4).filter(|&r| in_run(r) == 4).count(), 3, "{:?}", left.columns);
        assert!((0..12).all(|g| left.columns.contains(&(2 * g)) == left.columns.contains(&(2 * g + 1))), "{:?}", left.columns);
    }
}

#[test]
fn exchanges_never_raise_the_loss_and_say_what_is_left_of_it() {
    for seed in 0..6 {
        let layer = Layer::random(16, 120, 400, seed);
        let removal = [Removal { width: 1, run: 120, keep: 60 }];
        let plain = GroupObs { swaps: 0, rounds: 4, ..GroupObs::default() };
        let before = plain.remove(&layer.evidence(), &removal).unwrap();
        let after = GroupObs { swaps: 200, ..plain }.remove(&layer.evidence(), &removal).unwrap();
        let (before, last) = (before.steps.last().unwrap(), after.steps.last().unwrap());
        assert!(last <= before && (after.swapped > 0) == (last < before), "seed {seed}: {last} after {before}");
        let damping = 0.01 * layer.gram().diag().mean().unwrap();
        let mut damped = Layer { weight: layer.weight.clone(), measured: layer.measured.clone() };
        damped.measured.gram.as_mut().unwrap().diag_mut().mapv_inplace(|d| d + damping);
        let (_, loss) = exact(&damped, &after.columns);
        assert!((last - loss).abs() < 1e-8 * loss, "seed {seed}: {last} and {loss}");
    }
}

#[test]
fn inputs_that_are_always_0_leave_first_and_lose_nothing() {
    let mut x = Seed(2).stream("x").normal_array(60, 10, 1.0);
    [3, 7].into_iter().for_each(|c| x.column_mut(c).fill(0.0));
    let layer = Layer::new(Seed(3).stream("w").normal_array(5, 10, 1.0), &x);
    let left = GroupObs::default().remove(&layer.evidence(), &[Removal { width: 1, run: 10, keep: 8 }]).unwrap();
    assert_eq!(left.columns, [0, 1, 2, 4, 5, 6, 8, 9]);
    assert!(left.loss < 1e-9 && *left.steps.last().unwrap() < 1e-9);
}

#[test]
fn what_stays_as_it_is_loses_what_its_columns_did() {
    let layer = Layer::random(5, 12, 40, 8);
    let kept = [0, 2, 5, 6, 11];
    let weight = layer.weight.select(Axis(1), &kept);
    let found = loss_of(&layer.evidence(), &kept, weight.view()).unwrap();
    let (_, best) = exact(&layer, &kept);
    assert!(found > best, "{found} and {best}");
    let all: Vec<usize> = (0..12).collect();
    assert_eq!(loss_of(&layer.evidence(), &all, layer.weight.view()).unwrap(), 0.0);
}

#[test]
fn groups_that_do_not_fit_the_layer_are_refused_with_the_numbers() {
    let layer = Layer::random(2, 12, 40, 9);
    let line = |removal| GroupObs::default().remove(&layer.evidence(), &[removal]).unwrap_err().to_string();
    let wrong = [
        Removal { width: 5, run: 2, keep: 1 },
        Removal { width: 2, run: 6, keep: 0 },
        Removal { width: 2, run: 6, keep: 7 },
        Removal { width: 0, run: 6, keep: 1 },
    ];
    for removal in wrong {
        let line = line(removal);
        let Removal { width, run, keep } = removal;
        let said = format!("{keep} of runs of {run} groups of {width} columns, of 12 columns");
        assert!(line.ends_with(&said) && line.contains("blocks.3.o"), "{line}");
    }
}

#[test]
fn one_thread_and_two_make_the_same_bits() {
    let layer = Layer::random(70, 150, 500, 12);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| GroupObs::default().remove(&layer.evidence(), &[Removal { width: 1, run: 150, keep: 100 }]).unwrap())
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn with_a_metric_of_the_outputs_the_choice_is_by_it_and_the_weights_are_least_squares_all_the_same() {
    for seed in 0..20 {
        let layer = Layer::random(5, 12, 80, 300 + seed);
        let metric = Seed(seed).stream("metric").normal_array(5, 3, 1.0).mapv(f64::from);
        let loss = |kept: &[usize]| {
            let (v, _) = exact(&layer, kept);
            let mut d = -layer.weight.mapv(f64::from);
            kept.iter().zip(v.columns()).for_each(|(&c, v)| d.column_mut(c).zip_mut_with(&v, |d, v| *d += v));
            let seen = metric.t().dot(&d);
            (seen.dot(layer.gram()) * &seen).sum()
        };
        for width in [1, 2, 3] {
            let removal = [Removal { width, run: 12 / width, keep: 12 / width - 1 }];
            let left = PLAIN.remove_by(&layer.evidence(), &removal, Some(&metric)).unwrap();
            let all: Vec<f64> = choices(12 / width, 12 / width - 1).iter().map(|c| loss(&columns(c, width))).collect();
            let best = all.iter().copied().fold(f64::INFINITY, f64::min);
            let (mine, said) = (loss(&left.columns), *left.steps.last().unwrap());
            assert!((mine - best).abs() <= 1e-8 * best.max(1.0), "seed {seed}, width {width}: {mine}, the best {best}");
            assert!((said - best).abs() <= 1e-8 * best.max(1.0), "seed {seed}, width {width}: {said} said, {best}");
            let (weight, _) = exact(&layer, &left.columns);
            assert!(left.weight.iter().zip(&weight).all(|(f, r)| (f64::from(*f) - r).abs() < 1e-5 * (1.0 + r.abs())));
        }
        // Any orthogonal metric is the squared error.
        let removal = [Removal { width: 1, run: 12, keep: 6 }];
        let whole = Array2::<f64>::eye(5);
        let (a, b) = (PLAIN.remove(&layer.evidence(), &removal), PLAIN.remove_by(&layer.evidence(), &removal, Some(&whole)));
        assert_eq!(a.unwrap(), b.unwrap());
        let line = PLAIN.remove_by(&layer.evidence(), &removal, Some(&Array2::zeros((4, 4)))).unwrap_err().to_string();
        assert!(line.contains("metric"), "{line}");
    }
}
