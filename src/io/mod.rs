//! What comes from files and goes into files.
//!
//! - [`atomic`]: output appears whole or not at all.
//! - [`safetensors`]: [`Checkpoint`], weights with their masks beside them, and [`read_header`], a listing without the data.
//! - [`folder`]: language models as folders, a tensor at a time: [`Folder`], [`FolderWriter`].
//! - [`outputs`]: what is there already stays, and what is read is never replaced.
//! - [`gguf`]: files of llama.cpp, which [`gguf::import`] turns into folders.
//!
//! Files are not trusted: every length a file states is held against what is really there before memory is asked for, and
//! whatever is wrong is one line of [`Error::Malformed`] with the file's name and the numbers.

pub mod atomic;
mod foreign;
pub(crate) mod place;
mod row_file;
pub mod safetensors;
mod weights;
pub mod folder;
pub mod outputs;
pub mod gguf;

pub(crate) use folder::{ByteRows, RECORDS, SETTINGS, check_quant_method, write_byte_rows};
pub use folder::{Folder, FolderWriter, Layout, MaskFile, Output, Packing, QuantLayout, read_ids, repack, write_sequences};
pub use foreign::refuse_gguf;
pub(crate) use row_file::RowFile;
pub use safetensors::{Checkpoint, Dtype, Header, Role, TensorInfo, check_finite, read_header};
pub(crate) use safetensors::{TakeVector, write_vectors};
pub use weights::{Weights, WeightsMut, read_matrix, read_vector};

use crate::{Error, Result};
use std::fs::File;
use std::path::Path;

/// Opens a regular file and says how many bytes it has. Pipes and devices, which have no length, are refused.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    let io = |e| Error::io(path, e);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Error::malformed(path, "not a regular file"));
    }
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    Ok((file, bytes))
}

/// A name out of a file, fit for a message of one line: quoted, at most 100 characters.
pub(crate) fn quoted(name: &str) -> String {
    format!("'{}'", one_line(name, 100))
}

/// At most this many characters of a text out of a file, with an ellipsis where some were left out and line breaks and
/// their like made visible.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for (i, c) in text.chars().enumerate() {
        match c {
            _ if i == most => {
                line.push('…');
                break;
            }
            c if c.is_control() => line.extend(c.escape_debug()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_messages_are_short_and_of_one_line() {
        assert_eq!(quoted("fc1\n"), "'fc1\\n'");
        assert_eq!(quoted(&"é".repeat(200)).chars().count(), 103);
    }
}
