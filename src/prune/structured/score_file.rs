//! [`UnitScores`]: scores of units in a file, by which models are cut without being measured again.
//!
//! A safetensors file of F64 vectors, one a coupling: `head/3/model.layers.3.self_attn.o_proj` by kind, block and name; `layer/all/layers` of layers,
//! `sub-layer/all/sub-layers` of attention and feed-forward layers in turn. The metadata says of which model, method and calibration they are.

use super::record::{LayerChoice, ScoredUnits, ShrinkRecord};
use crate::io::atomic;
use crate::structure::UnitKind;
use crate::{Error, Result};
use ::safetensors::SafeTensors;
use ::safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What every such file says of itself.
const FORMAT: (&str, &str) = ("format", "lacuna unit scores 1");
/// The name under which scores of sub-layers stand.
const HALVES: &str = "sub-layer/all/sub-layers";

/// Scores of units, larger = keep, by kind, block and coupling; and what they are of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UnitScores {
    /// The file, where they came from one.
    path: PathBuf,
    scores: BTreeMap<String, Vec<f64>>,
    said: BTreeMap<String, String>,
}

/// The name of a coupling's scores.
fn name(kind: UnitKind, block: Option<usize>, coupling: &str) -> String {
    let kind = match kind {
        UnitKind::FeedForward => "feed-forward",
        UnitKind::Head => "head",
        UnitKind::KvGroup => "kv-group",
        UnitKind::Hidden => "hidden",
        UnitKind::Layer => "layer",
        UnitKind::Vocabulary => "vocabulary",
        UnitKind::Channel => "channel",
    };
    format!("{kind}/{}/{coupling}", block.map_or("all".to_string(), |b| b.to_string()))
}

impl UnitScores {
    /// The scores that a run has found. What it is of is said by `said`: text by name.
    pub fn of(record: &ShrinkRecord, said: BTreeMap<String, String>) -> Self {
        let mut scores = BTreeMap::new();
        for unit in record.units.iter().filter(|u| !u.scores.is_empty()) {
            scores.insert(name(unit.kind, unit.block, &unit.name), unit.scores.clone());
        }
        for ScoredUnits { name: coupling, kind, block, scores: found } in &record.beside {
            scores.insert(name(*kind, *block, coupling), found.clone());
        }
        if let Some(LayerChoice { scores: found, .. }) = &record.layers {
            // A layer that was never looked at stays before all that were.
            let finite = |s: &f64| if s.is_finite() { *s } else { f64::MAX };
            scores.insert(name(UnitKind::Layer, None, "layers"), found.iter().map(finite).collect());
        }
        if let Some(choice) = record.sublayers.as_ref().filter(|choice| !choice.scores.is_empty()) {
            scores.insert(HALVES.into(), choice.scores.iter().flatten().copied().collect());
        }
        UnitScores { path: PathBuf::new(), scores, said }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Malformed`] if it is none of these.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let wrong = |reason: String| Error::malformed(path, format!("holds no scores of units: {reason}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(crate::io::one_line(&e.to_string(), 200)))?;
        let said: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        if said.get(FORMAT.0).map(String::as_str) != Some(FORMAT.1) {
            return Err(wrong(format!("its metadata does not say '{}'", FORMAT.1)));
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(crate::io::one_line(&e.to_string(), 200)))?;
        let mut scores = BTreeMap::new();
        for (name, tensor) in file.tensors() {
            if tensor.dtype() != Dtype::F64 || tensor.shape().len() != 1 {
                let reason = format!("{} is {:?} of {:?}", crate::io::quoted(&name), tensor.dtype(), tensor.shape());
                return Err(wrong(reason));
            }
            let numbers =
                tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
            let numbers: Vec<f64> = numbers.collect();
            if let Some(at) = numbers.iter().position(|n| !n.is_finite()) {
                return Err(wrong(format!("{} is {} at {at}", crate::io::quoted(&name), numbers[at])));
            }
            scores.insert(name, numbers);
        }
        Ok(UnitScores { path: path.to_path_buf(), scores, said })
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes: Vec<(&String, Vec<u8>)> =
            self.scores.iter().map(|(name, s)| (name, s.iter().flat_map(|x| x.to_le_bytes()).collect())).collect();
        let wrong = |e: ::safetensors::SafeTensorError| Error::malformed(path, e.to_string());
        let views = bytes
            .iter()
            .map(|(name, bytes)| TensorView::new(Dtype::F64, vec![bytes.len() / 8], bytes).map(|view| (name.to_string(), view)));
        let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(wrong)?;
        let said: HashMap<String, String> =
            self.said.iter().map(|(k, v)| (k.clone(), v.clone())).chain([(FORMAT.0.to_string(), FORMAT.1.to_string())]).collect();
        let whole = serialize(views, Some(said)).map_err(wrong)?;
        atomic::write_bytes(path, &whole)
    }

    /// What a file says of itself under a name.
    pub fn said(&self, key: &str) -> Option<&str> {
        self.said.get(key).map(String::as_str)
    }

    /// Couplings of which there are scores.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// The scores of a coupling of so many units.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the file, what it lacks and what it has.
    pub fn find(&self, kind: UnitKind, block: Option<usize>, coupling: &str, units: usize) -> Result<Vec<f64>> {
        self.get(&name(kind, block, coupling), units, kind.name())
    }

    /// The scores of layers.
    pub(super) fn layers(&self, layers: usize) -> Result<Vec<f64>> {
        self.find(UnitKind::Layer, None, "layers", layers)
    }

    /// The scores of attention and of the feed-forward layers of each block.
    pub(super) fn halves(&self, layers: usize) -> Result<Vec<[f64; 2]>> {
        let found = self.get(HALVES, 2 * layers, "sub-layers")?;
        Ok(found.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
    }

    fn get(&self, name: &str, units: usize, what: &str) -> Result<Vec<f64>> {
        match self.scores.get(name) {
            Some(found) if found.len() == units => Ok(found.clone()),
            Some(found) => Err(Error::malformed(
                &self.path,
                format!("has {} scores of {name}, where the model has {units} units", found.len()),
            )),
            None => {
                let mut kinds: Vec<&str> = self.scores.keys().filter_map(|key| key.split('/').next()).collect();
                kinds.dedup();
                let reason =
                    format!("has no scores of {what} ({name}), but of {}: a run that cuts them makes some", kinds.join(", "));
                Err(Error::malformed(&self.path, reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::UnitScores;
    use crate::prune::{LayerChoice, ScoredUnits, ShrinkRecord};
    use crate::structure::UnitKind;

    #[test]
    fn scores_come_back_to_the_bit_and_what_is_missing_is_named() {
        let scored =
            ScoredUnits { name: "m.3.o".into(), kind: UnitKind::Head, block: Some(3), scores: vec![0.1, -1.0 / 3.0, 1e-300] };
        let layers = Some(LayerChoice { kept: vec![1], scores: vec![f64::INFINITY, 0.25] });
        let record = ShrinkRecord { layers, beside: vec![scored.clone()], ..ShrinkRecord::default() };
        let scores = UnitScores::of(&record, [("method".to_string(), "minitron".to_string())].into());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.safetensors");
        scores.write(&path).unwrap();
        let read = UnitScores::read(&path).unwrap();
        assert_eq!(read.find(UnitKind::Head, Some(3), "m.3.o", 3).unwrap(), scored.scores);
        assert_eq!((read.layers(2).unwrap(), read.said("method"), read.len()), (vec![f64::MAX, 0.25], Some("minitron"), 2));
        let line = read.find(UnitKind::FeedForward, Some(3), "m.3.down", 3).unwrap_err().to_string();
        assert!(line.contains("has no scores of feed-forward units (feed-forward/3/m.3.down), but of head, layer"), "{line}");
        let line = read.find(UnitKind::Head, Some(3), "m.3.o", 4).unwrap_err().to_string();
        assert!(line.contains("has 3 scores of head/3/m.3.o, where the model has 4 units"), "{line}");
        std::fs::write(&path, b"{}").unwrap();
        assert!(UnitScores::read(&path).unwrap_err().to_string().contains("holds no scores of units"));
    }
}
