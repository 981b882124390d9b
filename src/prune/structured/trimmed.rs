//! A folder as it would be without some layers, halves of them and hidden features, and rotated before.

use super::sublayer::{SubLayer, SubLayerKind};
use crate::Result;
use crate::io::{Dtype, Folder, Weights};
use crate::lm::{Config, Rescale, Rotation, rescaled};
use crate::structure::{Coupling, Extent, Side, UnitCut, UnitKind};
use ndarray::ArrayD;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The tensors that stay, under their new names, cut as they are read.
pub(super) struct Trimmed<'a> {
    folder: &'a Folder,
    cut: UnitCut,
    scales: BTreeMap<String, Rescale>,
    /// Biases of sub-layers that go: 0.
    blank: HashSet<String>,
    rotation: Option<Rotation>,
    /// New names, in the order of the files.
    order: Vec<String>,
    /// The old name of each.
    old: HashMap<String, String>,
}

impl<'a> Trimmed<'a> {
    /// The folder with these layers and hidden features, by their numbers in it; all of those that are `None`; and without sub-layers that are `gone`.
    /// `smaller` is the config of the result.
    /// Where there is a rotation, hidden features are those behind it.
    pub fn new(
        folder: &'a Folder,
        (config, smaller): (&Config, &Config),
        couplings: &[Coupling],
        (layers, hidden, gone): (Option<&[usize]>, Option<&[usize]>, &[SubLayer]),
        rotation: Option<Rotation>,
    ) -> Result<Trimmed<'a>> {
        let mut cut = UnitCut::default();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut known: HashSet<&str> = HashSet::new();
        let mut blank = HashSet::new();
        for coupling in couplings {
            known.extend(coupling.members.iter().map(|m| m.tensor.as_str()));
            let kept = match coupling.kind {
                UnitKind::Layer => layers,
                UnitKind::Hidden => hidden,
                _ => None,
            };
            kept.iter().for_each(|kept| cut.keep(coupling, kept));
            let half = match coupling.kind {
                UnitKind::Head | UnitKind::KvGroup => Some(SubLayerKind::Attention),
                UnitKind::FeedForward => Some(SubLayerKind::FeedForward),
                _ => None,
            };
            if gone.iter().any(|sub| coupling.block == Some(sub.block) && half == Some(sub.kind)) {
                cut.keep(coupling, &[]);
                let readers = coupling.members.iter().filter(|m| m.side == Side::Reads);
                blank.extend(readers.filter_map(|m| Some(format!("{}.bias", m.tensor.strip_suffix(".weight")?))));
            }
            for member in &coupling.members {
                if let Extent::All { unit } = member.part {
                    numbers.insert(&member.tensor, unit);
                }
            }
        }
        let new_name = |name: &str| match (layers, numbers.get(name)) {
            (Some(kept), Some(unit)) => {
                let new = kept.iter().position(|k| k == unit).unwrap_or(*unit);
                name.replacen(&format!(".{unit}."), &format!(".{new}."), 1)
            }
            _ => name.to_string(),
        };
        // Tables that no part of the model reads stay behind.
        let stay = folder.names().filter(|name| known.contains(name) && cut.keeps(name));
        let (mut order, mut old): (Vec<String>, HashMap<String, String>) =
            stay.map(|name| (new_name(name), (new_name(name), name.to_string()))).unzip();
        // A head that was the embedding is cut as it is.
        if let Some(head) = rotation.as_ref().and_then(Rotation::head)
            && old.insert(head.tensor.clone(), head.embedding.clone()).is_none()
        {
            order.push(head.tensor.clone());
        }
        Ok(Trimmed { folder, cut, scales: rescaled(folder, config, smaller)?, blank, rotation, order, old })
    }

    /// Whether the rotation makes another tensor of it.
    fn turns(&self, name: &str, old: &str) -> bool {
        self.rotation.as_ref().is_some_and(|rotation| rotation.turns(name) || rotation.turns(old))
    }

    /// The name of a tensor in the folder.
    pub fn old<'n>(&'n self, name: &'n str) -> &'n str {
        self.old.get(name).map_or(name, String::as_str)
    }

    /// The folder's type of a tensor's numbers.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        self.folder.dtype(self.old(name))
    }

    /// Whether a tensor is that of the folder, to the byte.
    pub fn is_whole(&self, name: &str) -> bool {
        let old = self.old(name);
        let cut = |shape: &[usize]| (0..shape.len()).any(|axis| self.cut.kept(old, axis, shape[axis]).is_some());
        !self.scales.contains_key(old)
            && !self.blank.contains(old)
            && !self.turns(name, old)
            && !self.folder.shape(old).is_ok_and(cut)
    }
}

impl Weights for Trimmed<'_> {
    fn names(&self) -> Vec<String> {
        self.order.clone()
    }

    fn contains(&self, name: &str) -> bool {
        self.old.contains_key(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let old = self.old(name);
        Ok(self.cut.shape(old, self.folder.shape(old)?))
    }

    fn read(&self, name: &str) -> Result<ArrayD<f32>> {
        let old = self.old(name);
        let whole = match &self.rotation {
            Some(rotation) if rotation.head().is_some_and(|head| head.tensor == name) => rotation.read(self.folder, name)?,
            Some(rotation) => rotation.read(self.folder, old)?,
            None => self.folder.read(old)?,
        };
        let mut values = self.cut.apply(old, whole);
        if self.blank.contains(old) {
            values.fill(0.0);
        }
        let scale = self.scales.get(old);
        if let Some(scale) = scale {
            scale.apply(&mut values);
        }
        if scale.is_some() || self.turns(name, old) {
            let dtype = self.folder.dtype(old)?;
            values.mapv_inplace(|v| dtype.round(v));
        }
        Ok(values)
    }
}
