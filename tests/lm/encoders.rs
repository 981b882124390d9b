//! Encoders: the hidden states and gradients of the reference library, and what an encoder refuses.

use crate::common::{Golden, worst};
use lacuna::data::Sequences;
use lacuna::lm::{LanguageModel, couplings};
use lacuna::nn::{Gradients, Mode, Model, Objective};
use ndarray::{Array2, ArrayRef2};

/// `Σ h · r / tokens` of the hidden states `h` behind the last block; the outputs do not matter.
#[derive(Debug)]
struct Along {
    taps: Vec<usize>,
    r: Array2<f32>,
}

impl Objective for Along {
    fn dim(&self) -> (usize, usize) {
        (self.r.nrows(), 41)
    }

    fn loss(&self, _: &[usize], outputs: &mut Array2<f32>, _: usize) -> f64 {
        outputs.fill(0.0);
        0.0
    }

    fn taps(&self) -> &[usize] {
        &self.taps
    }

    fn hidden_loss(&self, _: usize, rows: &[usize], h: &ArrayRef2<f32>, slope: &mut ArrayRef2<f32>, count: usize) -> f64 {
        assert_eq!(rows.len(), h.nrows());
        slope.scaled_add(1.0 / count as f32, &self.r);
        h.iter().zip(&self.r).map(|(h, r)| f64::from(*h) * f64::from(*r)).sum()
    }
}

#[test]
fn the_hidden_states_and_gradients_of_bert_are_those_of_the_reference_library() {
    let golden = Golden::read("bert");
    let model = LanguageModel::load(&golden.weights, golden.config()).unwrap();
    let batch = Sequences::new(golden.ids.clone(), golden.ids.len()).unwrap();
    let tape = Model::forward(&model, &batch, Mode::Eval, &mut ()).unwrap();
    let off = worst(&tape.hidden_states().clone().into_dyn(), &golden.matrix("hidden").into_dyn(), 1e-4);
    assert!(off < 0.5, "{off} of the tolerance");

    let along = Along { taps: vec![golden.config().layers() - 1], r: golden.matrix("along") };
    let rows: Vec<usize> = (0..golden.ids.len()).collect();
    let (_, gradients) = Gradients::of(|sink| Model::backward(&model, tape, &along, &rows, sink)).unwrap();
    for tensor in golden.weights.names() {
        let right = golden.expected.get(&format!("grad.{tensor}")).unwrap();
        let found = gradients.get(tensor).unwrap_or_else(|| panic!("no gradient of {tensor}"));
        // A bias of all keys moves no probability: what is found is rounding alone.
        if tensor.ends_with("key.bias") {
            assert!(found.iter().chain(right).all(|g| g.abs() < 1e-6), "gradient of {tensor}");
            continue;
        }
        let largest = right.iter().fold(1e-7f32, |a, r| a.max(r.abs()));
        let off = worst(&(found / largest), &(right / largest), 1e-4);
        assert!(off < 1.0, "gradient of {tensor}: {off} of the tolerance");
    }
}

#[test]
fn an_encoder_predicts_no_tokens_and_says_so() {
    let golden = Golden::read("bert");
    let model = LanguageModel::load(&golden.weights, golden.config()).unwrap();
    let right = "model_type: a bert is an encoder and predicts no tokens";
    assert_eq!(model.forward(&golden.ids).unwrap_err().to_string(), right);
    assert_eq!(model.nll(&golden.ids).unwrap_err().to_string(), right);
    assert_eq!(model.step(&golden.ids, &mut model.cache()).unwrap_err().to_string(), right);
}

#[test]
fn every_tensor_of_an_encoder_hangs_together_with_something() {
    let golden = Golden::read("bert");
    let all = couplings(&golden.weights, &golden.config()).unwrap();
    let seen: Vec<&str> = all.iter().flat_map(|c| &c.members).map(|m| m.tensor.as_str()).collect();
    assert!(golden.weights.names().all(|name| seen.contains(&name)));
}
