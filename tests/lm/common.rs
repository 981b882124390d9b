//! Goldens, and models of every family behind one face.

use lacuna::Result;
use lacuna::io::{Checkpoint, Dtype, Weights, WeightsMut};
use lacuna::lm::{Config, LanguageModel, Seq2Seq};
use lacuna::nn::{Gradients, Linear, Observer, Parameters};
use ndarray::{Array2, ArrayD};
use std::path::Path;

#[path = "outside.rs"]
mod outside;

/// The names of all goldens.
pub const ALL: [&str; 41] = [
    "llama",
    "llama31",
    "mistral",
    "gemma2",
    "phi2",
    "phi3",
    "nemotron",
    "gpt2",
    "t5",
    "t5v11",
    "yarn",
    "longrope",
    "phi_part",
    "nemotron_part",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma3",
    "smollm3",
    "olmo2",
    "phi4mini",
    "stablelm",
    "stablelm_parallel",
    "opt",
    "opt_350m",
    "pythia",
    "neox_serial",
    "bloom",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "olmoe",
    "olmo3",
    "qwen2_untied",
    "qwen3_window",
    "gemma3_untied",
    "smollm3_window",
    "olmo2_tied",
    "qwen3_moe_window",
    "phi_tied",
    "qwen2_moe_window",
];

/// A model's tensors and config, and what the reference library says.
pub struct Golden {
    pub name: &'static str,
    pub json: serde_json::Value,
    pub weights: Checkpoint,
    pub expected: Checkpoint,
    pub ids: Vec<u32>,
    pub labels: Vec<u32>,
}

impl Golden {
    pub fn read(name: &'static str) -> Golden {
        outside::register();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/lm/goldens/{name}.safetensors"));
        let file = Checkpoint::read(path).unwrap();
        let json = serde_json::from_str(&file.metadata()["config"]).unwrap();
        let (mut weights, mut expected) = (Checkpoint::new(), Checkpoint::new());
        for (tensor, values) in file.weights() {
            match tensor.strip_prefix("expected.") {
                Some(what) => expected.insert(what, values.clone(), Dtype::F32).unwrap(),
                None => weights.insert(tensor, values.clone(), Dtype::F32).unwrap(),
            }
        }
        let ids = |what: &str| expected.get(what).map_or(vec![], |ids| ids.iter().map(|&id| id as u32).collect());
        Golden { name, json, ids: ids("input_ids"), labels: ids("labels"), weights, expected }
    }

    pub fn config(&self) -> Config {
        Config::parse(&self.json).unwrap()
    }

    pub fn model(&self) -> Model {
        Model::load(&self.weights, self.config()).unwrap()
    }

    /// Logits of what follows each token when no later one is known: those of a short text's own frequencies come first.
    pub fn stepwise(&self) -> Array2<f32> {
        let mut all = self.matrix("logits");
        if self.expected.get("early").is_ok() {
            let early = self.matrix("early");
            all.slice_mut(ndarray::s![..early.nrows(), ..]).assign(&early);
        }
        all
    }

    pub fn matrix(&self, what: &str) -> Array2<f32> {
        self.expected.matrix(what).unwrap()
    }
}

#[allow(clippy::large_enum_variant)] // one at a time, in a test
pub enum Model {
    Decoder(LanguageModel),
    Both(Seq2Seq),
}

impl Model {
    pub fn load(weights: &dyn Weights, config: Config) -> Result<Model> {
        Ok(match config.is_encoder_decoder() {
            false => Model::Decoder(LanguageModel::load(weights, config)?),
            true => Model::Both(Seq2Seq::load(weights, config)?),
        })
    }

    pub fn logits(&self, golden: &Golden) -> Array2<f32> {
        match self {
            Model::Decoder(m) => m.forward(&golden.ids),
            Model::Both(m) => m.forward(&golden.ids, &golden.labels),
        }
        .unwrap()
    }

    /// Logits of the same, token by token through the cache, the first `whole` tokens at once.
    pub fn stepped(&self, golden: &Golden, whole: usize) -> Array2<f32> {
        let mut rows = Vec::new();
        let mut step = |ids: &[u32], one: &mut dyn FnMut(&[u32]) -> Result<ndarray::Array1<f32>>| {
            rows.push((0, one(&ids[..whole]).unwrap()));
            rows.extend((whole..ids.len()).map(|t| (t + 1 - whole, one(&ids[t..t + 1]).unwrap())));
        };
        match self {
            Model::Decoder(m) => {
                let mut cache = m.cache();
                step(&golden.ids, &mut |ids| m.step(ids, &mut cache));
            }
            Model::Both(m) => {
                let mut cache = m.cache(&golden.ids).unwrap();
                step(&m.shifted(&golden.labels), &mut |ids| m.step(ids, &mut cache));
            }
        }
        Array2::from_shape_fn((rows.len(), rows[0].1.len()), |(t, v)| rows[t].1[v])
    }

    pub fn loss(&self, golden: &Golden) -> f64 {
        let all = match self {
            Model::Decoder(m) => m.nll(&golden.ids),
            Model::Both(m) => m.nll(&golden.ids, &golden.labels),
        }
        .unwrap();
        all.iter().sum::<f64>() / all.len() as f64
    }

    pub fn gradients(&self, golden: &Golden) -> (f64, Gradients) {
        match self {
            Model::Decoder(m) => Gradients::of(|sink| m.backward(&golden.ids, golden.ids.len(), sink)),
            Model::Both(m) => Gradients::of(|sink| m.backward(&golden.ids, &golden.labels, sink)),
        }
        .unwrap()
    }

    pub fn observer(&self, golden: &Golden, observer: &mut dyn Observer) {
        match self {
            Model::Decoder(m) => drop(m.hidden_states(&golden.ids, golden.ids.len(), observer).unwrap()),
            Model::Both(m) => {
                let memory = m.encode(&golden.ids, observer).unwrap();
                m.decode(&golden.labels, &memory, observer).unwrap();
            }
        }
    }

    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            Model::Decoder(m) => m.linears(),
            Model::Both(m) => m.linears(),
        }
    }

    pub fn linear_mut(&mut self, name: &str) -> &mut Linear {
        match self {
            Model::Decoder(m) => m.linear_mut(name),
            Model::Both(m) => m.linear_mut(name),
        }
        .unwrap()
    }

    pub fn write(&self, to: &mut dyn WeightsMut) {
        match self {
            Model::Decoder(m) => m.write(to),
            Model::Both(m) => m.write(to),
        }
        .unwrap();
    }

    pub fn parameters(&mut self) -> &mut dyn Parameters {
        match self {
            Model::Decoder(m) => m,
            Model::Both(m) => m,
        }
    }
}

/// The largest difference, in units of `tolerance (1 + |right|)`.
pub fn worst(found: &ArrayD<f32>, right: &ArrayD<f32>, tolerance: f32) -> f32 {
    assert_eq!(found.shape(), right.shape());
    let off = |(f, r): (&f32, &f32)| (f - r).abs() / (tolerance * (1.0 + r.abs()));
    found.iter().zip(right).map(off).fold(0.0, |a, b| if b.is_nan() { f32::INFINITY } else { a.max(b) })
}
