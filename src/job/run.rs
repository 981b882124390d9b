//! A job that is run on files.

use super::event::Event;
use super::methods::Methods;
use super::report::PruneReport;
use super::settings::PruneJob;
use crate::{Error, Result};
use std::ops::ControlFlow;

impl PruneJob {
    /// Prunes `model`, a folder or a safetensors file, and writes `out`, which appears whole or not at all.
    ///
    /// `watch` is told what happens, and stops the run with [`ControlFlow::Break`]: [`Error::Interrupted`]. An error or a stop when a block of a
    /// folder is done leaves a working folder beside `out`, from which the same job with [`PruneJob::resume`] goes on to the same bits; before
    /// that nothing is left. What is at `out` already stays, unless [`PruneJob::force`] is set. In a folder the record stands as `prune.json`, and
    /// the page as `prune.html`.
    ///
    /// ```
    /// use lacuna::io::{Checkpoint, Dtype};
    /// use lacuna::job::{Methods, PruneJob, PruneReport};
    /// use ndarray::array;
    /// use std::ops::ControlFlow;
    /// # let folder = tempfile::tempdir().unwrap();
    /// let (model, out) = (folder.path().join("model.safetensors"), folder.path().join("out.safetensors"));
    /// let mut file = Checkpoint::new();
    /// file.insert("fc1.weight", array![[1., -4.], [3., 2.]], Dtype::F32)?;
    /// file.write(&model)?;
    /// let job = PruneJob::new("magnitude").sparsity(0.5).model(&model).out(&out);
    /// let PruneReport::File(report) = job.run(&Methods::standard(), &mut |_| ControlFlow::Continue(()))? else { unreachable!() };
    /// assert_eq!((report.kept, report.weights), (2, 4));
    /// assert_eq!(Checkpoint::read(&out)?.matrix("fc1.weight")?, array![[0., -4.], [3., 0.]]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PruneJob::check`]; if `model` or `out` is not set; what is wrong with model, calibration or text, and whatever a method refuses
    /// (naming the layer); [`Error::Exists`] where `out` is there and [`PruneJob::force`] is not set; [`Error::Interrupted`]. [`Error::Unfinished`] around any of them where a part is kept.
    pub fn run(&self, methods: &Methods, watch: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Result<PruneReport> {
        let missing = |name: &str, what: &str| Error::invalid_option(name, format!("is not set: {what}"));
        let model = self.model.as_deref().ok_or_else(|| missing("model", "the folder or the file to prune"))?;
        let out = self.out.as_deref().ok_or_else(|| missing("out", "the folder or the file to write"))?;
        if model.is_dir() { self.run_model(model, out, methods, watch) } else { self.run_file(model, out, methods) }
    }
}
