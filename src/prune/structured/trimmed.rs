//! A folder as it would be without some layers and hidden features.

use crate::Result;
use crate::io::{Dtype, Folder, Weights};
use crate::lm::{Config, Rescale, rescaled};
use crate::structure::{Coupling, Extent, UnitCut, UnitKind};
use ndarray::ArrayD;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The tensors that stay, under their new names, cut as they are read.
pub(super) struct Trimmed<'a> {
    folder: &'a Folder,
    cut: UnitCut,
    scales: BTreeMap<String, Rescale>,
    /// New names, in the order of the files.
    order: Vec<String>,
    /// The old name of each.
    old: HashMap<String, String>,
}

impl<'a> Trimmed<'a> {
    /// The folder with these layers and hidden features, by their numbers in it; all of those that are `None`. `smaller` is the config of the result.
    pub fn new(
        folder: &'a Folder,
        (config, smaller): (&Config, &Config),
        couplings: &[Coupling],
        layers: Option<&[usize]>,
        hidden: Option<&[usize]>,
    ) -> Result<Trimmed<'a>> {
        let mut cut = UnitCut::default();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut known: HashSet<&str> = HashSet::new();
        for coupling in couplings {
            known.extend(coupling.members.iter().map(|m| m.tensor.as_str()));
            let kept = match coupling.kind {
                UnitKind::Layer => layers,
                UnitKind::Hidden => hidden,
                _ => None,
            };
            kept.iter().for_each(|kept| cut.keep(coupling, kept));
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
        let (order, old) = stay.map(|name| (new_name(name), (new_name(name), name.to_string()))).unzip();
        Ok(Trimmed { folder, cut, scales: rescaled(folder, config, smaller)?, order, old })
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
        !self.scales.contains_key(old) && !self.folder.shape(old).is_ok_and(cut)
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
        let mut values = self.cut.apply(old, self.folder.read(old)?);
        if let Some(scale) = self.scales.get(old) {
            scale.apply(&mut values);
            let dtype = self.folder.dtype(old)?;
            values.mapv_inplace(|v| dtype.round(v));
        }
        Ok(values)
    }
}
