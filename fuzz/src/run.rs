//! An unfinished run of `prune` over a tiny model.

use crate::model::learned;
use crate::room;
use lacuna::Result;
use lacuna::allocate::Uniform;
use lacuna::criteria::Magnitude;
use lacuna::data::Sequences;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout, Output};
use lacuna::lm::Config;
use lacuna::mask::{Pattern, Scope};
use lacuna::prune::{
    ActivationMemory, CalibrationInputs, LanguagePruning, LanguageRun, PrunedFolder, Sequential, allocated, language_layers, prune_language,
};
use lacuna::solve::Scored;
use serde_json::{Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The config of a tiny Llama.
pub fn llama() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    })
}

/// Files by their names.
pub type Files = Vec<(String, Vec<u8>)>;

/// The files of a folder.
pub fn files(dir: &Path) -> Files {
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, fs::read(path).expect("a file in memory"))
    };
    let mut all: Files = fs::read_dir(dir).expect("a folder in memory").map(|e| read(e.expect("an entry").path())).collect();
    all.sort();
    all
}

/// What is asked for.
pub struct Run {
    folder: Folder,
    config: Config,
    out: PathBuf,
    described: Value,
    /// The working folder when every block was done.
    pub done: Files,
    /// The folder that came of it.
    pub finished: Files,
}

impl Run {
    /// Writes the model, prunes it, and keeps the working folder as it was before the end.
    pub fn new() -> Run {
        let config = Config::parse(&llama()).expect("a config");
        let (weights, _) = learned(&config).expect("a small model");
        let tensors = weights.weights().map(|(name, values)| (name.to_string(), Dtype::F32, values.shape().to_vec()));
        let dir = room::room().join("model");
        room::remove(&dir);
        let mut writer = FolderWriter::create(&dir, Layout::new(tensors, 1 << 20).expect("a layout")).expect("a new folder");
        for (name, values) in weights.weights() {
            writer.write(name, values).expect("a tensor of the layout");
        }
        writer.config(llama().as_object().expect("an object")).expect("a file in memory");
        writer.finish().expect("a whole folder");
        let folder = Folder::open(&dir).expect("a folder");
        let out = room::room().join("pruned");
        let mut run = Run { folder, config, out, described: json!({"samples": 1, "model": "m"}), done: vec![], finished: vec![] };
        run.clear();
        let done = run.prune(false).expect("a run");
        run.done = files(&run.part());
        done.finish().expect("a whole folder");
        run.finished = files(&run.out);
        run
    }

    /// The working folder.
    pub fn part(&self) -> PathBuf {
        FolderWriter::working_folder(&self.out)
    }

    /// The folder that comes of it.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Removes what a run has left.
    pub fn clear(&self) {
        room::remove(&self.part());
        room::remove(&self.out);
    }

    /// Begins or goes on.
    ///
    /// # Errors
    /// As [`prune_language`].
    pub fn prune(&self, resume: bool) -> Result<PrunedFolder> {
        let pruner = Scored(&Magnitude::default());
        let layers = language_layers(&self.folder, &self.config, &[], &[])?;
        let pattern = Pattern::Unstructured;
        let settings = LanguagePruning {
            pruner: &pruner,
            pattern,
            scope: Scope::Layer,
            budgets: allocated(&self.folder, &self.config, &layers, pattern, 0.5, (&Uniform, None))?,
            inputs: CalibrationInputs::Pruned,
            sequential: Sequential::Layer,
            correction: None,
            reconstruction: None,
            generalisation: Default::default(),
            gradients: None,
            memory: ActivationMemory::new(1 << 20, room::room()),
        };
        let run = LanguageRun {
            folder: &self.folder,
            config: &self.config,
            calibration: &Sequences::new(vec![1, 2, 3, 4], 4)?,
            pruning: &settings,
            out: &Output::from(&self.out),
            described: &self.described,
            resume,
        };
        prune_language(run, &mut |_| ControlFlow::Continue(()))
    }
}

impl Default for Run {
    fn default() -> Self {
        Run::new()
    }
}
