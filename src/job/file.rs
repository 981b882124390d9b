//! A job on a plain file of weights, by criteria that need the weights alone.

use super::check::each_once;
use super::methods::Methods;
use super::report::{FileReport, PruneReport};
use super::settings::PruneJob;
use crate::allocate::{Overrides, Target};
use crate::eval::{FileCensus, sparsity};
use crate::io::{Checkpoint, outputs, refuse_gguf};
use crate::prune::{LeftAlone, Pruning, left_alone, prune_checkpoint};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

impl PruneJob {
    /// Prunes the file `model`, and writes the file `out`.
    pub(super) fn run_file(&self, model: &Path, out: &Path, methods: &Methods) -> Result<PruneReport> {
        let saliency = self.check_file(methods, || refuse_gguf(model))?;
        outputs::file(out, &[model], self.force)?;
        let checkpoint = Checkpoint::read(model)?;
        let left = left_alone(&checkpoint);
        let given = named(&checkpoint, &left, &self.layer)?;
        let allocation = methods.allocation(&self.allocate)?.make(self)?;
        let allocate = Overrides { sparsity: given, rest: allocation };
        let pruning = Pruning {
            saliency: saliency.as_ref(),
            allocate: &allocate,
            target: Target::Sparsity(self.sparsity.unwrap_or(0.0)),
            pattern: self.pattern,
            scope: self.scope.unwrap_or_default(),
            skip: &self.skip,
        };
        let (pruned, tensors) = prune_checkpoint(&checkpoint, &pruning)?;
        let whole = FileCensus::of(&pruned)?.whole();
        pruned.write(out)?;
        let (weights, kept) = tensors.iter().fold((0, 0), |(w, k), t| (w + t.weights, k + t.kept));
        Ok(PruneReport::File(Box::new(FileReport {
            out: out.to_path_buf(),
            job: self.clone().force(false).resume(false),
            method: saliency.name().to_string(),
            pattern: self.pattern,
            allocate: self.allocate.clone(),
            weights,
            kept,
            sparsity: sparsity(kept, weights),
            parameters: whole.numbers,
            whole_sparsity: whole.sparsity(),
            layers: tensors,
            left_alone: left,
            whole_kept: whole.kept,
        })))
    }
}

/// Sparsities by the tensors that hold the weights; of one that is left alone none can be asked for.
fn named(file: &Checkpoint, left: &[LeftAlone], given: &BTreeMap<String, f64>) -> Result<BTreeMap<String, f64>> {
    each_once(given, |name| match left.iter().find(|l| l.name == name) {
        Some(l) => Err(Error::invalid_option("layer", format!("'{name}' is left alone: {}, {}", l.dtype, l.why))),
        None => Ok(file.tensor_of(name).map_or_else(|_| name.to_string(), String::from)),
    })
}
