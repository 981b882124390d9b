//! Files of another format than the one that is wanted, told by their first bytes.

use crate::io::open;
use crate::{Error, Result};
use std::io::Read;
use std::path::Path;

/// The bytes that every file of GGUF begins with.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";

/// Refuses a GGUF file, whatever its name, where a folder or a safetensors file is wanted.
///
/// # Errors
/// [`Error::Malformed`], naming the command that makes a folder of it.
pub fn refuse_gguf(path: &Path) -> Result<()> {
    let mut begins = [0; 4];
    let known = open(path).is_ok_and(|(mut file, _)| file.read_exact(&mut begins).is_ok() && begins == *MAGIC);
    if known { Err(Error::malformed(path, TO_IMPORT)) } else { Ok(()) }
}

/// What is said of such a file.
pub(super) const TO_IMPORT: &str = "is a GGUF file; 'lacuna import FILE DIR' makes a model folder of it";
