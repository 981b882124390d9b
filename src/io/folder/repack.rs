//! The pruned weights of a folder laid in another way.

use super::coded::OWN;
use super::layout::Layout;
use super::names::MASKS;
use super::output::Output;
use super::packing::Packing;
use super::read::Folder;
use super::write::FolderWriter;
use crate::io::quoted;
use crate::io::safetensors::{Checkpoint, Dtype, Element, Table};
use crate::mask::{Mask, Pattern};
use crate::sparse::{CodeSource, Format, LinearOp, Precision, QuantizedSparse};
use crate::{Error, Result};
use ndarray::Array2;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// The key of `config.json` that says how weights are packed.
const QUANTIZATION: &str = "quantization_config";
/// What a run of pruning has left beside the weights.
const RECORDS: [&str; 2] = ["prune.json", "prune.html"];

/// One packed weight as the tensors of a file: names, elements, shapes and bytes, and the metadata that goes with them.
struct Parcel {
    bytes: Vec<u8>,
    table: Table,
}

/// A pruned weight of a folder.
struct Pruned {
    values: Values,
    mask: Mask,
    dtype: Dtype,
}

/// Its numbers.
enum Values {
    Dense(Array2<f32>),
    /// What the mask keeps is in codes of a few bits.
    Coded(QuantizedSparse),
    /// A storage that keeps what the mask does, not of codes.
    Stored(Box<dyn LinearOp>),
}

impl Pruned {
    /// Reads a weight; as it is stored if that can be packed without its dense form.
    fn read(from: &Folder, name: &str, packing: Packing) -> Result<Pruned> {
        let shape = from.shape(name)?;
        let &[rows, cols] = shape else {
            return Err(Error::shape(format!("pruned weight {}", quoted(name)), &[0, 0], shape));
        };
        let mask = match from.mask(name)? {
            Some(mask) => mask,
            None if from.is_coded(name) => Mask::full(rows, cols),
            None => return Err(Error::malformed(from.path(), format!("weight {} is packed without its mask", quoted(name)))),
        };
        let dtype = from.dtype(name)?;
        let (own, codes) = (matches!(packing, Packing::Storage(_)), from.has_codes(name));
        let stored = if own && !codes { from.storage(name)? } else { None };
        let values = match stored.filter(|op| op.mask() == mask) {
            Some(op) => Values::Stored(op),
            None if own && codes => Values::Coded(from.kept_codes(name)?.ok_or_else(|| {
                let reason =
                    format!("weight {} is in codes of other groups than whole rows or multiples of 32 inputs", quoted(name));
                Error::invalid_option("save", format!("{reason}, as {packing} has them; weights makes it whole"))
            })?),
            None => Values::Dense(from.matrix(name, (rows, cols))?),
        };
        Ok(Pruned { values, mask, dtype })
    }
}

impl Parcel {
    fn new(weight: &str, pruned: &Pruned, packing: Packing) -> Result<Parcel> {
        let (mut checkpoint, mask, dtype) = (Checkpoint::new(), &pruned.mask, pruned.dtype);
        match (packing, &pruned.values) {
            (Packing::SparseBitmask, Values::Dense(values)) => {
                checkpoint.insert_sparse_bitmask(weight, values, mask, dtype)?;
            }
            (Packing::Sparse24Bitmask, Values::Dense(values)) => {
                (Pattern::Nm { n: 2, m: 4 }).check(mask).map_err(|e| e.in_layer(weight))?;
                checkpoint.insert_sparse_24_bitmask(weight, values, mask, dtype)?;
            }
            (Packing::Storage(format), Values::Coded(codes)) => {
                let put = checkpoint.insert_codes(weight, (CodeSource::Kept(codes), mask), format);
                put.map(drop).map_err(|e| e.in_layer(weight))?;
            }
            (Packing::Storage(format), values) => {
                let precision = match dtype {
                    Dtype::BF16 if format != Format::Csr => Precision::Bf16,
                    Dtype::F16 if format != Format::Csr => Precision::F16,
                    _ => Precision::F32,
                };
                let packed = match values {
                    Values::Dense(values) => checkpoint.insert_packed(weight, (values, mask), format, precision),
                    Values::Stored(op) => checkpoint.insert_converted(weight, op.as_ref(), format, precision),
                    Values::Coded(_) => Ok(()),
                };
                packed.map_err(|e| e.in_layer(weight))?;
            }
            // Written whole; and storages are read only to be packed as others.
            (Packing::Whole, _) | (_, Values::Stored(_) | Values::Coded(..)) => {}
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
/// [`Error::InvalidOption`] if nothing in the folder is pruned and `packing` is not [`Packing::Whole`]; [`Error::Violation`] naming the weight
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
        return Err(Error::invalid_option("save", format!("{} has no masks; prune it first", from.path().display())));
    }
    // Published layouts of sparse weights have no codes; and codes of whole weights lie as densely as they can.
    let stays = |name: &&String| match packing {
        Packing::Whole => false,
        Packing::Storage(_) => from.is_coded(name) && !from.has_mask(name),
        _ => from.has_codes(name),
    };
    if let Some(name) = pruned.iter().find(stays) {
        let what = if from.has_mask(name) { "" } else { " and not pruned" };
        let reason =
            format!("weight {} is in codes of a few bits{what}, which {packing} has not; weights makes it whole", quoted(name));
        return Err(Error::invalid_option("save", reason));
    }
    // The sizes of packed weights are known only once they are packed: so once for the layout, once for the bytes.
    let mut layout = Layout::of(from);
    let (mut kept, mut all) = (0, 0);
    for name in &pruned {
        let weight = Pruned::read(from, name, packing)?;
        let old: HashSet<String> = from.parts_of(name).into_iter().collect();
        let (new, metadata) = match packing {
            Packing::Whole => (vec![(name.clone(), weight.dtype.element(), from.shape(name)?.to_vec())], BTreeMap::new()),
            _ => {
                let parcel = Parcel::new(name, &weight, packing)?;
                let tensors = parcel.tensors().map(|(n, e, s, _)| (n.to_string(), e, s.to_vec())).collect();
                (tensors, parcel.table.metadata.clone())
            }
        };
        layout.replace(&old, new, &format!("{name}.storage"), metadata);
        kept += weight.mask.kept();
        all += weight.mask.len();
    }
    for file in layout.files.iter_mut().filter(|f| f.file != MASKS) {
        match (packing, file.metadata.get("format").map(String::as_str)) {
            (Packing::Storage(_), _) => file.metadata.insert("format".to_string(), OWN.to_string()),
            (_, Some(OWN)) => file.metadata.insert("format".to_string(), "pt".to_string()),
            _ => None,
        };
    }
    let beside = matches!(packing, Packing::Whole | Packing::Storage(_));
    let masked: Vec<String> = pruned.iter().filter(|name| !from.is_coded(name) || from.has_mask(name)).cloned().collect();
    layout.masks_of(if beside { &masked } else { &[] }, from)?;
    let mut writer = begin(layout)?;
    for (i, name) in pruned.iter().enumerate() {
        let weight = Pruned::read(from, name, packing)?;
        match (packing, &weight.values) {
            (Packing::Whole, Values::Dense(values)) => writer.write(name, values)?,
            _ => {
                let parcel = Parcel::new(name, &weight, packing)?;
                parcel.tensors().try_for_each(|(n, _, shape, bytes)| writer.write_bytes(n, shape, bytes))?;
            }
        }
        if beside && masked.contains(name) {
            writer.write_mask(name, &weight.mask)?;
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
