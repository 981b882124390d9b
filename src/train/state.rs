//! What an optimiser remembers, in a file: training that goes on from it gives the bits that it would have given.

use crate::io::{Checkpoint, Dtype};
use crate::nn::{Method, Moments, Optimizer};
use crate::{Error, Result};
use ndarray::Array1;
use std::collections::BTreeMap;
use std::path::Path;

/// The metadata: the method as JSON, and the number of steps.
const METHOD: &str = "optimizer.method";
const STEPS: &str = "optimizer.steps";
/// What the names of the moments of a parameter have behind its own.
const FIRST: &str = ".first";
const SECOND: &str = ".second";

/// Writes an optimiser to a safetensors file, which appears whole or not at all: of each parameter `NAME` the moments `NAME.first` and,
/// of Adam, `NAME.second`, in f32; the method and the number of steps as metadata.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn save_optimizer(optimizer: &Optimizer, path: impl AsRef<Path>) -> Result<()> {
    let mut file = Checkpoint::new();
    for (name, Moments { first, second }) in optimizer.moments() {
        file.insert(&format!("{name}{FIRST}"), Array1::from(first.clone()), Dtype::F32)?;
        if !second.is_empty() {
            file.insert(&format!("{name}{SECOND}"), Array1::from(second.clone()), Dtype::F32)?;
        }
    }
    let method = serde_json::to_string(&optimizer.method()).map_err(|e| Error::invalid_option("optimizer", e.to_string()))?;
    file.insert_metadata(METHOD, method);
    file.insert_metadata(STEPS, optimizer.steps().to_string());
    file.write(path)
}

/// Reads an optimiser that [`save_optimizer`] wrote.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it holds no optimiser, or the two moments of a parameter differ in length.
pub fn load_optimizer(path: impl AsRef<Path>) -> Result<Optimizer> {
    let path = path.as_ref();
    let file = Checkpoint::read(path)?;
    let of = |key: &str| file.metadata().get(key).ok_or_else(|| Error::malformed(path, format!("has no {key}: no optimiser")));
    let method: Method = serde_json::from_str(of(METHOD)?).map_err(|e| Error::malformed(path, format!("{METHOD}: {e}")))?;
    let steps = of(STEPS)?;
    let steps = steps.parse().map_err(|_| Error::malformed(path, format!("{STEPS} is '{steps}', no number of steps")))?;
    let adaptive = !matches!(method, Method::Sgd { .. });
    let mut moments = BTreeMap::new();
    for name in file.names().filter_map(|n| n.strip_suffix(FIRST)) {
        let list = |suffix: &str| Ok(file.get(&format!("{name}{suffix}"))?.iter().copied().collect::<Vec<f32>>());
        let first = list(FIRST)?;
        let second = if adaptive { list(SECOND)? } else { Vec::new() };
        if adaptive && first.len() != second.len() {
            let reason = format!("{name} has {} first moments and {} second ones", first.len(), second.len());
            return Err(Error::malformed(path, reason));
        }
        moments.insert(name.to_string(), Moments { first, second });
    }
    Ok(Optimizer::resumed(method, steps, moments))
}
