//! Weights that a folder holds without their zeros: in the published layouts `sparse-bitmask` and `sparse-24-bitmask`, or as storages.
//!
//! A packed weight is read under its own name like any other; what it is made of ([`Checkpoint::published`],
//! [`Checkpoint::storage`]) does not show among the names of the folder.

use super::masks::MASKS;
use super::{Folder, FolderWriter, Layout, Listed, Output, Shard};
use crate::io::quoted;
use crate::io::safetensors::{Checkpoint, Dtype, Element, Table, encode};
use crate::mask::{Mask, Pattern};
use crate::sparse::{Format, LinearOp, Precision};
use crate::{Error, Result};
use ndarray::Array2;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The key of `config.json` that says how weights are packed.
const QUANTIZATION: &str = "quantization_config";
/// Its `quant_method`, and the `format` of the files' metadata, where weights are kept as storages of this library. Readers that know
/// neither name it, and do not take what they find for a model with missing weights.
const OWN: &str = "lacuna";
/// What a run of pruning has left beside the weights.
const RECORDS: [&str; 2] = ["prune.json", "prune.html"];

/// How the pruned weights of a folder are laid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Whole, with zeros, their masks beside.
    Whole,
    /// The published layout `sparse-bitmask`.
    SparseBitmask,
    /// The published layout `sparse-24-bitmask`, for 2:4 masks.
    Sparse24Bitmask,
    /// A storage of this library, its numbers of the weight's own dtype, the masks beside.
    Storage(Format),
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packing::Whole => f.write_str("weights"),
            Packing::SparseBitmask => f.write_str("sparse-bitmask"),
            Packing::Sparse24Bitmask => f.write_str("sparse-24-bitmask"),
            Packing::Storage(format) => write!(f, "{format}"),
        }
    }
}

impl FromStr for Packing {
    type Err = Error;

    /// # Errors
    /// If the text is none of weights, sparse-bitmask, sparse-24-bitmask and the names of sparse storages.
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "weights" => return Ok(Packing::Whole),
            "sparse-bitmask" => return Ok(Packing::SparseBitmask),
            "sparse-24-bitmask" => return Ok(Packing::Sparse24Bitmask),
            _ => {}
        }
        match s.parse() {
            Ok(Format::Dense) | Err(_) => Err(Error::setting(
                "save",
                format!(
                    "'{s}' is none of weights, sparse-bitmask, sparse-24-bitmask, csr, tile-csr[:COLUMNS], tile-pairs[:COLUMNS], \
                     bitmask[:COLUMNS], sell[:padded|packed], nm[:N:M], bsr[:RxC]"
                ),
            )),
            Ok(format) => Ok(Packing::Storage(format)),
        }
    }
}

/// A packed weight: in which shard, out of which tensors of it.
pub(super) struct Packed {
    shard: usize,
    /// Places in the shard's list.
    parts: Vec<usize>,
    published: bool,
    /// What it is stored as: the name of a published layout, or of a storage.
    layout: String,
    pub shape: Vec<usize>,
    dtype: Option<Dtype>,
}

impl Packed {
    /// Finds what is packed in a shard: names of weights and what they are made of.
    pub fn find(number: usize, shard: &Shard) -> Result<Vec<(String, Packed)>> {
        let places: BTreeMap<&str, usize> = shard.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        let mut found = Vec::new();
        for tensor in &shard.tensors {
            let Some(layer) = tensor.name.strip_suffix(".compressed") else { continue };
            let part = |part: &str| places.get(format!("{layer}.{part}").as_str()).copied();
            let (Some(shape), Some(_)) = (part("shape"), part("bitmask")) else { continue };
            let parts = ["shape", "compressed", "bitmask", "row_offsets"].into_iter().filter_map(part).collect();
            let shape = dimensions(shard, &shard.tensors[shape])?;
            few_enough(shard, layer, shape[0], shape[1])?;
            let name = if layer.ends_with(".weight") { layer.to_string() } else { format!("{layer}.weight") };
            let layout = if tensor.shape.len() == 2 { Packing::Sparse24Bitmask } else { Packing::SparseBitmask }.to_string();
            let dtype = Dtype::of(tensor.element);
            found.push((name, Packed { shard: number, parts, published: true, layout, shape, dtype }));
        }
        for (key, text) in &shard.metadata {
            let Some(name) = key.strip_suffix(".storage") else { continue };
            let Ok(sizes) = serde_json::from_str::<Value>(text) else { continue };
            let size = |key: &str| sizes[key].as_u64().and_then(|n| usize::try_from(n).ok());
            let (Some(rows), Some(cols)) = (size("rows"), size("cols")) else { continue };
            few_enough(shard, name, rows, cols)?;
            let prefix = format!("{name}.");
            let own = places.range(prefix.as_str()..).take_while(|(part, _)| part.starts_with(&prefix));
            let mut parts: Vec<usize> = own.filter(|(part, _)| part[prefix.len()..] != *"mask").map(|(_, i)| *i).collect();
            parts.sort_unstable();
            let dtype = parts.iter().find(|&&i| shard.tensors[i].name.ends_with(".values"));
            let dtype = dtype.and_then(|&i| Dtype::of(shard.tensors[i].element));
            let layout = sizes["format"].as_str().unwrap_or("an unknown storage").to_string();
            found.push((
                name.to_string(),
                Packed { shard: number, parts, published: false, layout, shape: vec![rows, cols], dtype },
            ));
        }
        Ok(found)
    }

    /// The names of the tensors that it is made of.
    pub fn tensors<'a>(&'a self, shard: &'a Shard) -> impl Iterator<Item = &'a str> {
        self.parts.iter().map(|&i| shard.tensors[i].name.as_str())
    }

    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Bytes of all parts.
    pub fn bytes(&self, shard: &Shard) -> u64 {
        self.parts.iter().map(|&i| shard.tensors[i].bytes).sum()
    }

    /// The dtype of its numbers, if they are weights.
    pub fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// Its tensors, read.
    fn checkpoint(&self, name: &str, shard: &Shard) -> Result<Checkpoint> {
        let listed: Vec<&Listed> = self.parts.iter().map(|&i| &shard.tensors[i]).collect();
        let key = format!("{name}.storage");
        let metadata = shard.metadata.get_key_value(&key).map(|(k, v)| (k.clone(), v.clone())).into_iter().collect();
        let mut order = listed.clone();
        order.sort_by(|a, b| b.element.cmp(&a.element).then(a.name.cmp(&b.name)));
        let entries = order.iter().map(|t| (t.name.clone(), t.element, t.shape.clone(), t.bytes as usize));
        let mut bytes = encode(&shard.path, entries, &metadata)?;
        for tensor in order {
            let from = bytes.len();
            bytes.resize(from + tensor.bytes as usize, 0);
            shard.read_bytes(tensor, 0, &mut bytes[from..])?;
        }
        Checkpoint::from_bytes(&shard.path, &bytes)
    }
}

/// Refuses a weight of more numbers than can be counted in 32 bits: a few bytes of a file may state any size.
fn few_enough(shard: &Shard, name: &str, rows: usize, cols: usize) -> Result<()> {
    match rows.checked_mul(cols).filter(|n| u32::try_from(*n).is_ok()) {
        Some(_) => Ok(()),
        None => Err(Error::malformed(&shard.path, format!("weight {} says {rows} x {cols}, which is too large", quoted(name)))),
    }
}

/// The one or two lists of a `shape` tensor.
fn dimensions(shard: &Shard, tensor: &Listed) -> Result<Vec<usize>> {
    let refuse = |reason: &str| Error::malformed(&shard.path, format!("tensor {} {reason}", quoted(&tensor.name)));
    if tensor.element != Element::I64 || tensor.bytes != 16 {
        return Err(refuse("is no shape: that is two numbers of I64"));
    }
    let mut bytes = [0; 16];
    shard.read_bytes(tensor, 0, &mut bytes)?;
    let numbers = bytes.as_chunks::<8>().0.iter().map(|b| usize::try_from(i64::from_le_bytes(*b)));
    numbers.collect::<std::result::Result<_, _>>().map_err(|_| refuse("holds no counts"))
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
    /// As [`Checkpoint::storage`]; [`Error::Io`] if the disk refuses.
    pub fn storage(&self, weight: &str) -> Result<Option<Box<dyn LinearOp>>> {
        match self.packed.get(weight) {
            Some(packed) if !packed.published => packed.checkpoint(weight, &self.shards[packed.shard])?.storage(weight).map(Some),
            _ => Ok(None),
        }
    }

    /// The mask of a weight, from beside it or out of its layout; `None` if it has none.
    ///
    /// # Errors
    /// As [`MaskFile::read`](super::MaskFile::read) and [`Checkpoint::published`]; [`Error::Malformed`] if it has another shape than the weight.
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
            Some(packed) if packed.published => {
                packed.checkpoint(weight, &self.shards[packed.shard])?.published(weight).map(|(_, mask)| Some(mask))
            }
            _ => Ok(None),
        }
    }

    /// Whether any weight has a mask or is packed.
    pub fn is_pruned(&self) -> bool {
        !self.packed.is_empty() || self.masks().is_some_and(|m| m.names().next().is_some())
    }

    /// A packed weight, whole.
    pub(super) fn unpacked(&self, weight: &str, packed: &Packed) -> Result<Array2<f32>> {
        let checkpoint = packed.checkpoint(weight, &self.shards[packed.shard])?;
        let found = match packed.published {
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

/// One packed weight as the tensors of a file: names, elements, shapes and bytes, and the metadata that goes with them.
struct Parcel {
    bytes: Vec<u8>,
    table: Table,
}

impl Parcel {
    fn new(weight: &str, values: &Array2<f32>, mask: &Mask, dtype: Dtype, packing: Packing) -> Result<Parcel> {
        let mut checkpoint = Checkpoint::new();
        match packing {
            Packing::Whole => {}
            Packing::SparseBitmask => checkpoint.insert_sparse_bitmask(weight, values, mask, dtype)?,
            Packing::Sparse24Bitmask => {
                (Pattern::Nm { n: 2, m: 4 }).check(mask).map_err(|e| e.in_layer(weight))?;
                checkpoint.insert_sparse_24_bitmask(weight, values, mask, dtype)?;
            }
            Packing::Storage(format) => {
                let precision = match dtype {
                    Dtype::BF16 if format != Format::Csr => Precision::Bf16,
                    Dtype::F16 if format != Format::Csr => Precision::F16,
                    _ => Precision::F32,
                };
                checkpoint.insert_packed(weight, (values, mask), format, precision).map_err(|e| e.in_layer(weight))?;
            }
        }
        let bytes = checkpoint.to_bytes()?;
        let table = Table::read(Path::new(weight), &mut bytes.as_slice(), bytes.len() as u64)?;
        Ok(Parcel { bytes, table })
    }

    fn tensors(&self) -> impl Iterator<Item = (&str, Element, &[usize], &[u8])> {
        let end = self.table.tensors.last().map_or(0, |(_, t)| t.data_offsets.1);
        let data = &self.bytes[self.bytes.len() - end..];
        self.table
            .tensors
            .iter()
            .map(move |(name, t)| (name.as_str(), t.dtype, t.shape.as_slice(), &data[t.data_offsets.0..t.data_offsets.1]))
    }
}

/// Writes a folder anew with its pruned weights laid in another way: masks hold what is kept, other tensors, the files that go with the
/// weights and the record of the pruning are copied byte by byte. `quantization_config` in `config.json` says what the layout is: as
/// compressed-tensors wrote it for the published ones, with `quant_method` `lacuna` for storages, whose files say `format: lacuna` too.
/// `see` is told after each packed weight how many of all are done. The writer is to be finished by the caller.
///
/// # Errors
/// [`Error::Setting`] if nothing in the folder is pruned and `packing` is not [`Packing::Whole`]; [`Error::Violation`] naming the weight
/// if a mask has not the pattern that a layout needs; as [`FolderWriter::create`] and [`Folder::read`].
pub fn repack(from: &Folder, out: impl Into<Output>, packing: Packing, see: impl FnMut(usize, usize)) -> Result<FolderWriter> {
    laid(from, packing, see, |layout| FolderWriter::create(out, layout))
}

impl FolderWriter {
    /// As [`repack`], of the folder `whole` that this writer has completed ([`FolderWriter::complete`]), under the same final name. The working
    /// folder lies within this one's, so that a run that is killed leaves one folder. This writer is to be discarded once the new one is finished.
    ///
    /// # Errors
    /// As [`repack`].
    pub fn repack(&self, whole: &Folder, packing: Packing, see: impl FnMut(usize, usize)) -> Result<FolderWriter> {
        laid(whole, packing, see, |layout| self.create_within(layout))
    }
}

/// Lays a folder in another way, with the writer that `begin` makes of the layout.
fn laid(
    from: &Folder,
    packing: Packing,
    mut see: impl FnMut(usize, usize),
    begin: impl FnOnce(Layout) -> Result<FolderWriter>,
) -> Result<FolderWriter> {
    let pruned: Vec<String> =
        from.names().filter(|n| from.packed.contains_key(*n) || from.has_mask(n)).map(String::from).collect();
    if pruned.is_empty() && packing != Packing::Whole {
        return Err(Error::setting("save", format!("{} has no masks; prune it first", from.path().display())));
    }
    let one = |name: &String| -> Result<(Array2<f32>, Mask, Dtype)> {
        let shape = from.shape(name)?;
        let &[rows, cols] = shape else {
            return Err(Error::shape(format!("pruned weight {}", quoted(name)), &[0, 0], shape));
        };
        let mask = match from.mask(name)? {
            Some(mask) => mask,
            None => return Err(Error::malformed(from.path(), format!("weight {} is packed without its mask", quoted(name)))),
        };
        Ok((from.matrix(name, (rows, cols))?, mask, from.dtype(name)?))
    };
    // The sizes of packed weights are known only once they are packed: so once for the layout, once for the bytes.
    let mut layout = Layout::of(from);
    let (mut kept, mut all) = (0, 0);
    for name in &pruned {
        let (values, mask, dtype) = one(name)?;
        let old: HashSet<String> = from.parts_of(name).into_iter().collect();
        let (new, metadata) = match packing {
            Packing::Whole => (vec![(name.clone(), dtype.element(), from.shape(name)?.to_vec())], BTreeMap::new()),
            _ => {
                let parcel = Parcel::new(name, &values, &mask, dtype, packing)?;
                let tensors = parcel.tensors().map(|(n, e, s, _)| (n.to_string(), e, s.to_vec())).collect();
                (tensors, parcel.table.metadata.clone())
            }
        };
        layout.replace(&old, new, &format!("{name}.storage"), metadata);
        kept += mask.kept();
        all += mask.len();
    }
    for file in layout.files.iter_mut().filter(|f| f.file != MASKS) {
        match (packing, file.metadata.get("format").map(String::as_str)) {
            (Packing::Storage(_), _) => file.metadata.insert("format".to_string(), OWN.to_string()),
            (_, Some(OWN)) => file.metadata.insert("format".to_string(), "pt".to_string()),
            _ => None,
        };
    }
    let beside = matches!(packing, Packing::Whole | Packing::Storage(_));
    layout.masks_of(if beside { &pruned } else { &[] }, from)?;
    let mut writer = begin(layout)?;
    for (i, name) in pruned.iter().enumerate() {
        let (values, mask, dtype) = one(name)?;
        match packing {
            Packing::Whole => writer.write(name, &values)?,
            _ => {
                let parcel = Parcel::new(name, &values, &mask, dtype, packing)?;
                parcel.tensors().try_for_each(|(n, _, shape, bytes)| writer.write_bytes(n, shape, bytes))?;
            }
        }
        if beside {
            writer.write_mask(name, &mask)?;
        }
        see(i + 1, pruned.len());
    }
    let mut config = from.config().clone();
    if !from.packed.is_empty() {
        config.remove(QUANTIZATION);
    }
    let sparsity = if all == 0 { 0.0 } else { 1.0 - kept as f64 / all as f64 };
    let said = match packing {
        Packing::Whole => None,
        Packing::SparseBitmask | Packing::Sparse24Bitmask => Some(published_config(from, &pruned, packing, sparsity)),
        Packing::Storage(format) => Some(json!({
            "quant_method": OWN, "format": format.to_string(), "weights": pruned.len(), "global_sparsity": sparsity,
        })),
    };
    if let Some(said) = said {
        config.insert(QUANTIZATION.to_string(), said);
    }
    if &config != from.config() {
        writer.config(&config)?;
    }
    writer.copy_rest(from)?;
    for name in RECORDS {
        let path = from.path().join(name);
        if path.is_file() {
            writer.file(name, &std::fs::read(&path).map_err(|e| Error::io(&path, e))?)?;
        }
    }
    Ok(writer)
}

/// What `config.json` says of a published layout, as compressed-tensors wrote it.
fn published_config(from: &Folder, pruned: &[String], packing: Packing, sparsity: f64) -> Value {
    let of = |name: &str| name.strip_suffix(".weight").unwrap_or(name).to_string();
    let packed: HashSet<&String> = pruned.iter().collect();
    let whole =
        |n: &&str| n.ends_with(".weight") && from.shape(n).is_ok_and(|s| s.len() == 2) && !packed.contains(&n.to_string());
    let ignore: Vec<String> = from.names().filter(whole).map(of).collect();
    let structure = if packing == Packing::Sparse24Bitmask { "2:4" } else { "unstructured" };
    json!({
        "quant_method": "compressed-tensors", "format": "dense", "quantization_status": "compressed", "config_groups": {}, "ignore": [],
        "kv_cache_scheme": null, "global_compression_ratio": null,
        "sparsity_config": {
            "format": packing.to_string(), "global_sparsity": sparsity, "ignore": ignore,
            "registry_requires_subclass": false, "sparsity_structure": structure, "targets": ["Linear"],
        },
    })
}
