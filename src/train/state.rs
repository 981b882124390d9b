//! What an optimiser remembers, alone or with the model that it moves, in a file: training that goes on from it gives the bits that it would
//! have given.

use crate::io::{Checkpoint, TakeVector, write_vectors};
use crate::nn::{AdamConstants, Method, Moments, Optimizer, Parameters};
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The metadata: the method as JSON, the number of steps, the constants of Adam, the parameters without decay.
const METHOD: &str = "optimizer.method";
const STEPS: &str = "optimizer.steps";
const CONSTANTS: &str = "optimizer.constants";
const UNDECAYED: &str = "optimizer.undecayed";
/// What the names of the moments of a parameter have behind its own.
const FIRST: &str = ".first";
const SECOND: &str = ".second";
/// What the names of parameters have before them in a file that holds a model too.
const PARAMETER: &str = "parameters/";

/// Writes an optimiser to a safetensors file, which appears whole or not at all: of each parameter `NAME` the moments `NAME.first` and,
/// of Adam, `NAME.second`, in f32; the method, its constants and the number of steps as metadata.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn save_optimizer(optimizer: &Optimizer, path: impl AsRef<Path>) -> Result<()> {
    let metadata = described(optimizer)?;
    write_vectors(path.as_ref(), &lengths(optimizer), &metadata, |take| moments(optimizer, take))
}

/// Reads an optimiser that [`save_optimizer`] wrote.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it holds no optimiser, or the two moments of a parameter differ in length.
pub fn load_optimizer(path: impl AsRef<Path>) -> Result<Optimizer> {
    let path = path.as_ref();
    of(&Checkpoint::read(path)?, path)
}

/// Writes all that training goes on from to a safetensors file, which appears whole or not at all: the parameters, each as
/// `parameters/NAME`, the optimiser as [`save_optimizer`] does, and notes of the caller's as metadata. Nothing is copied in memory; masks are
/// not written.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn save_state(
    parameters: &dyn Parameters,
    optimizer: &Optimizer,
    notes: &BTreeMap<String, String>,
    path: impl AsRef<Path>,
) -> Result<()> {
    let mut metadata = described(optimizer)?;
    metadata.extend(notes.clone());
    let mut vectors = Vec::new();
    parameters.visit(&mut |name, values, _| vectors.push((format!("{PARAMETER}{name}"), values.len())));
    vectors.extend(lengths(optimizer));
    write_vectors(path.as_ref(), &vectors, &metadata, |take| {
        let mut result = Ok(());
        parameters.visit(&mut |_, values, _| {
            if result.is_ok() {
                let values = values.as_standard_layout();
                result = take(values.as_slice().expect("an array in standard layout is a slice"));
            }
        });
        result?;
        moments(optimizer, take)
    })
}

/// Reads what [`save_state`] wrote: the parameters become what they were, the optimiser and the notes are returned.
///
/// # Errors
/// As [`load_optimizer`]; [`Error::Malformed`] if a parameter is missing or has another length. Some parameters may have changed then.
pub fn load_state(parameters: &mut dyn Parameters, path: impl AsRef<Path>) -> Result<(Optimizer, BTreeMap<String, String>)> {
    let path = path.as_ref();
    let file = Checkpoint::read(path)?;
    let optimizer = of(&file, path)?;
    let mut wrong = None;
    parameters.visit_mut(&mut |name, values, _| match file.get(&format!("{PARAMETER}{name}")) {
        _ if wrong.is_some() => {}
        Ok(found) if found.len() == values.len() => values.iter_mut().zip(found).for_each(|(v, f)| *v = *f),
        Ok(found) => wrong = Some(format!("has {} numbers of {name}; the model has {}", found.len(), values.len())),
        Err(_) => wrong = Some(format!("has no parameter {name}")),
    })?;
    match wrong {
        Some(reason) => Err(Error::malformed(path, reason)),
        None => Ok((optimizer, file.metadata().clone())),
    }
}

fn described(optimizer: &Optimizer) -> Result<BTreeMap<String, String>> {
    fn json(value: &impl serde::Serialize) -> Result<String> {
        serde_json::to_string(value).map_err(|e| Error::invalid_option("optimizer", e.to_string()))
    }
    let all = [
        (METHOD, json(&optimizer.method())?),
        (STEPS, optimizer.steps().to_string()),
        (CONSTANTS, json(&optimizer.constants())?),
        (UNDECAYED, json(optimizer.undecayed())?),
    ];
    Ok(all.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

/// The names and lengths of all moments, in the order of [`moments`].
fn lengths(optimizer: &Optimizer) -> Vec<(String, usize)> {
    let mut all = Vec::new();
    for (name, Moments { first, second }) in optimizer.moments() {
        all.push((format!("{name}{FIRST}"), first.len()));
        if !second.is_empty() {
            all.push((format!("{name}{SECOND}"), second.len()));
        }
    }
    all
}

fn moments(optimizer: &Optimizer, take: &mut TakeVector<'_>) -> io::Result<()> {
    for Moments { first, second } in optimizer.moments().values() {
        take(first)?;
        if !second.is_empty() {
            take(second)?;
        }
    }
    Ok(())
}

/// The optimiser in a file.
fn of(file: &Checkpoint, path: &Path) -> Result<Optimizer> {
    let text = |key: &str| file.metadata().get(key);
    let said = |key: &str| text(key).ok_or_else(|| Error::malformed(path, format!("has no {key}: no optimiser")));
    // What builds before this one did not say is as it was by default.
    fn read<T: DeserializeOwned>(path: &Path, key: &str, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|e| Error::malformed(path, format!("{key}: {e}")))
    }
    let method: Method = read(path, METHOD, said(METHOD)?)?;
    let steps = said(STEPS)?;
    let steps = steps.parse().map_err(|_| Error::malformed(path, format!("{STEPS} is '{steps}', no number of steps")))?;
    let constants = text(CONSTANTS).map_or(Ok(AdamConstants::default()), |text| read(path, CONSTANTS, text))?;
    let undecayed: Vec<String> = text(UNDECAYED).map_or(Ok(vec![]), |text| read(path, UNDECAYED, text))?;
    let adaptive = !matches!(method, Method::Sgd { .. });
    let mut moments = BTreeMap::new();
    for name in file.names().filter(|n| !n.starts_with(PARAMETER)).filter_map(|n| n.strip_suffix(FIRST)) {
        let list = |suffix: &str| Ok(file.get(&format!("{name}{suffix}"))?.iter().copied().collect::<Vec<f32>>());
        let first = list(FIRST)?;
        let second = if adaptive { list(SECOND)? } else { Vec::new() };
        if adaptive && first.len() != second.len() {
            let reason = format!("{name} has {} first moments and {} second ones", first.len(), second.len());
            return Err(Error::malformed(path, reason));
        }
        moments.insert(name.to_string(), Moments { first, second });
    }
    Ok(Optimizer::resumed(method, steps, moments).with_constants(constants).without_decay(undecayed))
}
