//! A small Llama in a folder, and what its layers see.

use lacuna::criteria::Measured;
use lacuna::data::Sequences;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout, Output};
use lacuna::linalg::Gram;
use lacuna::lm::{Config, LanguageModel};
use lacuna::mask::{Pattern, Scope};
use lacuna::nn::Observer;
use lacuna::prune::{
    ActivationMemory, CalibrationInputs, LanguagePruning, LanguageRun, LayerRecord, Progress, PrunedFolder, Sequential,
    allocated, language_layers, prune_language,
};
use lacuna::rng::Seed;
use lacuna::solve::Pruner;
use lacuna::{Result, allocate::Uniform};
use ndarray::{Array1, Array2, ArrayRef2};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub const LENGTH: usize = 12;

/// A folder with a Llama of three blocks.
pub struct Model {
    pub folder: tempfile::TempDir,
    pub dir: PathBuf,
}

impl Model {
    pub fn new(dtype: Dtype) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("model");
        let mut tensors: Vec<(String, Vec<usize>)> = vec![("model.embed_tokens.weight".into(), vec![50, 16])];
        for i in 0..3 {
            for (name, shape) in [
                ("input_layernorm", vec![16]),
                ("self_attn.q_proj", vec![16, 16]),
                ("self_attn.k_proj", vec![8, 16]),
                ("self_attn.v_proj", vec![8, 16]),
                ("self_attn.o_proj", vec![16, 16]),
                ("post_attention_layernorm", vec![16]),
                ("mlp.gate_proj", vec![24, 16]),
                ("mlp.up_proj", vec![24, 16]),
                ("mlp.down_proj", vec![16, 24]),
            ] {
                tensors.push((format!("model.layers.{i}.{name}.weight"), shape));
            }
        }
        tensors.push(("model.norm.weight".into(), vec![16]));
        let layout = Layout::new(tensors.iter().map(|(n, s)| (n.clone(), dtype, s.clone())), 1 << 30).unwrap();
        let mut writer = FolderWriter::create(&dir, layout).unwrap();
        for (name, shape) in &tensors {
            let mut stream = Seed(3).stream(name);
            match shape[..] {
                [n] => writer.write(name, &Array1::from_shape_simple_fn(n, || 1.0 + 0.2 * stream.normal())).unwrap(),
                [r, c] => writer.write(name, &stream.normal_array(r, c, if name.contains("embed") { 1.0 } else { 0.3 })).unwrap(),
                _ => unreachable!(),
            }
        }
        let config = json!({
            "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 50, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "max_position_embeddings": 64, "hidden_act": "silu",
        });
        writer.config(config.as_object().unwrap()).unwrap();
        writer.finish().unwrap();
        Model { folder, dir }
    }

    pub fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

pub fn open(dir: &Path) -> (Folder, Config) {
    let folder = Folder::open(dir).unwrap();
    let config = Config::parse(&serde_json::Value::Object(folder.config().clone())).unwrap();
    (folder, config)
}

pub fn model(dir: &Path) -> LanguageModel {
    let (folder, config) = open(dir);
    LanguageModel::load(&folder, config).unwrap()
}

/// Sequences of tokens by chance.
pub fn tokens(sequences: usize) -> Vec<u32> {
    let mut stream = Seed(5).stream("tokens");
    (0..sequences * LENGTH).map(|_| stream.below(50) as u32).collect()
}

/// Settings that prune half of every layer in turn.
pub fn settings<'a>(dir: &Path, pruner: &'a dyn Pruner, pattern: Pattern) -> LanguagePruning<'a> {
    let (folder, config) = open(dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let budgets = allocated(&folder, &config, &layers, pattern, 0.5, (&Uniform, None)).unwrap();
    LanguagePruning {
        pruner,
        pattern,
        scope: Scope::Layer,
        budgets,
        inputs: CalibrationInputs::Pruned,
        sequential: Sequential::Layer,
        correction: None,
        reconstruction: None,
        generalisation: Default::default(),
        gradients: None,
        memory: memory(1 << 30),
    }
}

pub fn prune(dir: &Path, out: &Path, ids: &[u32], settings: &LanguagePruning<'_>) -> Result<Vec<LayerRecord>> {
    let calibration = Sequences::new(ids.to_vec(), LENGTH)?;
    begin(dir, out, &calibration, settings, &json!({"a": 1}), false, &mut go_on)?.finish()
}

/// A run whose folder has not its name yet.
pub fn begin(
    dir: &Path,
    out: impl Into<Output>,
    calibration: &Sequences,
    pruning: &LanguagePruning<'_>,
    described: &Value,
    resume: bool,
    see: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<PrunedFolder> {
    let ((folder, config), out) = (open(dir), out.into());
    let run = LanguageRun { folder: &folder, config: &config, calibration, pruning, out: &out, described, resume };
    prune_language(run, see)
}

/// So many bytes of memory, the rest in the folder of tests.
pub fn memory(bytes: usize) -> ActivationMemory {
    ActivationMemory::new(bytes, env!("CARGO_TARGET_TMPDIR"))
}

/// A callback that lets everything go on.
pub fn go_on<T>(_: T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The same, of two numbers.
pub fn on<A, B>(_: A, _: B) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub fn sequences(ids: &[u32]) -> Sequences {
    Sequences::new(ids.to_vec(), LENGTH).unwrap()
}

/// The Gram matrix of the inputs of each layer.
#[derive(Default)]
pub struct Grams(pub HashMap<String, Gram>);

impl Observer for Grams {
    fn see(&mut self, layers: &[&str], input: &ArrayRef2<f32>) {
        for layer in layers {
            self.0.entry(layer.to_string()).or_insert_with(|| Gram::new(input.ncols())).update(input).unwrap();
        }
    }
}

/// What the layers of a model see of these tokens.
pub fn seen(model: &LanguageModel, ids: &[u32]) -> HashMap<String, Measured> {
    let mut grams = Grams::default();
    model.hidden_states(ids, LENGTH, &mut grams).unwrap();
    let measured = |g: Gram| Measured { tokens: g.tokens(), gram: Some(g.matrix()), ..Measured::default() };
    grams.0.into_iter().map(|(name, g)| (name, measured(g))).collect()
}

pub fn weight(model: &LanguageModel, layer: &str) -> Array2<f32> {
    model.linear(layer).unwrap().dense_weight().into_owned()
}

/// All files of a folder and their bytes.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap()))
        .collect();
    all.sort();
    all
}
