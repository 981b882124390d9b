//! Every method trains every kind of model: the loss falls, what is asked for stays, and the same seed gives the same bits.

use lacuna::allocate::{Erk, Global};
use lacuna::calibrate::Calibration;
use lacuna::data::{Sequences, digits};
use lacuna::eval::agreement;
use lacuna::io::Checkpoint;
use lacuna::lm::{Config, LanguageModel, NextToken};
use lacuna::mask::Pattern;
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Layers, Loss, Method, Model, Network, Samples};
use lacuna::rng::Seed;
use lacuna::sparse_training::{
    Acdc, EdgePopup, FixedMask, GradualMagnitude, GumbelPattern, HardConcrete, MaskChoice, Movement, OwnTraining, Reparametrized,
    Rigl, SoftThreshold, SparseEvolution, SparseMethod, SparseTraining, TopKast, train_sparse,
};
use lacuna::train::{Decay, TrainConfig};
use std::path::Path;

fn config(epochs: usize, batch: usize, learning_rate: f32, method: Method) -> TrainConfig {
    TrainConfig { loss: Loss::CrossEntropy, method, learning_rate, decay: Decay::Constant, epochs, batch, seed: Seed(3) }
}

const ADAM: Method = Method::Adam { weight_decay: 0.0 };

/// The methods that meet a sparsity, at this one.
fn with_a_budget(choice: MaskChoice, every: usize) -> Vec<Box<dyn SparseMethod>> {
    let own = OwnTraining { rate: 10.0, method: None };
    vec![
        Box::new(FixedMask::random(choice.clone())),
        Box::new(SparseEvolution::new(choice.clone()).every(every)),
        Box::new(Rigl::new(choice.clone()).every(every)),
        Box::new(GradualMagnitude::new(choice.clone()).every(every)),
        Box::new(Acdc::new(choice.clone())),
        Box::new(Reparametrized::new(TopKast::new(choice.clone()))),
        Box::new(Reparametrized::trained(Movement::new(choice.clone()), own)),
        Box::new(Reparametrized::trained(EdgePopup::new(choice), own)),
    ]
}

fn net() -> Network {
    mlp(&[64, 40, 20, 10], Activation::Relu, Init::He, Seed(1)).unwrap()
}

/// Layers' weights: kept and all; what a mask drops is 0.
fn kept(model: &dyn Layers) -> (usize, usize) {
    let (mut kept, mut of) = (0, 0);
    for layer in model.layers() {
        let (mask, weight) = (model.mask(&layer.name).unwrap().unwrap(), model.read(&layer.name).unwrap());
        assert_eq!(mask.dropped_nonzeros(&weight), 0);
        (kept, of) = (kept + mask.kept(), of + mask.len());
    }
    (kept, of)
}

fn train<M: Model, S: Samples<Batch = M::Batch>>(
    model: &mut M,
    data: &S,
    config: &TrainConfig,
    method: &mut dyn SparseMethod,
) -> SparseTraining {
    train_sparse(model, data, config, method, &mut |_, _, _| Ok(())).unwrap_or_else(|e| panic!("{}: {e}", method.name()))
}

#[test]
fn every_method_with_a_budget_meets_it_and_learns() {
    let all = digits();
    let (x, t) = (all.x().clone(), all.one_hot(1.0, 0.0));
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    for choice in [MaskChoice::allocated(0.8, Erk), MaskChoice::uniform(0.8).skipping(["fc3"])] {
        for mut method in with_a_budget(choice.clone(), 20) {
            let mut model = net();
            let found = train(&mut model, &data, &config(10, 64, 2e-3, ADAM), &mut *method);
            let right = 100.0 * agreement(&model.forward(&x), all.labels());
            assert!(right > 60.0, "{} has {right:.1} % right, losses {:?}", method.name(), found.losses);
            let (mut stays, mut of) = (0, 0);
            for layer in Layers::layers(&model).iter().filter(|l| !choice.skip.contains(&l.name)) {
                let mask = Layers::mask(&model, &layer.name).unwrap().unwrap();
                assert_eq!(mask.dropped_nonzeros(&model.read(&layer.name).unwrap()), 0);
                (stays, of) = (stays + mask.kept(), of + mask.len());
            }
            let expected = of - (of as f64 * 0.8).round() as usize;
            let rounding = if choice.skip.is_empty() { 0 } else { 1 };
            assert!(stays.abs_diff(expected) <= rounding, "{}: {stays} of {of} stay, not {expected}", method.name());
            assert!(found.flops.fraction() <= 1.0 && found.flops.fraction() > 0.15, "{}: {:?}", method.name(), found.flops);
            if let Some(skipped) = choice.skip.first() {
                assert!(Layers::mask(&model, skipped).unwrap().is_none());
            }
        }
    }
}

#[test]
fn what_has_no_budget_becomes_sparser_the_more_it_costs() {
    let all = digits();
    let (x, t) = (all.x().clone(), all.one_hot(1.0, 0.0));
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    let density = |method: &mut dyn SparseMethod, optimizer| {
        let mut model = net();
        train(&mut model, &data, &config(8, 64, 3e-3, optimizer), method);
        let right = 100.0 * agreement(&model.forward(&x), all.labels());
        assert!(right > 60.0, "{} has {right:.1} % right", method.name());
        let (kept, of) = kept(&model);
        kept as f64 / of as f64
    };
    let own = OwnTraining { rate: 20.0, method: Some(ADAM) };
    let gates = |penalty, pattern| {
        let mut map = HardConcrete::new(penalty);
        map.pattern = pattern;
        density(&mut Reparametrized::trained(map, own), ADAM)
    };
    let (cheap, dear) = (gates(0.1, Pattern::Unstructured), gates(3.0, Pattern::Unstructured));
    assert!(dear < 0.8 && dear < cheap, "{cheap} and {dear} of the weights");
    let rows = gates(1.0, Pattern::Rows);
    assert!(rows <= 1.0 && rows > 0.0);
    let thresholds = |weight_decay| {
        let adam = Method::Adam { weight_decay };
        density(&mut Reparametrized::new(SoftThreshold { initial: -5.0, skip: vec![] }), adam)
    };
    let (light, heavy) = (thresholds(0.0), thresholds(3e-3));
    assert!(heavy < 0.8 * light, "{light} and {heavy} of the weights");
}

#[test]
fn a_gumbel_mask_learns_which_weights_of_each_group_stay() {
    // A target that needs the small weights: the large ones do nothing but harm.
    let weight = ndarray::Array2::from_shape_fn(
        (6, 16),
        |(r, c)| if c % 4 < 2 { 0.5 } else { 1.0 } * if (r + c) % 3 == 0 { -1.0 } else { 1.0 },
    );
    let wanted = weight.mapv(|w: f32| if w.abs() < 0.75 { w } else { 0.0 });
    let mut model = mlp(&[16, 6], Activation::Tanh, Init::He, Seed(0)).unwrap();
    model.param_mut("fc1.weight").unwrap().set_value(weight).unwrap();
    let x = Seed(5).stream("x").normal_array(256, 16, 1.0);
    let t = x.dot(&wanted.t());
    let config = TrainConfig { loss: Loss::SquaredError, ..config(15, 16, 1e-3, ADAM) };
    let method = &mut Reparametrized::trained(GumbelPattern::new(2, 4), OwnTraining { rate: 10.0, method: None });
    train(&mut model, &Calibration::new(&x, &t, Loss::SquaredError), &config, method);
    let mask = Layers::mask(&model, "fc1").unwrap().unwrap().into_owned();
    Pattern::Nm { n: 2, m: 4 }.check(&mask).unwrap();
    assert_eq!(model.read("fc1").unwrap(), wanted);
    assert!(method.own_numbers().all(|(name, logits)| name == "fc1.weight" && logits.dim() == (24, 6)));
}

/// A small Llama, and a text in which every token follows from the one before it.
fn language() -> (LanguageModel, NextToken) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lm/goldens/llama.safetensors");
    let file = Checkpoint::read(path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&file.metadata()["config"]).unwrap();
    let mut weights = Checkpoint::new();
    for (name, values) in file.weights().filter(|(name, _)| !name.starts_with("expected.")) {
        weights.insert(name, values.clone(), lacuna::io::Dtype::F32).unwrap();
    }
    let model = LanguageModel::load(&weights, Config::parse(&json).unwrap()).unwrap();
    let vocab = model.config().vocab() as u32;
    let ids: Vec<u32> = (0..12 * 16).map(|t: u32| (t * 7 + t / 16 * 3) % vocab).collect();
    let text = NextToken::new(Sequences::new(ids, 16).unwrap(), vocab as usize).unwrap();
    (model, text)
}

#[test]
fn a_language_model_is_trained_by_the_same_calls() {
    let (start, text) = language();
    let choice = MaskChoice::allocated(0.5, Global);
    let mut methods = with_a_budget(MaskChoice::uniform(0.5), 5);
    methods.truncate(7); // all that train weights
    methods.push(Box::new(GradualMagnitude::new(choice).every(4)));
    methods.push(Box::new(Reparametrized::new(HardConcrete::new(0.1))));
    methods.push(Box::new(Reparametrized::new(SoftThreshold::default())));
    for mut method in methods {
        let mut model = start.clone();
        let found = train(&mut model, &text, &config(8, 4, 5e-3, ADAM), &mut *method);
        assert!(found.losses[7] < found.losses[0], "{}: {:?}", method.name(), found.losses);
        let (kept, of) = kept(&model);
        assert!(
            method.name() == "hard-concrete" || method.name() == "str" || kept.abs_diff(of / 2) <= model.layers().len(),
            "{}: {kept} of {of}",
            method.name()
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_and_rigl_costs_what_its_appendix_says() {
    let all = digits();
    let (x, t) = (all.x().clone(), all.one_hot(1.0, 0.0));
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    for (first, second) in with_a_budget(MaskChoice::uniform(0.9), 5).into_iter().zip(with_a_budget(MaskChoice::uniform(0.9), 5))
    {
        let run = |mut method: Box<dyn SparseMethod>| {
            let mut model = net();
            let found = train(&mut model, &data, &config(2, 200, 1e-3, ADAM), &mut *method);
            (model, found)
        };
        assert_eq!(run(first), run(second));
    }
    // 1797 samples in batches of 200: 9 steps an epoch, the last of 197. Of 18 steps those at 4, 8 and 12 exchange weights before 3/4 of the run.
    let mut model = net();
    let found = train(&mut model, &data, &config(2, 200, 1e-3, ADAM), &mut Rigl::new(MaskChoice::uniform(0.5)).every(4));
    let (dense, sparse) = (64.0 * 40.0 + 40.0 * 20.0 + 20.0 * 10.0, (64.0 * 40.0 + 40.0 * 20.0 + 20.0 * 10.0) / 2.0);
    let (exchanges, all) = (200.0 + 197.0 + 200.0, 2.0 * 1797.0);
    assert_eq!(found.flops.sum(), 2.0 * (all * 3.0 * sparse + exchanges * (dense - sparse)));
    assert_eq!(found.flops.dense, 2.0 * all * 3.0 * dense);
}
