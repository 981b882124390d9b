//! Safetensors files: weights, whatever else stands beside them, and masks.
//!
//! ```text
//! u64 n, little endian │ n bytes of JSON: name → dtype, shape, offsets; "__metadata__" → text │ the tensors' bytes
//! ```
//!
//! [`Checkpoint`] holds a whole file; [`read_header`] reads only its JSON. A file that is written has the order of the
//! `safetensors` crate (dtypes of wide elements first, then by name, so that every tensor is aligned) with its metadata
//! sorted by key, so the same content gives the same bytes, whatever the order of insertion.
//!
//! **Masks.** The mask of the weight `fc.weight`, `(out, in)`, is the tensor `fc.weight.mask`: dtype U8, shape
//! `(out, ceil(in / 8))`, bits as [`Mask::to_bytes`](crate::mask::Mask::to_bytes) lays them (least significant first, true =
//! kept), which is how the published `sparse-bitmask` checkpoints lay theirs. The metadata entry `fc.weight.mask.cols` holds
//! `in` in decimal, because the bytes alone do not say where a row ends. Masks of other tools, one number a weight, are read and
//! written as they are ([`Checkpoint::insert_mask`]): `fc.weight_orig` and `fc.weight_mask` of `torch.nn.utils.prune`, `fc.mask`, and
//! so on.
//!
//! **Roles.** [`Checkpoint::role`] says what a tensor is for: a weight, a mask of one, a buffer that looks like one, numbers of a type
//! that is not read.
//!
//! **Storages.** [`Checkpoint::insert_storage`] puts a sparse storage in: one tensor a part, `fc.weight.values`, and the metadata entry
//! `fc.weight.storage`, a line of JSON with `format`, `version`, `values`, `rows`, `cols`, and `tile` or `pattern` where the format has one.
//! [`Checkpoint::published`] reads the layouts `sparse-bitmask` and `sparse-24-bitmask` of published checkpoints.

mod buffers;
mod dtype;
mod header;
mod vectors;
mod checkpoint;
mod binary;
mod masks;
mod published;
mod roles;
mod storages;
mod layers;

pub(super) use ::safetensors::tensor::Dtype as Element;
pub(crate) use binary::{filled, is_float};
pub(crate) use buffers::buffer;
pub use checkpoint::{Checkpoint, check_finite};
pub use dtype::Dtype;
pub use header::{Header, TensorInfo, read_header};
pub(super) use header::{METADATA, Table, bytes_of, encode};
pub use roles::Role;
pub(crate) use vectors::{TakeVector, write_vectors};
