//! Which tensors a folder holds, in which files, in which dtype.

use super::names::{INDEX, MASKS, SUFFIX, WEIGHTS};
use super::read::Folder;
use crate::io::quoted;
use crate::io::safetensors::{Dtype, Element, METADATA, bytes_of, encode};
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Of each tensor of a file, where it begins and its bytes.
type Places = Vec<(u64, u64)>;

/// One file of weights to be.
#[derive(Debug)]
pub(super) struct Planned {
    pub file: String,
    pub tensors: Vec<(String, Element, Vec<usize>)>,
    pub metadata: BTreeMap<String, String>,
}

/// The tensors of a folder to be written: file, order, dtype and shape of each.
#[derive(Debug)]
pub struct Layout {
    pub(super) files: Vec<Planned>,
    index: Option<Map<String, Value>>,
}

impl Layout {
    /// The layout of a folder as it is: the same files, order and dtypes.
    pub fn of(folder: &Folder) -> Layout {
        let plan = |shard: &super::shard::Shard| Planned {
            file: shard.path.file_name().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default(),
            tensors: shard.tensors.iter().map(|t| (t.name.clone(), t.element, t.shape.clone())).collect(),
            metadata: shard.metadata.clone(),
        };
        Layout { files: folder.shards.iter().map(plan).collect(), index: folder.index.clone() }
    }

    /// A new layout of these tensors in this order, in files of at most `largest` bytes of numbers (a tensor larger than that
    /// has a file of its own).
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a name stands there twice or is the format's own, or a tensor has more bytes than a machine can
    /// address.
    pub fn new(tensors: impl IntoIterator<Item = (String, Dtype, Vec<usize>)>, largest: u64) -> Result<Layout> {
        let mut files: Vec<Vec<(String, Element, Vec<usize>)>> = vec![vec![]];
        let (mut filled, mut names) = (0u64, HashSet::new());
        for (name, dtype, shape) in tensors {
            if name == METADATA || !names.insert(name.clone()) {
                return Err(Error::invalid_option(
                    "tensor name",
                    format!("{} stands there twice or is the format's own", quoted(&name)),
                ));
            }
            let Some(bytes) = bytes_of(dtype.element(), &shape) else {
                return Err(Error::invalid_option(
                    "shape",
                    format!("tensor {}: {shape:?} of {dtype} is too large", quoted(&name)),
                ));
            };
            if filled > 0 && filled + bytes as u64 > largest {
                files.push(vec![]);
                filled = 0;
            }
            filled += bytes as u64;
            if let Some(last) = files.last_mut() {
                last.push((name, dtype.element(), shape));
            }
        }
        let count = files.len();
        let name = |i: usize| match count {
            1 => WEIGHTS.to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let plan = |(i, tensors)| Planned { file: name(i), tensors, metadata: metadata.clone() };
        Ok(Layout { files: files.into_iter().enumerate().map(plan).collect(), index: (count > 1).then(Map::new) })
    }

    /// Puts tensors in the place of others, with the metadata that goes with them; metadata under `key` goes.
    pub(super) fn replace(
        &mut self,
        old: &HashSet<String>,
        new: Vec<(String, Element, Vec<usize>)>,
        key: &str,
        metadata: BTreeMap<String, String>,
    ) {
        for file in &mut self.files {
            let Some(at) = file.tensors.iter().position(|(name, _, _)| old.contains(name)) else { continue };
            file.tensors.retain(|(name, _, _)| !old.contains(name));
            let at = at.min(file.tensors.len());
            file.tensors.splice(at..at, new);
            file.metadata.remove(key);
            file.metadata.extend(metadata);
            return;
        }
    }

    /// Gives tensors other shapes, as a model of smaller layers needs; `shape` is asked for each.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a tensor has more bytes than a machine can address.
    pub fn reshape(&mut self, mut shape: impl FnMut(&str, &[usize]) -> Vec<usize>) -> Result<()> {
        for (name, element, dims) in self.files.iter_mut().flat_map(|f| &mut f.tensors) {
            *dims = shape(name, dims);
            if bytes_of(*element, dims).is_none() {
                return Err(Error::invalid_option(
                    "shape",
                    format!("tensor {}: {dims:?} of {element} is too large", quoted(name)),
                ));
            }
        }
        Ok(())
    }

    /// Leaves tensors out, as a model of fewer layers needs; those for which `keep` is true stay.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        for file in &mut self.files {
            file.tensors.retain(|(name, _, _)| keep(name));
        }
    }

    /// The header of a file and the place of each of its tensors.
    pub(super) fn header(&self, file: usize, path: &Path) -> Result<(Vec<u8>, Places)> {
        let planned = &self.files[file];
        let sized = |(name, element, shape): &(String, Element, Vec<usize>)| {
            (name.clone(), *element, shape.clone(), bytes_of(*element, shape).unwrap_or(0))
        };
        let tensors: Vec<_> = planned.tensors.iter().map(sized).collect();
        let mut at = 0u64;
        let mut places = Vec::with_capacity(tensors.len());
        for (_, _, _, bytes) in &tensors {
            places.push((at, *bytes as u64));
            at += *bytes as u64;
        }
        let header = encode(path, tensors.into_iter(), &planned.metadata)?;
        places.iter_mut().for_each(|(at, _)| *at += header.len() as u64);
        Ok((header, places))
    }

    /// The list of shards: name and content of its file, if there is to be one.
    pub(super) fn index(&self) -> Option<(&'static str, Value)> {
        let mut index = self.index.clone()?;
        let weights = || self.files.iter().filter(|f| f.file != MASKS);
        let total: u64 = weights().flat_map(|f| &f.tensors).map(|(_, e, shape)| bytes_of(*e, shape).unwrap_or(0) as u64).sum();
        let metadata = index.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("total_size".to_string(), json!(total));
        }
        let map: Map<String, Value> =
            weights().flat_map(|f| f.tensors.iter().map(|(name, _, _)| (name.clone(), Value::from(f.file.clone())))).collect();
        index.insert("weight_map".to_string(), Value::Object(map));
        Some((INDEX, Value::Object(index)))
    }
}

impl Layout {
    /// A file of masks for these weights of a folder, whose tensors may be packed here; none if there are no weights.
    pub(crate) fn masks_of(&mut self, weights: &[String], folder: &Folder) -> Result<()> {
        self.files.retain(|f| f.file != MASKS);
        if weights.is_empty() {
            return Ok(());
        }
        let mut planned = Planned { file: MASKS.to_string(), tensors: Vec::new(), metadata: BTreeMap::new() };
        for weight in weights {
            let shape = folder.shape(weight)?;
            planned.add(weight, shape)?;
        }
        self.files.push(planned);
        Ok(())
    }

    /// Adds a file of masks for these weights, which must be in the layout.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such weight, [`Error::InvalidOption`] if one is named twice.
    pub fn masks<'a>(&mut self, weights: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let mut planned = Planned { file: MASKS.to_string(), tensors: Vec::new(), metadata: BTreeMap::new() };
        for weight in weights {
            let mut all = self.files.iter().flat_map(|f| &f.tensors);
            let Some((_, _, shape)) = all.find(|(name, _, _)| name == weight) else {
                let names = self.files.iter().flat_map(|f| f.tensors.iter().map(|(name, _, _)| name.as_str()));
                return Err(Error::unknown_layer(weight, names));
            };
            planned.add(weight, shape)?;
        }
        self.files.retain(|f| f.file != MASKS);
        self.files.push(planned);
        Ok(())
    }
}

impl Planned {
    /// Adds the mask of a weight of this shape.
    fn add(&mut self, weight: &str, shape: &[usize]) -> Result<()> {
        let rows = shape.first().copied().unwrap_or(1);
        let cols: usize = shape.iter().skip(1).product();
        let name = format!("{weight}{SUFFIX}");
        if self.metadata.insert(format!("{name}.cols"), cols.to_string()).is_some() {
            return Err(Error::invalid_option("masks", format!("{} is named twice", quoted(weight))));
        }
        self.tensors.push((name, Element::U8, vec![rows, cols.div_ceil(8)]));
        Ok(())
    }
}
