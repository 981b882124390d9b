//! Training on weights of few levels: gradients against their formulas, what runs against its codes, runs that are taken up again.

use crate::common::*;
use crate::jobs::calibration;
use lacuna::calibrate::Calibration;
use lacuna::criteria::Evidence;
use lacuna::io::{Dtype, Folder, QuantLayout};
use lacuna::job::{Event, Methods, PruneJob, TrainJob, TrainReport};
use lacuna::mask::Mask;
use lacuna::models::{Builder, Init};
use lacuna::nn::{Activation, Layer, Loss, Method, Network, Parameters};
use lacuna::quantize::{CodeGrid, Granularity, ScaleType};
use lacuna::rng::Seed;
use lacuna::solve::{Hqq, Quantizer, Rtn};
use lacuna::train::{Decay, FakeQuantized, StepRule, TrainConfig, Trainable, train_moving};
use lacuna::{Error, Result};
use ndarray::{Array2, array};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| name.to_string()).collect()
}

/// A network with one weight of 3 × 8.
fn one(scale: f32) -> Network {
    let mut net = Builder::vector(8, Init::He, Seed(0)).linear(3).build().unwrap();
    let weight = Seed(7).stream("w").normal_array(3, 8, scale);
    net.params_mut()[0].1.set_value(weight).unwrap();
    net
}

fn factors(levels: &FakeQuantized) -> Array2<f32> {
    let mut found = None;
    levels.visit(&mut |name, values, _| {
        if name.ends_with(".step_factors") {
            found = Some(values.to_owned().into_dimensionality().unwrap());
        }
    });
    found.unwrap()
}

#[test]
fn gradients_of_learnt_steps_are_those_of_a_line_through_the_rounding() {
    let net = one(0.5);
    let weight = net.params()[0].1.value().clone();
    let g = Seed(8).stream("g").normal_array(3, 8, 1.0);
    for (bits, group) in [(2, Granularity::Row), (3, Granularity::Group(4)), (4, Granularity::Tensor)] {
        let grid = CodeGrid::new(bits, group);
        let levels = FakeQuantized::new(&net, &names(&["fc1.weight"]), grid, StepRule::Lsq).unwrap();
        let found = levels.gradients("fc1.weight", g.clone().into_dyn());
        let (size, n, top) = (if bits == 3 { 4 } else { 8 }, f64::from(1 << (bits - 1)), f64::from((1 << (bits - 1)) - 1));
        let groups = 8 / size;
        // s₀ = 2 mean |w| / √top of a group; of a tensor one of all.
        let codes = levels.codes("fc1.weight").unwrap();
        let all: Vec<f32> = weight.iter().copied().collect();
        let first = |r: usize, at: usize| {
            let part = if bits == 4 { all.clone() } else { all[r * 8 + at * size..r * 8 + (at + 1) * size].to_vec() };
            2.0 * part.iter().map(|w| f64::from(w.abs())).sum::<f64>() / part.len() as f64 / top.sqrt()
        };
        let mut sums = Array2::<f64>::zeros(if bits == 4 { (1, 1) } else { (3, groups) });
        for ((r, c), w) in weight.indexed_iter() {
            let (s, at) = (first(r, c / size), if bits == 4 { (0, 0) } else { (r, c / size) });
            assert!((f64::from(codes.step(r, c / size).scale) / s - 1.0).abs() < 1e-6);
            // What runs, with the rounding's leap held: w̃(s) = s · (clamp(w / s) + leap), by differences in s.
            let q = f64::from(codes.codes[[r, c]]) - n;
            let clamped = |s: f64| (f64::from(*w) / s).clamp(-n, top);
            let leap = q - clamped(s);
            let along = |s: f64| s * (clamped(s) + leap);
            let slope = (along(s * (1.0 + 1e-6)) - along(s * (1.0 - 1e-6))) / (2e-6 * s);
            sums[at] += f64::from(g[[r, c]]) * slope * s / (if bits == 4 { 24.0 } else { size as f64 } * top).sqrt();
            let within = clamped(s) > -n && clamped(s) < top;
            assert_eq!(found[0].1[[r, c]], if within { g[[r, c]] } else { 0.0 }, "{bits} bits, {r}, {c}");
        }
        for (at, sum) in sums.indexed_iter() {
            let found = f64::from(found[1].1[[at.0, at.1]]);
            assert!((found - sum).abs() < 1e-4 * sum.abs().max(1.0), "{bits} bits, {at:?}: {found}, by differences {sum}");
        }
    }
}

#[test]
fn where_all_weights_are_cut_off_the_loss_itself_has_the_gradient_of_the_steps() {
    // Far beyond the range, so that a step moves what runs and no code.
    let mut net = one(1.0);
    net.params_mut()[0].1.set_value(Array2::from_shape_fn((3, 8), |(r, c)| if (r + c) % 2 == 0 { 9.0 } else { -9.0 })).unwrap();
    let mut levels =
        FakeQuantized::new(&net, &names(&["fc1.weight"]), CodeGrid::new(3, Granularity::Row), StepRule::Lsq).unwrap();
    levels
        .visit_mut(&mut |name, values, _| {
            values.iter_mut().for_each(|v| *v *= if name.ends_with("factors") { 0.05 } else { 1.0 })
        })
        .unwrap();
    let g = Seed(8).stream("g").normal_array(3, 8, 1.0);
    let loss = |levels: &FakeQuantized| -> f64 {
        let dense = levels.codes("fc1.weight").unwrap().to_dense();
        dense.iter().zip(&g).map(|(w, g)| f64::from(*w) * f64::from(*g)).sum()
    };
    let found = levels.gradients("fc1.weight", g.clone().into_dyn());
    assert!(found[0].1.iter().all(|d| *d == 0.0), "weights that are cut off do not move");
    for r in 0..3 {
        let moved = |by: f32| {
            let mut levels = levels.clone();
            levels
                .visit_mut(&mut |name, values, _| {
                    if name.ends_with("factors") {
                        values[r] += by;
                    }
                })
                .unwrap();
            loss(&levels)
        };
        let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3 / (8.0f64 * 3.0).sqrt();
        assert!((slope - f64::from(found[1].1[[r, 0]])).abs() < 1e-3 * slope.abs(), "{r}: {slope} {}", found[1].1[[r, 0]]);
    }
    assert_eq!(factors(&levels), array![[0.05], [0.05], [0.05]]);
}

#[test]
fn codes_of_a_quantiser_begin_as_they_are_and_their_scales_have_the_gradient_of_what_runs() {
    let weight = Seed(5).stream("w").normal_array(6, 16, 0.5);
    let mask = Mask::from_fn(6, 16, |r, c| (r + 3 * c) % 4 != 0);
    let g = Seed(8).stream("g").normal_array(6, 16, 1.0);
    for (symmetric, granularity, masked) in
        [(true, Granularity::Group(8), None), (false, Granularity::Group(8), Some(&mask)), (false, Granularity::Tensor, None)]
    {
        let grid = CodeGrid { symmetric, scales: ScaleType::F16, ..CodeGrid::new(3, granularity) };
        let given = Rtn.quantize(&Evidence { mask: masked, ..Evidence::weight_only("fc1", &weight) }, grid).unwrap();
        let all = BTreeMap::from([("w".to_string(), (given.codes.clone(), masked.cloned()))]);
        let mut levels = FakeQuantized::of_codes(all.clone(), grid).unwrap();
        assert_eq!(levels.codes("w").unwrap(), given.codes, "{granularity}");
        // In f32, so that a step can be moved a little.
        let fine = CodeGrid { scales: ScaleType::F32, ..grid };
        levels = FakeQuantized::of_codes(all.clone(), fine).unwrap();
        levels
            .visit_mut(&mut |name, values, _| {
                values.iter_mut().for_each(|v| *v *= if name.ends_with("factors") { 1.1 } else { 1.0 })
            })
            .unwrap();
        assert_eq!(levels.codes("w").unwrap().codes, given.codes.codes, "scales move no code");
        let found = levels.gradients("w", g.clone().into_dyn());
        let loss = |levels: &FakeQuantized| -> f64 {
            let dense = levels.codes("w").unwrap().to_dense();
            dense.iter().zip(&g).map(|(w, g)| f64::from(*w) * f64::from(*g)).sum()
        };
        let (count, size) = (factors(&levels).len(), if granularity == Granularity::Tensor { 96.0 } else { 8.0 });
        for at in 0..count {
            let moved = |by: f32| {
                let mut levels = levels.clone();
                levels.visit_mut(&mut |name, values, _| values[at] += if name.ends_with("factors") { by } else { 0.0 }).unwrap();
                loss(&levels)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2 / (size * 3.0f64).sqrt();
            let found = f64::from(*found[1].1.iter().nth(at).unwrap());
            assert!((slope - found).abs() < 1e-3 * slope.abs().max(0.01), "{granularity}, {at}: {slope} {found}");
        }
        for ((r, c), d) in found[0].1.view().into_dimensionality::<ndarray::Ix2>().unwrap().indexed_iter() {
            // Those on the outermost levels too.
            let kept = masked.is_none_or(|m| m.get(r, c));
            assert_eq!(*d, if kept { g[[r, c]] } else { 0.0 }, "{r} {c}");
        }
        let line = FakeQuantized::of_codes(all, CodeGrid { bits: 4, ..grid }).unwrap_err().to_string();
        assert!(line.contains("codes of 3 bits") && line.contains("of the grid of 4 bits"), "{line}");
    }
    let row = CodeGrid::new(3, Granularity::Row);
    assert!(FakeQuantized::of_codes(BTreeMap::new(), row).is_err());
    // Beyond the range by more than half a step nothing moves.
    let given = Rtn.quantize(&Evidence::weight_only("fc1", &weight), row).unwrap();
    let mut levels = FakeQuantized::of_codes(BTreeMap::from([("w".to_string(), (given.codes, None))]), row).unwrap();
    levels.visit_mut(&mut |name, values, _| values.iter_mut().for_each(|v| *v *= if name == "w" { 1.5 } else { 1.0 })).unwrap();
    let found = levels.gradients("w", g.clone().into_dyn());
    assert!(found[0].1.iter().any(|d| *d == 0.0) && found[0].1.iter().any(|d| *d != 0.0));
    // Zero points that are no codes, and weights that the model has not.
    let hqq = Hqq { whole_zeros: false, ..Hqq::default() };
    let any = hqq.quantize(&Evidence::weight_only("fc1", &weight), row.asymmetric()).unwrap().codes;
    let line =
        FakeQuantized::of_codes(BTreeMap::from([("w".to_string(), (any, None))]), row.asymmetric()).unwrap_err().to_string();
    assert!(line.contains("levels of whole zero points are trained"), "{line}");
    let line = Trainable::on_levels(one(0.5), levels, [].into()).unwrap_err().to_string();
    assert!(line.starts_with("no layer is named 'w'"), "{line}");
}

/// 60 samples of two classes that a line does not part, and the network of a test: PACT in the middle.
fn learning(bits: Option<u32>) -> (Network, Array2<f32>, Array2<f32>) {
    let x = Seed(1).stream("x").normal_array(60, 8, 1.0);
    let class = |n: usize| usize::from(x[[n, 0]] * x[[n, 1]] > 0.0);
    let target = Array2::from_shape_fn((60, 2), |(n, c)| f32::from(u8::from(class(n) == c)));
    let net = Builder::vector(8, Init::He, Seed(2)).linear(16);
    let net = if bits.is_some() { net.pact(3.0, bits) } else { net.activation(Activation::Relu) };
    (net.linear(2).build().unwrap(), x, target)
}

fn config(epochs: usize) -> TrainConfig {
    let method = Method::Adam { weight_decay: 0.0 };
    TrainConfig { loss: Loss::CrossEntropy, method, learning_rate: 1e-2, decay: Decay::Cosine, epochs, batch: 10, seed: Seed(3) }
}

#[test]
fn what_runs_is_what_the_codes_decode_to_and_masks_are_held() {
    let (net, x, target) = learning(None);
    let data = Calibration::new(&x, &target, Loss::CrossEntropy);
    let weights = names(&["fc1.weight", "fc2.weight"]);
    for (rule, grid) in [
        (StepRule::Lsq, CodeGrid::new(3, Granularity::Group(4))),
        (StepRule::Lsq, CodeGrid::new(4, Granularity::Row).scales(ScaleType::BF16)),
        (StepRule::StraightThrough, CodeGrid::new(3, Granularity::Group(4)).asymmetric()),
    ] {
        let mut net = net.clone();
        let mask = Mask::from_fn(16, 8, |r, c| (r + c) % 3 != 0);
        net.param_mut("fc1.weight").unwrap().set_mask(mask.clone()).unwrap();
        let mut model = Trainable::quantized(net, &weights, BTreeSet::new(), grid, rule).unwrap();
        let losses = train_moving(&mut model, &data, &config(40)).unwrap();
        assert!(losses[39] < 0.5 * losses[0], "{rule:?}: {losses:?}");
        let levels = model.levels().unwrap();
        for name in &weights {
            let (held, codes) = (model.model().param(name).unwrap().value(), levels.codes(name).unwrap());
            assert_eq!(*held, codes.to_dense(), "{rule:?} {name}");
            assert!(codes.scales.iter().all(|s| grid.scales.round(*s) == *s), "steps are what a file holds");
        }
        let held = model.model().param("fc1.weight").unwrap().value();
        assert!(held.indexed_iter().all(|((r, c), w)| mask.get(r, c) || *w == 0.0));
        assert_eq!(model.masks().get("fc1.weight"), Some(&mask));
        let moved = rule == StepRule::Lsq && factors(levels).iter().any(|f| *f != 1.0);
        assert_eq!(moved, rule == StepRule::Lsq, "{rule:?}");
    }
}

#[test]
fn training_on_two_bits_ends_below_rounding_what_was_trained_and_pact_learns_its_height() {
    let (net, x, target) = learning(Some(2));
    let data = Calibration::new(&x, &target, Loss::CrossEntropy);
    let weights = names(&["fc1.weight", "fc2.weight"]);
    let loss = |net: &Network| Loss::CrossEntropy.value(&net.forward(&x), &target);
    let mut whole = Trainable::all(net);
    train_moving(&mut whole, &data, &config(60)).unwrap();
    let whole = whole.into_model();
    let Layer::Pact(pact) = &whole.layers()[1].1 else { panic!("the second layer is PACT") };
    assert!(pact.height() != 3.0 && pact.height() > 0.0, "{}", pact.height());
    // Four levels: 0, a third, two thirds and all of the height.
    let hidden = whole.run(x.clone(), lacuna::nn::Mode::Eval).input(2).mapv(|y| y * 3.0 / pact.height());
    assert!(hidden.iter().all(|y| (y - y.round()).abs() < 1e-4 && (0.0..3.001).contains(y)), "{hidden}");
    let grid = CodeGrid::new(2, Granularity::Row);
    let rounded = Trainable::quantized(whole.clone(), &weights, BTreeSet::new(), grid, StepRule::StraightThrough).unwrap();
    for rule in [StepRule::Lsq, StepRule::StraightThrough] {
        let mut trained = Trainable::quantized(whole.clone(), &weights, BTreeSet::new(), grid, rule).unwrap();
        train_moving(&mut trained, &data, &config(40)).unwrap();
        let (before, after) = (loss(rounded.model()), loss(trained.model()));
        assert!(after < 0.7 * before, "{rule:?}: {before} rounded, {after} trained; {} whole", loss(&whole));
    }
}

/// A job of eight steps on twenty sequences, on four bits in groups of eight.
fn job(m: &Model) -> TrainJob {
    let ids = calibration(m, &tokens(20));
    let job =
        TrainJob::new().model(&m.dir).out(m.out("out")).text([ids]).steps(8).context(LENGTH).batch(2).lr(1e-2).save_every(3);
    job.quantize(4).quantize_group(Granularity::Group(8))
}

fn run(job: &TrainJob) -> Result<TrainReport> {
    job.run(&mut |_| ControlFlow::Continue(()))
}

/// All files but record and page.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    files(dir).into_iter().filter(|(name, _)| !name.starts_with("train.")).collect()
}

#[test]
fn a_language_model_that_trained_on_levels_is_written_as_its_codes() {
    let m = Model::new(Dtype::BF16);
    let pruned = m.out("pruned");
    let prune = PruneJob::new("magnitude").sparsity(0.5).model(&m.dir).out(&pruned);
    let _ = prune.run(&Methods::standard(), &mut |_| ControlFlow::Continue(())).unwrap();
    for (name, from, job, layout) in [
        ("packed", &m.dir, job(&m), QuantLayout::CompressedTensors),
        ("bytes", &m.dir, job(&m).quantize(8).quantize_layout(QuantLayout::IntQuantized), QuantLayout::IntQuantized),
        ("awq", &m.dir, job(&m).quantize_layout(QuantLayout::Awq).quantize_rule(StepRule::StraightThrough), QuantLayout::Awq),
        ("masked", &pruned, job(&m), QuantLayout::CompressedTensors),
    ] {
        let job = job.model(from).out(m.out(name)).held_out(4).batch(4).steps(12);
        let report = run(&job).unwrap();
        assert!(report.curve[11].loss < report.curve[0].loss, "{name}: {:?}", report.curve);
        assert_eq!(report.sparsity_before, report.sparsity_after);
        let folder = Folder::open(m.out(name)).unwrap();
        assert_eq!(
            folder.layouts().keys().copied().collect::<Vec<_>>(),
            [layout.name()].map(|l| if l == "compressed-tensors" { "pack-quantized" } else { l }),
            "{name}"
        );
        // What was measured is what the folder computes.
        let ids: Vec<u32> = tokens(20)[16 * LENGTH..].to_vec();
        let loaded = model(&m.out(name));
        let measured = report.validation.iter().find(|v| v.step == report.written_step).unwrap().nll;
        let losses: Vec<f64> = ids.chunks(LENGTH).flat_map(|w| loaded.nll(w).unwrap()).collect();
        let found = losses.iter().sum::<f64>() / losses.len() as f64;
        // Norms and the embedding are rounded to the folder's dtype as they are written.
        assert!((found / measured - 1.0).abs() < 1e-2, "{name}: {found} {measured}");
        for layer in loaded.linears().into_iter().filter(|l| l.name().starts_with("model.layers")) {
            let codes = folder.codes(&layer.tensor()).unwrap().unwrap();
            assert_eq!((codes.group, codes.symmetric), (8, true), "{name} {}", layer.name());
            assert_eq!(layer.mask().is_some(), name == "masked");
        }
        // The record runs again, to the same bytes.
        let again = TrainJob::read(m.out(name).join("train.json")).unwrap().out(m.out(&format!("{name}-again")));
        assert_eq!(run(&again).unwrap().curve, report.curve);
        assert_eq!(content(&m.out(&format!("{name}-again"))), content(&m.out(name)));
    }
}

#[test]
fn a_run_on_levels_that_was_stopped_goes_on_to_the_same_bytes() {
    let m = Model::new(Dtype::F32);
    for rule in [StepRule::Lsq, StepRule::StraightThrough] {
        let job = job(&m).quantize_rule(rule);
        let right = m.out(&format!("{rule:?}-right"));
        let report = run(&job.clone().out(&right)).unwrap();
        let job = job.out(m.out(&format!("{rule:?}"))).resume(true);
        for at in [4, 6] {
            let stopped = job.run(&mut |event| match event {
                Event::Step { record, .. } if record.step == at => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
            assert!(matches!(stopped, Err(Error::Unfinished { .. })), "{stopped:?}");
        }
        let resumed = run(&job).unwrap();
        assert_eq!((resumed.curve, resumed.resumed_at), (report.curve, 6));
        assert_eq!(content(&m.out(&format!("{rule:?}"))), content(&right));
    }
}

#[test]
fn levels_that_cannot_be_are_refused_in_a_line_and_nothing_is_written() {
    let m = Model::new(Dtype::F32);
    let line = |job: TrainJob| run(&job).unwrap_err().to_string();
    for (job, says) in [
        (job(&m).quantize(5), "quantize: 5 is none that the layout compressed-tensors has: 2, 3, 4, 8"),
        (job(&m).quantize(3).quantize_layout(QuantLayout::Awq), "quantize: 3 is none that the layout awq has: 4"),
        (
            job(&m).quantize_layout(QuantLayout::Gptq).quantize_group(Granularity::Tensor),
            "quantize-group: tensor: the layout gptq",
        ),
        (job(&m).lora(2), "quantize: is given beside lora"),
        (TrainJob::new().text(["a"]).steps(1).quantize_group(Granularity::Row), "quantize-group: is for --quantize BITS"),
        (job(&m).quantize_group(Granularity::Group(32)), "group: groups of 32 do not divide rows of 16 inputs"),
        (job(&m).only(["kind:norm"]), "quantize: no linear layer of a block is left for it"),
    ] {
        let found = line(job);
        assert!(found.contains(says), "{found}");
    }
    assert!(!m.out("out").exists());
    let net = one(1.0);
    let refuse =
        |grid: CodeGrid, name: &str| FakeQuantized::new(&net, &names(&[name]), grid, StepRule::Lsq).unwrap_err().to_string();
    assert!(refuse(CodeGrid::new(1, Granularity::Row), "fc1.weight").contains("at least 2 bits, not 1 bit"));
    assert!(refuse(CodeGrid::new(4, Granularity::Row).asymmetric(), "fc1.weight").contains("not an asymmetric grid"));
    assert!(refuse(CodeGrid::new(4, Granularity::Group(3)), "fc1.weight").contains("groups of 3 do not divide rows of 8"));
    assert!(refuse(CodeGrid::new(4, Granularity::Row), "fc2.weight").contains("fc2.weight"));
}
