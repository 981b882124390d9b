//! Experiments on language models in pieces: each a job that leaves a folder.

use super::texts::text_parts;
use crate::criteria::{Evidence, Measured};
use crate::data::{Bos, Windows};
use crate::eval::{Evaluated, TextScore};
use crate::io::{Folder, atomic};
use crate::job::{Event, Methods, ModelReport, PackJob, PruneJob, PruneReport, QuantizeJob, ShrinkJob, TrainJob};
use crate::lm::{Config, LanguageModel};
use crate::mask::Mask;
use crate::nn::Layers;
use crate::quantize::CodeGrid;
use crate::rng::Seed;
use crate::solve::{Pruned, Quantizer};
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::ops::ControlFlow::{self, Continue};
use std::path::{Path, PathBuf};

/// Texts to judge by: their files, tokens of a window, and windows of each at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeTexts {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Tokens of a window.
    pub context: usize,
    /// Windows of each text at most.
    pub windows: usize,
}

impl JudgeTexts {
    /// The perplexity of each text under the model in a folder.
    ///
    /// # Errors
    /// If the model cannot be read, a text does not fill a window, or a loss is not finite.
    pub fn perplexities(&self, model: &Path) -> Result<Vec<f64>> {
        self.perplexities_with(model, |_| Ok(()))
    }

    /// As [`JudgeTexts::perplexities`], of the model as `change` leaves it in memory.
    ///
    /// # Errors
    /// As there; whatever `change` says.
    pub fn perplexities_with(&self, model: &Path, change: impl FnOnce(&mut LanguageModel) -> Result<()>) -> Result<Vec<f64>> {
        let folder = Folder::open(model)?;
        let config = Config::of(&folder)?;
        let mut model = LanguageModel::load(&folder, config.clone())?;
        change(&mut model)?;
        let one = |file: &PathBuf| {
            let windows = Windows::read(file, &folder, &config, self.context, Some(self.windows), Bos::Tokenizer)?;
            Ok(TextScore::measure(Evaluated::Memory(&model), file, &windows, &mut |_, _| Continue(()))?.perplexity)
        };
        self.files.iter().map(one).collect()
    }
}

/// Folders of models of one seed, made one out of another, with a text in two parts beside. What is finished is not made again and what was cut off
/// goes on where it was, so that an experiment can be stopped at any time.
#[derive(Debug, Clone)]
pub struct Pieces {
    folder: PathBuf,
    seed: Seed,
}

impl Pieces {
    /// In `folder`, with the text in two parts as [`text_parts`] cuts it: `train.txt` and `test.txt`.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn new(folder: impl Into<PathBuf>, text: &str, seed: Seed) -> Result<Pieces> {
        let pieces = Pieces { folder: folder.into(), seed };
        text_parts(&pieces.folder, text, 0.0)?;
        Ok(pieces)
    }

    /// The path of a piece.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The seed.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// A model of this configuration with random weights, and a tokenizer of its `vocab_size` that is trained on `train.txt`.
    ///
    /// # Errors
    /// As [`Config::parse`](crate::lm::Config::parse), [`train_bpe`](crate::text::train_bpe) and [`init`](crate::lm::init()).
    #[cfg(feature = "text")]
    pub fn random(&self, name: &str, config: &serde_json::Value) -> Result<()> {
        if self.path(name).is_dir() {
            return Ok(());
        }
        let config = crate::lm::Config::parse(config)?;
        let tokenizer = crate::text::train_bpe(&[crate::data::read_text(&self.path("train.txt"))?], config.vocab())?;
        // Other numbers than those that the order of samples has from this seed.
        let writer = crate::lm::init(&config, Seed(self.seed.0 + 1000), crate::io::Dtype::F32, self.path(name))?;
        tokenizer.iter().try_for_each(|(name, bytes)| writer.file(name, bytes))?;
        writer.finish()
    }

    /// [`Pieces::random`] of a Llama of hidden features, feed-forward features, heads and layers, with tied embeddings and as many key heads as heads.
    ///
    /// # Errors
    /// As [`Pieces::random`].
    #[cfg(feature = "text")]
    pub fn llama(&self, name: &str, vocab: usize, [hidden, features, heads, layers]: [usize; 4], context: usize) -> Result<()> {
        self.random(
            name,
            &serde_json::json!({
                "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": features, "head_dim": hidden / heads,
                "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads, "tie_word_embeddings": true,
                "max_position_embeddings": context, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
            }),
        )
    }

    /// Trains piece `from` on `train.txt` into piece `to` as `job` says, which names neither, and from the teacher among the pieces, if one is named.
    /// Gives the perplexities of `test.txt` at steps `at`, which are multiples of the job's `eval-every`.
    ///
    /// # Errors
    /// As [`TrainJob::run`]; [`Error::InvalidOption`] if a step was not measured.
    pub fn train<const N: usize>(
        &self,
        (from, to): (&str, &str),
        job: TrainJob,
        teacher: Option<&str>,
        at: [usize; N],
    ) -> Result<[f64; N]> {
        let job = job.model(self.path(from)).out(self.path(to)).text([self.path("train.txt")]).seed(self.seed.0);
        let job = job.validation(self.path("test.txt")).resume(true);
        let report = teacher.map_or(job.clone(), |t| job.teacher(self.path(t))).run(&mut quiet)?;
        let mut found = [f64::NAN; N];
        for (found, step) in found.iter_mut().zip(at) {
            let measured = report.validation.iter().find(|v| v.step == step);
            let none = || Error::invalid_option("eval-every", format!("step {step} of {to} was not measured"));
            *found = measured.ok_or_else(none)?.perplexity;
        }
        eprintln!("  seed {}: {to}, perplexity {found:.2?} at steps {at:?}", self.seed.0);
        Ok(found)
    }

    /// Makes piece `to` out of piece `from` as `job` says, which names neither; calibrated on `train.txt`.
    ///
    /// # Errors
    /// As [`ShrinkJob::run`].
    pub fn shrink(&self, (from, to): (&str, &str), job: ShrinkJob) -> Result<()> {
        let job = job.model(self.path(from)).out(self.path(to)).calibration(self.path("train.txt")).resume(true);
        job.run(&mut quiet).map(drop)
    }

    /// Prunes the model in folder `from`, a piece or any other, as `job` says, which names neither it nor an output, and gives the perplexities of
    /// `judge`. They are kept as the piece `name`.json; the pruned model is not, so that hundreds of pieces find room.
    ///
    /// # Errors
    /// As [`PruneJob::run`] and [`JudgeTexts::perplexities`].
    pub fn prune_and_judge(&self, from: impl AsRef<Path>, name: &str, job: &PruneJob, judge: &JudgeTexts) -> Result<Vec<f64>> {
        let asked = json!({"job": job, "texts": judge.files, "context": judge.context, "windows": judge.windows});
        let found = self.kept(name, asked, |out| {
            let _report = self.pruned(job.clone().model(self.folder.join(from)).out(out))?;
            judge.perplexities(out)
        })?;
        eprintln!("  seed {}: {name}, perplexities {found:.2?}", self.seed.0);
        Ok(found)
    }

    /// The same, and gives the job's record, with what was lost on its own texts.
    ///
    /// # Errors
    /// As [`PruneJob::run`].
    pub fn prune_and_report(&self, from: impl AsRef<Path>, name: &str, job: &PruneJob) -> Result<ModelReport> {
        let report: ModelReport =
            self.kept(name, json!({"job": job}), |out| self.pruned(job.clone().model(self.folder.join(from)).out(out)))?;
        eprintln!("  seed {}: {name}, {}", self.seed.0, report.excess.map_or(String::new(), |e| format!("excess {:.3}", e.mean)));
        Ok(report)
    }

    /// What `make` finds about a model that it writes to a folder, kept as `name`.json without the model; what is there of the same question is not
    /// made again.
    fn kept<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        asked: Value,
        make: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let (record, out) = (self.path(&format!("{name}.json")), self.path(name));
        if let Ok(text) = std::fs::read(&record)
            && let Ok(mut kept) = serde_json::from_slice::<Value>(&text)
            && kept["asked"] == asked
            && let Ok(found) = serde_json::from_value(kept["found"].take())
        {
            return Ok(found);
        }
        let found = make(&out)?;
        let kept = serde_json::to_vec(&json!({"asked": asked, "found": found}))
            .map_err(|e| Error::invalid_option("record", e.to_string()))?;
        atomic::write_bytes(&record, &kept)?;
        std::fs::remove_dir_all(&out).map_err(|e| Error::io(&out, e))?;
        Ok(found)
    }

    /// Runs a job of pruning, or goes on with it.
    fn pruned(&self, job: PruneJob) -> Result<ModelReport> {
        match job.resume(true).run(&Methods::standard(), &mut quiet)? {
            PruneReport::Model(report) => Ok(*report),
            _ => Err(Error::invalid_option("model", "is not a language model's folder")),
        }
    }

    /// Makes piece `to` out of piece `from` in codes as `job` says, which names neither; calibrated on `train.txt`. Gives the perplexity of the first `windows` of
    /// `test.txt`, each of as many tokens as the job's context.
    ///
    /// # Errors
    /// As [`QuantizeJob::run`].
    pub fn quantize(&self, (from, to): (&str, &str), job: QuantizeJob, windows: usize) -> Result<f64> {
        let job = job.model(self.path(from)).out(self.path(to)).calibration(self.path("train.txt")).resume(true);
        let report = job.text(self.path("test.txt")).windows(windows).run(&mut quiet)?;
        let after = report.perplexity.map_or(f64::NAN, |p| p.after);
        eprintln!("  seed {}: {to}, perplexity {after:.2}", self.seed.0);
        Ok(after)
    }

    /// The perplexity of piece `from` with every linear layer of its blocks rounded in memory, by a quantizer that measures nothing: for what no layout
    /// of files holds. In windows of `context` tokens of the second part of the text.
    ///
    /// # Errors
    /// As [`Quantizer::quantize`] and [`JudgeTexts::perplexities`].
    pub fn quantize_in_memory(
        &self,
        from: &str,
        (quantizer, grid): (&dyn Quantizer, CodeGrid),
        (context, windows): (usize, usize),
    ) -> Result<f64> {
        let judge = JudgeTexts { files: vec![self.path("test.txt")], context, windows };
        let measured = Measured::default();
        let found = judge.perplexities_with(&self.path(from), |model| {
            for layer in model.layers() {
                let weight = model.read(&layer.name)?.into_owned();
                let weight = quantizer.quantize(&Evidence::new(&layer.name, &weight, &measured), grid)?.weight;
                model.write(&layer.name, Pruned { mask: Mask::full(weight.nrows(), weight.ncols()), weight, loss: None })?;
            }
            Ok(())
        })?;
        Ok(found[0])
    }

    /// Makes piece `to` out of piece `from`, pruned as `job` says, which names neither; calibrated on `train.txt`, perplexity as of [`Pieces::quantize`]. A piece in
    /// codes is made whole first: what is not pruned keeps its value where the method moves no weights.
    ///
    /// # Errors
    /// As [`PruneJob::run`].
    pub fn prune(&self, (from, to): (&str, &str), job: PruneJob, windows: usize) -> Result<f64> {
        let mut from = self.path(from);
        if Folder::open(&from)?.packed().next().is_some() {
            let whole = self.path(&format!("{to}-whole"));
            if !whole.is_dir() {
                PackJob::default().model(&from).out(&whole).run()?;
            }
            from = whole;
        }
        let job = job.model(from).out(self.path(to)).calibration(self.path("train.txt"));
        let report = self.pruned(job.text(self.path("test.txt")).windows(windows))?;
        let after = report.perplexity.map_or(f64::NAN, |p| p.after);
        eprintln!("  seed {}: {to}, perplexity {after:.2}", self.seed.0);
        Ok(after)
    }

    /// Makes a folder of a GGUF file, `name` among the pieces, and gives its path.
    ///
    /// # Errors
    /// As [`Gguf::open`](crate::io::gguf::Gguf::open) and [`import`](crate::io::gguf::import()).
    pub fn import(&self, name: &str, file: &Path) -> Result<PathBuf> {
        let out = self.path(name);
        if !out.is_dir() {
            crate::io::gguf::import(&crate::io::gguf::Gguf::open(file)?, &out, None)?;
        }
        Ok(out)
    }
}

fn quiet(_: &Event) -> ControlFlow<()> {
    Continue(())
}
