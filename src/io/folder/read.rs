//! A folder, opened.

use super::coded::Scheme;
use super::masks::MaskFile;
use super::names::{COMPANIONS, CONFIG, INDEX, MASKS, MAX_JSON, WEIGHTS};
use super::packed::{Kind, Packed};
use super::shard::{CHUNK, Listed, Shard};
use crate::io::safetensors::{Dtype, TensorInfo};
use crate::io::{one_line, open, quoted};
use crate::mask::Mask;
use crate::sparse::LinearOp;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayD, Axis, IxDyn};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// An open model folder.
///
/// ```no_run
/// use lacuna::io::Folder;
/// let model = Folder::open("SmolLM2-135M")?;
/// println!("{}: {} tensors", model.config()["model_type"], model.names().count());
/// let embedding = model.matrix("model.embed_tokens.weight", (49152, 576))?; // read now, in f32
/// # Ok::<(), lacuna::Error>(())
/// ```
pub struct Folder {
    path: PathBuf,
    config: Map<String, Value>,
    pub(super) shards: Vec<Shard>,
    /// Of each tensor, by its name, the shard and the place in its list.
    places: HashMap<String, (usize, usize)>,
    /// The names of all weights in order, packed ones by their own.
    pub(super) listed: Vec<String>,
    pub(super) packed: HashMap<String, Packed>,
    /// The tensors that packed weights are made of.
    parts: HashSet<String>,
    /// The list of shards, if there is one.
    pub(super) index: Option<Map<String, Value>>,
    masks: Option<MaskFile>,
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Folder({}, {} tensors in {} files)", self.path.display(), self.listed.len(), self.shards.len())
    }
}

impl Folder {
    /// Opens a folder: reads `config.json` and the headers of the weights, no numbers.
    ///
    /// # Errors
    /// [`Error::Io`] if a file is missing or cannot be read, [`Error::Malformed`] if one is not what it should be: no JSON, a
    /// shard that is cut short, one tensor in two shards, an index that names a tensor or file that is not there or leaves
    /// one out. Where `model.safetensors` is there, an index beside it is not read ([`Folder::remark`]).
    pub fn open(path: impl AsRef<Path>) -> Result<Folder> {
        let path = path.as_ref().to_path_buf();
        let is_folder = std::fs::metadata(&path).map_err(|e| Error::io(&path, e))?.is_dir();
        if !is_folder {
            crate::io::refuse_gguf(&path)?;
            return Err(Error::malformed(&path, "not a folder; a model is a folder with config.json and model.safetensors"));
        }
        let config = read_json(&path.join(CONFIG))?;
        let index_path = path.join(INDEX);
        let whole = path.join(WEIGHTS).exists();
        let index = if !whole && index_path.exists() { Some(read_json(&index_path)?) } else { None };
        let mut shards = Vec::new();
        let mut places = HashMap::new();
        let listed = index.as_ref().map(|index| weight_map(&index_path, index)).transpose()?;
        let files = match &listed {
            None => vec![WEIGHTS.to_string()],
            Some(listed) => {
                let mut files: Vec<String> = listed.values().map(|f| f.to_string()).collect();
                files.sort();
                files.dedup();
                files
            }
        };
        if listed.is_none() && !whole {
            let pickled = path.join("pytorch_model.bin").exists() || path.join("pytorch_model.bin.index.json").exists();
            let hint = if pickled { "; pytorch_model.bin is not read: save the model as safetensors" } else { "" };
            return Err(Error::malformed(&path, format!("has neither {WEIGHTS} nor {INDEX}{hint}")));
        }
        for file in &files {
            let shard = Shard::open(&path.join(file))?;
            for (i, tensor) in shard.tensors.iter().enumerate() {
                let shown = quoted(&tensor.name);
                if let Some((other, _)) = places.insert(tensor.name.clone(), (shards.len(), i)) {
                    return Err(Error::malformed(&path, format!("tensor {shown} stands in {} and in {file}", files[other])));
                }
                match listed.as_ref().map(|l| l.get(tensor.name.as_str())) {
                    Some(None) => return Err(Error::malformed(&index_path, format!("leaves out tensor {shown} of {file}"))),
                    Some(Some(stated)) if stated != file => {
                        return Err(Error::malformed(&index_path, format!("puts tensor {shown} in {stated}; it is in {file}")));
                    }
                    _ => {}
                }
            }
            shards.push(shard);
        }
        if let Some((name, file)) = listed.iter().flatten().find(|(name, _)| !places.contains_key(**name)) {
            return Err(Error::malformed(&index_path, format!("puts tensor {} in {file}, which lacks it", quoted(name))));
        }
        let masks = MaskFile::open(&path)?;
        let (listed, packed) = names(&path, &shards, Scheme::of(&config).as_ref())?;
        let parts = packed.values().flat_map(|p| p.tensors(&shards[p.shard()])).map(String::from).collect();
        Ok(Folder { path, config, shards, places, listed, packed, parts, index, masks })
    }

    /// What a user should know: which of two sets of weights is read. A whole file that was saved into the folder of a sharded one leaves
    /// the old shards and their index behind; the reference library then reads the whole file, and so it is done here.
    pub fn remark(&self) -> Option<String> {
        let stale = self.index.is_none() && self.path.join(INDEX).exists();
        stale.then(|| format!("{WEIGHTS} is read; {INDEX} beside it and the shards that it lists are not"))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `config.json` says, unknown keys included.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// The names of all tensors, in the order in which they lie on the disk; a packed weight stands under its own name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.listed.iter().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.packed.contains_key(name) || self.places.contains_key(name) && !self.parts.contains(name)
    }

    /// The tensors of the files that a weight is made of.
    pub(super) fn parts_of(&self, name: &str) -> Vec<String> {
        match self.packed.get(name) {
            Some(packed) => packed.tensors(&self.shards[packed.shard()]).map(String::from).collect(),
            None => vec![name.to_string()],
        }
    }

    pub(crate) fn has_mask(&self, name: &str) -> bool {
        self.masks.as_ref().is_some_and(|m| m.names().any(|n| n == name))
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().flat_map(|s| &s.tensors).map(|t| t.bytes).sum()
    }

    /// The weight files with the bytes of each.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.shards.iter().map(|s| (s.path.as_path(), s.file_bytes))
    }

    /// What is listed of a tensor.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such tensor.
    pub fn info(&self, name: &str) -> Result<TensorInfo> {
        if let Some(packed) = self.packed.get(name) {
            let bits = packed.coded().map_or(8, |coded| coded.bits);
            let dtype = packed.dtype().map_or_else(|| format!("I{bits}"), |d| d.to_string());
            let bytes = packed.bytes(&self.shards[packed.shard()]);
            return Ok(TensorInfo { name: name.to_string(), dtype, shape: packed.shape.clone(), bytes });
        }
        let (_, t) = self.find(name)?;
        Ok(TensorInfo { name: t.name.clone(), dtype: t.element.to_string(), shape: t.shape.clone(), bytes: t.bytes })
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        match self.packed.get(name) {
            Some(packed) => Ok(&packed.shape),
            None => self.find(name).map(|(_, t)| t.shape.as_slice()),
        }
    }

    /// How the numbers of a weight are stored.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such tensor, [`Error::Malformed`] if it holds no F32, F16 or BF16.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        if let Some(packed) = self.packed.get(name) {
            // Numbers of few bits with their scales need all 32.
            return Ok(packed.dtype().unwrap_or(Dtype::F32));
        }
        let (shard, tensor) = self.find(name)?;
        shard.dtype(tensor)
    }

    /// Reads a weight, as `f32` in its own shape. Memory: the result and 1 MB a thread.
    ///
    /// # Errors
    /// As [`Folder::dtype`]; [`Error::Io`] if the disk refuses, [`Error::Malformed`] if the file was cut short since it was
    /// opened.
    pub fn read(&self, name: &str) -> Result<ArrayD<f32>> {
        if let Some(packed) = self.packed.get(name) {
            return self.unpacked(name, packed).map(Array2::into_dyn);
        }
        let (shard, tensor) = self.find(name)?;
        shard.dtype(tensor)?;
        let mut values = vec![0.0; tensor.len()];
        shard.read_numbers(tensor, 0, &mut values)?;
        let refuse = |e| Error::malformed(&shard.path, format!("tensor {}: {e}", quoted(name)));
        ArrayD::from_shape_vec(IxDyn(&tensor.shape), values).map_err(refuse)
    }

    /// Reads a weight that must be a matrix of this shape.
    ///
    /// # Errors
    /// As [`Folder::read`]; [`Error::Malformed`], naming file, tensor and both shapes, if it has another.
    pub fn matrix(&self, name: &str, shape: (usize, usize)) -> Result<Array2<f32>> {
        self.fits(name, &[shape.0, shape.1])?;
        let values = self.read(name)?;
        values.into_dimensionality().map_err(|e| Error::malformed(&self.path, format!("tensor {}: {e}", quoted(name))))
    }

    /// Reads a weight that must be a vector of this length.
    ///
    /// # Errors
    /// As [`Folder::matrix`].
    pub fn vector(&self, name: &str, len: usize) -> Result<Array1<f32>> {
        self.fits(name, &[len])?;
        let values = self.read(name)?;
        values.into_dimensionality().map_err(|e| Error::malformed(&self.path, format!("tensor {}: {e}", quoted(name))))
    }

    fn fits(&self, name: &str, shape: &[usize]) -> Result<()> {
        let found = self.shape(name)?;
        if found != shape {
            let path = self
                .packed
                .get(name)
                .map_or_else(|| self.find(name).map(|(s, _)| &s.path), |p| Ok(&self.shards[p.shard()].path))?;
            let reason = format!("tensor {} has shape {found:?}, the configuration asks for {shape:?}", quoted(name));
            return Err(Error::malformed(path, reason));
        }
        Ok(())
    }

    /// Reads some rows of a weight that must be a matrix of this shape, in this order.
    ///
    /// # Errors
    /// As [`Folder::matrix`].
    ///
    /// # Panics
    /// If there is no such row.
    pub fn rows(&self, name: &str, shape: (usize, usize), rows: &[usize]) -> Result<Array2<f32>> {
        self.fits(name, &[shape.0, shape.1])?;
        assert!(rows.iter().all(|&r| r < shape.0), "rows {rows:?} of {}", shape.0);
        if let Some(packed) = self.packed.get(name) {
            return Ok(self.unpacked(name, packed)?.select(Axis(0), rows));
        }
        let (shard, tensor) = self.find(name)?;
        let mut found = Array2::zeros((rows.len(), shape.1));
        for (mut values, row) in found.rows_mut().into_iter().zip(rows) {
            shard.read_numbers(tensor, row * shape.1, values.as_slice_mut().expect("made row by row"))?;
        }
        Ok(found)
    }

    /// Shows a weight's numbers to `see` in order, a part at a time; at most 1 MB of them is in memory.
    ///
    /// # Errors
    /// As [`Folder::read`].
    pub fn stream(&self, name: &str, mut see: impl FnMut(&[f32])) -> Result<()> {
        if let Some(packed) = self.packed.get(name) {
            self.unpacked(name, packed)?.as_slice().into_iter().for_each(see);
            return Ok(());
        }
        let (shard, tensor) = self.find(name)?;
        shard.dtype(tensor)?;
        let mut values = vec![0.0; CHUNK.min(tensor.len())];
        for from in (0..tensor.len()).step_by(CHUNK) {
            let part = &mut values[..CHUNK.min(tensor.len() - from)];
            shard.read_numbers(tensor, from, part)?;
            see(part);
        }
        Ok(())
    }

    /// The masks beside the weights, if there are any.
    pub fn masks(&self) -> Option<&MaskFile> {
        self.masks.as_ref()
    }

    /// Reads a small file of the folder that is JSON, `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Malformed`] if it is no JSON object.
    pub fn json(&self, name: &str) -> Result<Option<Map<String, Value>>> {
        let path = self.path.join(name);
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }

    /// The files that go with the weights: those of the tokenizer, the settings of generation, the licence.
    pub fn companions(&self) -> Vec<PathBuf> {
        COMPANIONS.iter().map(|name| self.path.join(name)).filter(|path| path.is_file()).collect()
    }

    pub(super) fn find(&self, name: &str) -> Result<(&Shard, &Listed)> {
        match self.places.get(name) {
            Some(&(shard, i)) => Ok((&self.shards[shard], &self.shards[shard].tensors[i])),
            None => Err(Error::unknown_layer(name, self.names())),
        }
    }
}

/// The names of all weights in the order of the files, and those that are packed.
fn names(path: &Path, shards: &[Shard], scheme: Option<&Scheme>) -> Result<(Vec<String>, HashMap<String, Packed>)> {
    let (mut listed, mut packed) = (Vec::new(), HashMap::new());
    for (i, shard) in shards.iter().enumerate() {
        let mut found = Packed::find(i, shard)?;
        if let Some(scheme) = scheme {
            found.extend(Packed::find_coded(i, shard, scheme)?);
        }
        let parts: HashSet<&str> = found.iter().flat_map(|(_, p)| p.tensors(shard)).collect();
        listed.extend(shard.tensors.iter().map(|t| t.name.as_str()).filter(|n| !parts.contains(n)).map(String::from));
        for (name, one) in found {
            listed.push(name.clone());
            // Of a byte a code the tensor of codes has the weight's name.
            let own = one.tensors(shard).any(|part| part == name);
            let again = shards.iter().enumerate().any(|(at, s)| s.tensors.iter().any(|t| t.name == name && !(own && at == i)));
            if packed.insert(name.clone(), one).is_some() || again {
                return Err(Error::malformed(path, format!("weight {} is there twice, packed and again", quoted(&name))));
            }
        }
    }
    Ok((listed, packed))
}

/// Of each tensor, in alphabetical order, the file that holds it. File names that lead out of the folder are refused.
fn weight_map<'a>(path: &Path, index: &'a Map<String, Value>) -> Result<BTreeMap<&'a str, &'a str>> {
    let Some(Value::Object(map)) = index.get("weight_map") else {
        return Err(Error::malformed(path, "has no object 'weight_map', which lists the tensors"));
    };
    let mut listed = BTreeMap::new();
    for (name, file) in map {
        let plain = |f: &str| f.ends_with(".safetensors") && !f.contains(['/', '\\', ':', '\0']);
        match file.as_str().filter(|f| plain(f)) {
            Some(file) => listed.insert(name.as_str(), file),
            None => {
                let found = one_line(&file.to_string(), 100);
                return Err(Error::malformed(path, format!("puts tensor {} in {found}, no file of this folder", quoted(name))));
            }
        };
    }
    Ok(listed)
}

/// Reads a file that holds one JSON object.
pub(crate) fn read_json(path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_slice(&read_small(path)?)
        .map_err(|e| Error::malformed(path, format!("is no JSON object: {}", one_line(&e.to_string(), 300))))
}

/// The chat template of a tokenizer's settings, or of several that one that is meant if none is named.
pub(crate) fn default_template(found: &Value) -> Option<&str> {
    let default = |list: &'_ Value| -> Option<usize> { list.as_array()?.iter().position(|t| t["name"] == "default") };
    found.as_str().or_else(|| found[default(found)?]["template"].as_str())
}

/// Reads a whole file that must be small.
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>> {
    let (file, bytes) = open(path)?;
    if bytes > MAX_JSON {
        return Err(Error::malformed(path, format!("has {bytes} bytes; at most {MAX_JSON} are read")));
    }
    let mut read = Vec::new();
    file.take(MAX_JSON).read_to_end(&mut read).map_err(|e| Error::io(path, e))?;
    Ok(read)
}

impl Folder {
    /// The weights that are packed.
    pub fn packed(&self) -> impl Iterator<Item = &str> {
        self.listed.iter().map(String::as_str).filter(|n| self.packed.contains_key(*n))
    }

    /// What the packed weights are stored as, with the number of weights of each layout.
    pub fn layouts(&self) -> BTreeMap<&str, usize> {
        let mut layouts = BTreeMap::new();
        self.packed.values().for_each(|p| *layouts.entry(p.layout.as_str()).or_default() += 1);
        layouts
    }

    /// The storage of a weight, `(rows, cols)` as the folder holds it; `None` if it is not kept as one.
    ///
    /// # Errors
    /// As [`Checkpoint::storage`](crate::io::Checkpoint::storage); [`Error::Io`] if the disk refuses.
    pub fn storage(&self, weight: &str) -> Result<Option<Box<dyn LinearOp>>> {
        match self.packed.get(weight) {
            Some(packed) if matches!(packed.kind, Kind::Storage) => {
                packed.checkpoint(weight, &self.shards[packed.shard])?.storage(weight).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The mask of a weight, from beside it or out of its layout; `None` if it has none.
    ///
    /// # Errors
    /// As [`MaskFile::read`](super::MaskFile::read) and [`Checkpoint::published`](crate::io::Checkpoint::published); [`Error::Malformed`] if it has another shape than the weight.
    pub fn mask(&self, weight: &str) -> Result<Option<Mask>> {
        if let Some(mask) = self.masks().map(|m| m.read(weight)).transpose()?.flatten() {
            let (is, of) = (mask.dim(), self.shape(weight)?);
            if [is.0, is.1] != *of {
                let reason = format!("the mask of {} is {is:?}, the weight {of:?}", quoted(weight));
                return Err(Error::malformed(self.path().join(MASKS), reason));
            }
            return Ok(Some(mask));
        }
        match self.packed.get(weight) {
            Some(packed) if packed.is_published() => {
                packed.checkpoint(weight, &self.shards[packed.shard])?.published(weight).map(|(_, mask)| Some(mask))
            }
            _ => Ok(None),
        }
    }

    /// Whether any weight has a mask or is packed without its zeros.
    pub fn is_pruned(&self) -> bool {
        self.packed.values().any(|p| p.coded().is_none()) || self.masks().is_some_and(|m| m.names().next().is_some())
    }

    /// A packed weight, whole.
    pub(super) fn unpacked(&self, weight: &str, packed: &Packed) -> Result<Array2<f32>> {
        if packed.coded().is_some() {
            return Ok(self.decoded(weight, packed)?.to_dense());
        }
        let checkpoint = packed.checkpoint(weight, &self.shards[packed.shard])?;
        let found = match packed.is_published() {
            true => checkpoint.published(weight)?.0,
            false => checkpoint.storage(weight)?.to_dense(),
        };
        if [found.nrows(), found.ncols()] != packed.shape[..] {
            let path = &self.shards[packed.shard].path;
            return Err(Error::malformed(path, format!("weight {}: its parts have another shape", quoted(weight))));
        }
        Ok(found)
    }
}

impl crate::io::Weights for Folder {
    fn names(&self) -> Vec<String> {
        Folder::names(self).map(String::from).collect()
    }

    fn contains(&self, name: &str) -> bool {
        Folder::contains(self, name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Folder::shape(self, name).map(<[usize]>::to_vec)
    }

    fn read(&self, name: &str) -> Result<ArrayD<f32>> {
        Folder::read(self, name)
    }

    fn mask(&self, name: &str) -> Result<Option<Mask>> {
        Folder::mask(self, name)
    }

    fn same(&self, a: &str, b: &str) -> Result<bool> {
        if self.packed.contains_key(a) || self.packed.contains_key(b) {
            return Ok(Folder::shape(self, a)? == Folder::shape(self, b)? && Folder::read(self, a)? == Folder::read(self, b)?);
        }
        let ((first, x), (second, y)) = (self.find(a)?, self.find(b)?);
        if x.shape != y.shape {
            return Ok(false);
        }
        first.dtype(x)?;
        second.dtype(y)?;
        let (mut left, mut right) = (vec![0.0; CHUNK.min(x.len())], vec![0.0; CHUNK.min(x.len())]);
        for from in (0..x.len()).step_by(CHUNK) {
            let n = CHUNK.min(x.len() - from);
            first.read_numbers(x, from, &mut left[..n])?;
            second.read_numbers(y, from, &mut right[..n])?;
            if left[..n] != right[..n] {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
