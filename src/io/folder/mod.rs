//! A language model as a folder, as the Hugging Face libraries lay it: `config.json`, the weights in `model.safetensors` or
//! in shards listed by `model.safetensors.index.json`, and what belongs to the tokenizer.
//!
//! [`Folder`] opens one: the headers are read and checked against one another and against the lengths of the files, the
//! numbers stay on the disk until they are asked for, a tensor at a time. [`FolderWriter`] writes one the same way.
//!
//! Numbers are read at their place in the file and not through a memory map: a file that is cut short while it is open is
//! then a clean error, not a signal that ends the process, and 16-bit numbers have to be widened anyway. Reading a mapped
//! page costs the same copy.
//!
//! **Masks** stand in a file of their own, `masks.safetensors`, laid as [`Checkpoint`](crate::io::Checkpoint) lays them, so
//! that the weights stay a checkpoint like any other.
//!
//! **Weights of a few bits** lie as other tools lay them ([`QuantLayout`]), and stand under their own names here: [`Folder::codes`] gives the codes, reading them
//! the weights.

mod names;
mod output;
mod coded;
mod shard;
mod tokens;
mod masks;
mod packing;
mod packed;
pub(crate) mod read;
mod fingerprint;
mod count;
mod layout;
mod working;
mod write;
mod model;
mod repack;
mod codes;

pub use coded::QuantLayout;
pub(crate) use coded::check_quant_method;
pub use layout::Layout;
pub use masks::MaskFile;
pub(in crate::io) use names::{CONFIG, INDEX, WEIGHTS};
pub(crate) use names::{RECORDS, SETTINGS};
pub use output::Output;
pub use packing::Packing;
pub use read::Folder;
pub use repack::repack;
pub(crate) use tokens::{ByteRows, write_byte_rows};
pub use tokens::{read_ids, write_sequences};
pub use write::FolderWriter;
