//! Vectors of `f32` written to a safetensors file one after another, none of them copied.

use super::Element;
use super::dtype::Dtype;
use super::header::encode;
use crate::Result;
use crate::io::atomic;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Numbers that are turned into bytes at a time.
const CHUNK: usize = 1 << 16;

/// Takes the next vector.
pub(crate) type TakeVector<'t> = dyn FnMut(&[f32]) -> io::Result<()> + 't;

/// Writes a file, whole or not at all, of vectors with these names and lengths. `give` is given what takes them, one after another in this order.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the disk refuses; [`Error::Malformed`](crate::Error::Malformed) if the names are too many for the format.
///
/// # Panics
/// If `give` gives others.
pub(crate) fn write_vectors(
    path: &Path,
    vectors: &[(String, usize)],
    metadata: &BTreeMap<String, String>,
    give: impl FnOnce(&mut TakeVector<'_>) -> io::Result<()>,
) -> Result<()> {
    let listed = vectors.iter().map(|(name, n)| (name.clone(), Element::F32, vec![*n], 4 * n));
    let header = encode(path, listed, metadata)?;
    atomic::write(path, |out| {
        out.write_all(&header)?;
        let mut next = 0;
        give(&mut |numbers| {
            assert_eq!(vectors.get(next).map(|(_, n)| *n), Some(numbers.len()), "vector {next}");
            next += 1;
            numbers.chunks(CHUNK).try_for_each(|part| out.write_all(&Dtype::F32.bytes_of(part)))
        })?;
        assert_eq!(next, vectors.len(), "vectors");
        Ok(())
    })
}
