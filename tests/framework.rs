//! What is written once against the traits holds for a chain of layers, a decoder, an encoder-decoder, and a model that is not of this
//! library.

#[allow(dead_code)]
#[path = "../examples/own_model.rs"]
mod own_model;
#[allow(dead_code)]
#[path = "../examples/state_dict.rs"]
mod state_dict;

use lacuna::allocate::{Allocate, Global, Lamp, Target, Uniform};
use lacuna::calibrate::{Calibration, LayerWeights, measure};
use lacuna::criteria::{Evidence, Fisher, InputSums, Magnitude, Measured, Need, Needs, Obd, Saliency, Taylor};
use lacuna::data::Sequences;
use lacuna::io::Checkpoint;
use lacuna::lm::{Config, LanguageModel, NextToken, Seq2Seq, TextPair, TextPairs};
use lacuna::mask::{Budget, Mask, Pattern, Scope};
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Gradients, LayerInfo, Layers, Loss, Method, Mode, Model, NamedLayers, Objective, Passes, Samples};
use lacuna::prune::{Pruning, Schedule, compensated, iterative, one_shot, prune_layers_by};
use lacuna::rng::Seed;
use lacuna::solve::{Pruned, Pruner, SparseGpt, WoodFisher};
use lacuna::train::{Decay, TrainConfig, train_model};
use ndarray::{Array2, ArrayRef2, Axis};
use own_model::Residual;
use std::path::Path;

/// The mean loss over all samples.
fn loss<M: Model, S: Samples<Batch = M::Batch>>(model: &M, data: &S) -> f64 {
    let all: Vec<usize> = (0..data.len()).collect();
    let (rows, tape) = (data.rows(&all), model.forward(&data.batch(&all), Mode::Eval, &mut ()).unwrap());
    model.backward(tape, data.objective(), &rows, &mut |_, _| {}).unwrap() / data.objective().count(&rows) as f64
}

fn recipe(epochs: usize, batch: usize, learning_rate: f32) -> TrainConfig {
    let method = Method::AdamW { weight_decay: 0.0 };
    TrainConfig { loss: Loss::CrossEntropy, method, learning_rate, decay: Decay::Constant, epochs, batch, seed: Seed(3) }
}

fn pruning<'a>(saliency: &'a dyn Saliency, allocate: &'a dyn Allocate, sparsity: f64) -> Pruning<'a> {
    let target = Target::Sparsity(sparsity);
    Pruning { saliency, allocate, target, pattern: Pattern::Unstructured, scope: Scope::Layer, skip: &[] }
}

/// Images of the digits, for a chain and for a model of one's own.
fn digits() -> (Array2<f32>, Array2<f32>) {
    let all = lacuna::data::digits();
    let rows: Vec<usize> = (0..300).collect();
    (all.x().select(Axis(0), &rows), all.one_hot(1.0, 0.0).select(Axis(0), &rows))
}

fn chain() -> lacuna::nn::Network {
    mlp(&[64, 20, 10], Activation::Tanh, Init::LeCun, Seed(1)).unwrap()
}

fn own() -> Residual {
    let mut stream = Seed(2).stream("own");
    let mut drawn = |rows, cols| stream.normal_array(rows, cols, 0.15);
    Residual::new(drawn(16, 64), drawn(64, 16), drawn(10, 64)).unwrap()
}

/// The weights and the config of a small language model.
fn golden(family: &str) -> (Checkpoint, Config) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/lm/goldens/{family}.safetensors"));
    let file = Checkpoint::read(path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&file.metadata()["config"]).unwrap();
    let mut weights = Checkpoint::new();
    for (name, values) in file.weights().filter(|(name, _)| !name.starts_with("expected.")) {
        weights.insert(name, values.clone(), lacuna::io::Dtype::F32).unwrap();
    }
    (weights, Config::parse(&json).unwrap())
}

/// A small T5, and texts whose labels are the same tokens, each one further on.
fn encoder_decoder() -> (Seq2Seq, TextPairs) {
    let (weights, config) = golden("t5");
    let model = Seq2Seq::load(&weights, config).unwrap();
    let vocab = model.config().vocab() as u32;
    let pair = |i: u32| {
        let ids: Vec<u32> = (0..10 + i % 3).map(|t| (t * 5 + i * 7) % vocab).collect();
        TextPair { labels: ids.iter().map(|id| (id + 1) % vocab).collect(), ids }
    };
    (model, TextPairs::new((0..12).map(pair).collect(), vocab as usize).unwrap())
}

/// A small Llama, and a text in which every token follows from the one before it.
fn language() -> (LanguageModel, NextToken) {
    let (weights, config) = golden("llama");
    let model = LanguageModel::load(&weights, config).unwrap();
    let vocab = model.config().vocab() as u32;
    let ids: Vec<u32> = (0..12 * 16).map(|t: u32| (t * 7 + t / 16 * 3) % vocab).collect();
    let text = NextToken::new(Sequences::new(ids, 16).unwrap(), vocab as usize).unwrap();
    (model, text)
}

/// Runs the same test on all of them.
macro_rules! on_every_model {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let (x, target) = digits();
            let data = Calibration { batch: 64, ..Calibration::new(&x, &target, Loss::CrossEntropy) };
            hold::$name("a chain", &chain(), &data);
            hold::$name("a model of one's own", &own(), &data);
            let (model, text) = language();
            hold::$name("a decoder", &model, &text);
            let (model, pairs) = encoder_decoder();
            hold::$name("an encoder-decoder", &model, &pairs);
        }
    )*};
}

on_every_model! {
    training_lowers_the_loss_and_holds_masks
    gradients_agree_with_differences
    evidence_of_samples_adds_up_to_that_of_all
    allocations_keep_exactly_their_budget
    pruning_in_cubic_steps_with_training_between_reaches_its_sparsity_and_only_drops_more
    survivors_that_answer_by_woodfisher_lose_less_than_those_that_do_not
}

mod hold {
    use super::*;

    pub fn training_lowers_the_loss_and_holds_masks<M, S>(name: &str, model: &M, data: &S)
    where
        M: Model + Clone,
        S: Samples<Batch = M::Batch>,
    {
        let mut model = model.clone();
        for layer in model.layers() {
            let mask = Mask::from_fn(layer.shape.0, layer.shape.1, |r, c| (r + c) % 3 != 0);
            let weight = mask.applied(&model.read(&layer.name).unwrap());
            model.write(&layer.parameter, Pruned { mask, weight, loss: None }).unwrap();
        }
        let (kept, before) = (model.kept_parameters(), loss(&model, data));
        let mut seen = 0;
        let losses = train_model(&mut model, data, &recipe(3, data.len().min(32), 2e-3), &mut |_, epoch, _| {
            assert_eq!(epoch, seen);
            seen += 1;
            Ok(())
        });
        let losses = losses.unwrap();
        assert!(losses.len() == 3 && losses[2] < losses[0] && loss(&model, data) < before, "{name}: {before}, {losses:?}");
        assert_eq!(model.kept_parameters(), kept, "{name}");
        for layer in model.layers() {
            let (weight, mask) = (model.read(&layer.name).unwrap(), model.mask(&layer.name).unwrap().unwrap());
            let moved = weight.indexed_iter().all(|((r, c), w)| mask.get(r, c) || *w == 0.0);
            assert!(moved && weight.iter().any(|w| *w != 0.0), "{name}: {}", layer.name);
        }
        // The same again gives the same bits.
        let again = |mut model: M| train_model(&mut model, data, &recipe(1, 8, 1e-3), &mut |_, _, _| Ok(())).unwrap();
        assert_eq!(again(model.clone()), again(model), "{name}");
    }

    pub fn gradients_agree_with_differences<M, S>(name: &str, model: &M, data: &S)
    where
        M: Model + Clone,
        S: Samples<Batch = M::Batch>,
    {
        let all: Vec<usize> = (0..data.len()).collect();
        let tape = model.forward(&data.batch(&all), Mode::Eval, &mut ()).unwrap();
        let back = Gradients::of(|sink| model.backward(tape, data.objective(), &data.rows(&all), sink));
        let (_, gradients) = back.unwrap();
        let step = 1e-2;
        let moved = |sign: f32| {
            let mut other = model.clone();
            // Along the gradient itself, at a length that is the same for all.
            let norm = gradients.norm() as f32;
            let change = &mut |name: &str, values: &mut [f32], _: Option<&Mask>| {
                values.iter_mut().zip(gradients.get(name).unwrap()).for_each(|(w, g)| *w += sign * step * g / norm);
            };
            other.visit_mut(change).unwrap();
            loss(&other, data)
        };
        let slope = (moved(1.0) - moved(-1.0)) / f64::from(2.0 * step);
        assert!((slope / gradients.norm() - 1.0).abs() < 0.02, "{name}: {slope} where {} is expected", gradients.norm());
    }

    pub fn evidence_of_samples_adds_up_to_that_of_all<M, S>(name: &str, model: &M, data: &S)
    where
        M: Model + Clone,
        S: Samples<Batch = M::Batch>,
    {
        let needs =
            [Need::Gradient, Need::SquaredGradients, Need::SampleGradients, Need::Gram, Need::InputSquares, Need::InputSums];
        let needs = needs.into_iter().fold(Needs::none(), Needs::and);
        let (layers, measured) = (model.layers(), measure(model, data, needs).unwrap());
        assert_eq!(measured.len(), layers.len(), "{name}");
        means_of_single_gradients(name, &layers, &measured, data);
        for (layer, m) in layers.iter().zip(&measured) {
            assert_eq!(m.sample_gradients.as_ref().unwrap().dim(), (data.len(), layer.len()), "{name}: {}", layer.name);
            let (gram, sums) = (m.gram.as_ref().unwrap(), m.input_sums.as_ref().unwrap());
            assert_eq!((gram.dim(), sums.len()), ((layer.shape.1, layer.shape.1), layer.shape.1), "{name}");
            for (a, b) in gram.diag().iter().zip(m.input_squares.as_ref().unwrap()) {
                assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-9), "{name}: {a} and {b} in {}", layer.name);
            }
        }
    }

    /// The gradients of single samples add up to that of all, where each counts as often as it has rows to learn; the mean of their squares
    /// is one over samples.
    pub fn means_of_single_gradients<S: Samples>(name: &str, layers: &[LayerInfo], measured: &[Measured], data: &S) {
        let counts = |i: usize| data.objective().count(&data.rows(&[i])) as f32;
        let all: f32 = (0..data.len()).map(counts).sum();
        for (layer, m) in layers.iter().zip(measured) {
            let rows = m.sample_gradients.as_ref().unwrap();
            let (gradient, squares) = (m.gradient.as_ref().unwrap(), m.squared_gradients.as_ref().unwrap());
            let weighted = Array2::from_shape_fn(rows.dim(), |(i, j)| rows[[i, j]] * counts(i) / all).sum_axis(Axis(0));
            let apart = |mean: ndarray::Array1<f32>, whole: &Array2<f32>| {
                let largest = whole.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                mean.iter().zip(whole).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
            };
            assert!(apart(weighted, gradient) < 1e-4, "{name}: gradient of {}", layer.name);
            let mean = rows.mapv(|g| g * g).mean_axis(Axis(0)).unwrap();
            assert!(apart(mean, squares) < 1e-4, "{name}: squares of {}", layer.name);
        }
    }

    pub fn allocations_keep_exactly_their_budget<M, S>(name: &str, model: &M, data: &S)
    where
        M: Model + Clone,
        S: Samples<Batch = M::Batch>,
    {
        let all: usize = model.layers().iter().map(|l| l.len()).sum();
        for allocate in [&Uniform as &dyn Allocate, &Global, &Lamp] {
            for saliency in [&Magnitude::default() as &dyn Saliency, &Taylor, &Fisher] {
                let outcome = one_shot(model, data, &pruning(saliency, allocate, 0.6)).unwrap();
                let kept: usize = outcome.masks.iter().map(|(_, mask)| mask.kept()).sum();
                let what = format!("{name}, {} by {}", allocate.name(), saliency.name());
                assert_eq!(kept, all - (0.6 * all as f64).round() as usize, "{what}");
                for (layer, mask) in &outcome.masks {
                    assert_eq!(outcome.model.mask(layer).unwrap().as_deref(), Some(mask), "{what}");
                    assert_eq!(outcome.model.read(layer).unwrap(), mask.applied(&model.read(layer).unwrap()), "{what}");
                }
                let unequal = outcome.masks.windows(2).any(|w| (w[0].1.sparsity() - w[1].1.sparsity()).abs() > 0.01);
                assert_eq!(unequal, allocate.name() != "uniform", "{what}");
            }
        }
        // What is skipped may be called by its layer or by its weight.
        let first = model.layers()[0].clone();
        for skip in [first.name, first.parameter] {
            let skip = [skip];
            let outcome = one_shot(model, data, &Pruning { skip: &skip, ..pruning(&Taylor, &Global, 0.6) }).unwrap();
            assert_eq!(outcome.masks.len() + 1, model.layers().len(), "{name}: {skip:?}");
        }
    }

    pub fn pruning_in_cubic_steps_with_training_between_reaches_its_sparsity_and_only_drops_more<M, S>(
        name: &str,
        model: &M,
        data: &S,
    ) where
        M: Model + Clone,
        S: Samples<Batch = M::Batch>,
    {
        let all: usize = model.layers().iter().map(|l| l.len()).sum();
        let mut masks: Vec<Vec<Mask>> = Vec::new();
        let steps = Schedule::Cubic { steps: 3 };
        let outcome = iterative(model, data, &pruning(&Magnitude::default(), &Lamp, 0.0), steps, 0.7, |model, step| {
            assert_eq!(step, masks.len());
            train_model(model, data, &recipe(1, 8, 1e-3), &mut |_, _, _| Ok(()))?;
            masks.push(model.layers().iter().map(|l| model.mask(&l.name).unwrap().unwrap().into_owned()).collect());
            Ok(())
        });
        let outcome = outcome.unwrap();
        assert_eq!(masks.len(), 3, "{name}");
        for (before, after) in masks.iter().zip(&masks[1..]) {
            assert!(before.iter().zip(after).all(|(b, a)| a.is_subset_of(b)), "{name}");
        }
        let kept: usize = outcome.masks.iter().map(|(_, mask)| mask.kept()).sum();
        assert_eq!(kept, all - (0.7 * all as f64).round() as usize, "{name}");
        // Training between steps is worth something.
        let at_once = one_shot(model, data, &pruning(&Magnitude::default(), &Lamp, 0.7)).unwrap();
        assert!(loss(&outcome.model, data) < loss(&at_once.model, data), "{name}");
    }

    pub fn survivors_that_answer_by_woodfisher_lose_less_than_those_that_do_not<M, S>(name: &str, model: &M, data: &S)
    where
        M: Model + Clone,
        S: Samples<Batch = M::Batch>,
    {
        let mut trained = model.clone();
        train_model(&mut trained, data, &recipe(12, 8, 3e-3), &mut |_, _, _| Ok(())).unwrap();
        let woodfisher = WoodFisher { damping: 1e-3, block: 64 };
        let pruning = pruning(&woodfisher, &Uniform, 0.3);
        let alone = one_shot(&trained, data, &pruning).unwrap();
        let answered = compensated(&trained, data, &pruning, &woodfisher).unwrap();
        assert_eq!(alone.masks, answered.masks, "{name}");
        assert!(answered.predicted_increase.unwrap() > 0.0, "{name}");
        let (answered, alone) = (loss(&answered.model, data), loss(&alone.model, data));
        assert!(answered < alone, "{name}: {answered} with an answer, {alone} without");
    }
}

/// What other samples ask for, and that the hidden states of some layers are small: ½ of the sum of their squares.
struct SmallStates<S> {
    samples: S,
    layers: Vec<usize>,
}

impl<S: Samples> Samples for SmallStates<S>
where
    S: Sync,
{
    type Batch = S::Batch;

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn batch(&self, samples: &[usize]) -> S::Batch {
        self.samples.batch(samples)
    }

    fn rows(&self, samples: &[usize]) -> Vec<usize> {
        self.samples.rows(samples)
    }

    fn objective(&self) -> &dyn Objective {
        self
    }

    fn passes(&self) -> Passes {
        self.samples.passes()
    }
}

impl<S: Samples + Sync> Objective for SmallStates<S> {
    fn dim(&self) -> (usize, usize) {
        self.samples.objective().dim()
    }

    fn count(&self, rows: &[usize]) -> usize {
        self.samples.objective().count(rows)
    }

    fn loss(&self, rows: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64 {
        self.samples.objective().loss(rows, outputs, count)
    }

    fn taps(&self) -> &[usize] {
        &self.layers
    }

    fn hidden_loss(
        &self,
        layer: usize,
        rows: &[usize],
        hidden: &ArrayRef2<f32>,
        slope: &mut ArrayRef2<f32>,
        count: usize,
    ) -> f64 {
        assert!(self.layers.contains(&layer) && hidden.nrows() == rows.len() && hidden.dim() == slope.dim());
        slope.zip_mut_with(hidden, |s, h| *s += h / count as f32);
        hidden.iter().map(|h| f64::from(*h).powi(2) / 2.0).sum()
    }
}

#[test]
fn hidden_states_are_learnt_beside_the_outputs() {
    fn holds<M: Model + Clone, S: Samples<Batch = M::Batch> + Sync>(name: &str, model: &M, samples: S) {
        let alone = loss(model, &samples);
        let mut data = SmallStates { samples, layers: vec![0, 1] };
        let before = loss(model, &data);
        assert!(before > alone + 0.01, "{name}: {before} with hidden states, {alone} without");
        hold::gradients_agree_with_differences(name, model, &data);
        // Evidence of gradients of single samples has them too.
        let needs = Needs::none().and(Need::Gradient).and(Need::SquaredGradients).and(Need::SampleGradients);
        hold::means_of_single_gradients(name, &model.layers(), &measure(model, &data, needs).unwrap(), &data);
        let mut trained = model.clone();
        train_model(&mut trained, &data, &recipe(3, 8, 1e-3), &mut |_, _, _| Ok(())).unwrap();
        assert!(loss(&trained, &data) < before, "{name}");
        data.layers = vec![0, 99];
        let tape = model.forward(&data.batch(&[0]), Mode::Eval, &mut ()).unwrap();
        let line = model.backward(tape, &data, &data.rows(&[0]), &mut |_, _| {}).unwrap_err().to_string();
        assert!(line.starts_with("objective: asks for the hidden states of layer 99; there are "), "{line}");
    }
    let (x, target) = digits();
    holds("a chain", &chain(), Calibration { batch: 64, ..Calibration::new(&x, &target, Loss::CrossEntropy) });
    let (model, text) = language();
    holds("a decoder", &model, text);
    let (model, pairs) = encoder_decoder();
    holds("an encoder-decoder", &model, pairs);
}

#[test]
fn a_model_without_a_pass_for_second_derivatives_says_so() {
    let (x, target) = digits();
    let data = Calibration::new(&x, &target, Loss::CrossEntropy);
    let line = one_shot(&own(), &data, &pruning(&Obd, &Uniform, 0.5)).unwrap_err().to_string();
    assert_eq!(line, "the second derivatives: this model has no pass that measures it");
    assert!(one_shot(&chain(), &data, &pruning(&Obd, &Uniform, 0.5)).is_ok());
}

#[test]
fn mini_batches_are_means_of_their_samples_on_a_language_model_too() {
    let (model, text) = language();
    let rows = |minibatch: usize| {
        let passes = Passes { batch: 5, minibatch, ..Passes::default() };
        let measured = measure(&model, &text.clone().with_passes(passes), Needs::none().and(Need::SampleGradients)).unwrap();
        measured[0].sample_gradients.clone().unwrap()
    };
    let (single, threes) = (rows(1), rows(3));
    assert_eq!((single.nrows(), threes.nrows()), (12, 4));
    for (mean, part) in threes.rows().into_iter().zip(single.axis_chunks_iter(Axis(0), 3)) {
        let by_hand = part.mean_axis(Axis(0)).unwrap();
        assert!(mean.iter().zip(&by_hand).all(|(a, b)| (a - b).abs() < 1e-5 + 1e-4 * b.abs()));
    }
}

#[test]
fn layers_that_are_not_there_are_named_with_the_nearest() {
    let (model, _) = language();
    let line = model.read("model.layers.0.mlp.up_prj").unwrap_err().to_string();
    assert!(line.ends_with("did you mean 'model.layers.0.mlp.up_proj'?"), "{line}");
    let network = chain();
    let line = Layers::read(&network, "fc3").unwrap_err().to_string();
    assert!(line.contains("no layer is named 'fc3' among 2"), "{line}");
    let weights = LayerWeights::of(&network).unwrap();
    assert_eq!(weights.layers().iter().map(|l| l.parameter.as_str()).collect::<Vec<_>>(), ["fc1.weight", "fc2.weight"]);
}

#[test]
fn own_layers_share_one_budget_and_a_pruner_moves_what_stays() {
    let mut stream = Seed(5).stream("own layers");
    let mut drawn = |rows: usize, cols: usize| stream.normal_array(rows, cols, 1.0);
    let (a, b, x, y) = (drawn(6, 8), drawn(4, 6), drawn(40, 8), drawn(40, 6));
    let own = NamedLayers::new([("a", a.clone()), ("b", b.clone())]).unwrap();
    let measured = [Measured::of_inputs(&x).unwrap(), Measured::of_inputs(&y).unwrap()];
    let mut pruned = own.clone();
    let (magnitude, pruner) = (Magnitude::default(), SparseGpt::default());
    let rule = pruning(&magnitude, &Global, 0.5);
    let results = prune_layers_by(&mut pruned, &measured, &pruner, &rule).unwrap();
    // As many of each layer as are among the largest of all.
    let mut all: Vec<(f32, usize)> = a.iter().map(|w| (w.abs(), 0)).chain(b.iter().map(|w| (w.abs(), 1))).collect();
    all.sort_by(|u, v| v.0.total_cmp(&u.0));
    for (layer, (weight, measured)) in [(&a, &measured[0]), (&b, &measured[1])].into_iter().enumerate() {
        let keep = all[..36].iter().filter(|(_, of)| *of == layer).count();
        let evidence = Evidence::new("layer", weight, measured);
        let alone =
            pruner.prune(&evidence, Pattern::Unstructured, Scope::Layer, Budget::new(keep, weight.len()).unwrap()).unwrap();
        assert_eq!(results[layer].1, alone);
        let (_, written, mask) = pruned.iter().nth(layer).unwrap();
        assert_eq!((written, mask), (&alone.weight, Some(&alone.mask)));
        assert!(alone.weight.iter().zip(weight).any(|(new, old)| *new != 0.0 && new != old), "survivors move");
    }
    // Of another shape, nothing is taken.
    let wrong = Pruned { mask: Mask::full(2, 2), weight: Array2::zeros((2, 2)), loss: None };
    let line = pruned.write("b", wrong).unwrap_err().to_string();
    assert_eq!(line, "layer b: mask: expected shape [4, 6], found [2, 2]");
}

#[test]
fn sums_over_inputs_are_those_of_all_tokens_at_once() {
    let x = Seed(6).stream("inputs").normal_array(50, 7, 1.0);
    let needs = Needs::none().and(Need::InputSquares).and(Need::InputSums);
    let mut sums = InputSums::new(needs);
    x.axis_chunks_iter(Axis(0), 8).for_each(|part| sums.add(&part).unwrap());
    let (parts, whole) = (sums.clone().into_measured(), Measured::of_inputs(&x).unwrap());
    assert_eq!((parts.tokens, parts.gram.is_none()), (50, true));
    assert_eq!((parts.input_squares, parts.input_sums), (whole.input_squares.clone(), whole.input_sums));
    let gram = whole.gram.unwrap();
    for ((i, j), &g) in gram.indexed_iter() {
        let by_hand: f64 = x.rows().into_iter().map(|row| f64::from(row[i]) * f64::from(row[j])).sum();
        assert!((g - by_hand).abs() < 1e-4, "{g} and {by_hand}");
    }
    let line = sums.add(&Array2::zeros((2, 6))).unwrap_err().to_string();
    assert_eq!(line, "inputs (tokens, in): expected shape [2, 7], found [2, 6]");
    let bad = Array2::from_shape_fn((2, 7), |(r, c)| if (r, c) == (1, 3) { f32::NAN } else { 0.0 });
    let line = sums.add(&bad).unwrap_err().to_string();
    assert!(line.starts_with("inputs (tokens, in): NaN at row 51, column 3"), "{line}");
}

#[test]
fn a_state_dict_gives_masks_by_either_name_of_a_layer() {
    let mut state = Checkpoint::new();
    let mut stream = Seed(7).stream("state");
    for (name, rows, cols) in [("fc1.weight", 6, 8), ("fc2.weight", 4, 6)] {
        state.insert(name, stream.normal_array(rows, cols, 1.0), lacuna::io::Dtype::F32).unwrap();
    }
    assert_eq!(state.tensor_of("fc2").unwrap(), "fc2.weight");
    let masks = state_dict::masks(&mut state.clone(), 0.75, &[]).unwrap();
    let kept = |masks: &Checkpoint| masks.weights().map(|(_, m)| m.sum() as usize).sum::<usize>();
    assert_eq!((kept(&masks), masks.names().count()), (18, 2));
    let pruned = {
        let mut pruned = state.clone();
        state_dict::masks(&mut pruned, 0.75, &[]).unwrap();
        pruned
    };
    for name in ["fc1.weight", "fc2.weight"] {
        let (mask, weight) = (masks.get(&format!("{name}_mask")).unwrap(), state.get(name).unwrap());
        assert_eq!(&(mask * weight), pruned.get(name).unwrap());
    }
    let line = state_dict::masks(&mut state, 0.75, &["fc3".to_string()]).unwrap_err().to_string();
    assert!(line.contains("no layer is named 'fc3'"), "{line}");
}
