//! What a model's folder is known by: enough of its bytes that another model, or another training of the same, has another one.

use super::{CONFIG, Folder};
use crate::{Error, Result};
use std::fs::{self, File};

/// Bytes of the front of a file that are read; a header lies there.
const FRONT: u64 = 1 << 20;
/// Places beyond the front that are looked at.
const PLACES: u64 = 256;
/// Bytes of each.
const BYTES: u64 = 1024;

/// Adds bytes to a hash of the kind FNV-1a.
fn add(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

impl Folder {
    /// A number of 16 hexadecimal digits that is another one where the configuration differs, or the files of weights in their number, their
    /// lengths, their first megabyte or one of 256 samples of 1 kB over the rest. It does not depend on the folder's place. A change of a
    /// few numbers alone may go unseen.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let config = self.path().join(CONFIG);
        let mut hash = add(0xcbf2_9ce4_8422_2325, &fs::read(&config).map_err(|e| Error::io(&config, e))?);
        for (path, length) in self.files() {
            let file = File::open(path).map_err(|e| Error::io(path, e))?;
            let mut read = |at: u64, bytes: u64| -> Result<()> {
                let mut buffer = vec![0; bytes.min(length - at) as usize];
                crate::io::place::read_exact_at(&file, &mut buffer, at).map_err(|e| Error::io(path, e))?;
                hash = add(hash, &buffer);
                Ok(())
            };
            read(0, FRONT)?;
            let rest = length.saturating_sub(FRONT);
            let places = PLACES.min(rest.div_ceil(BYTES));
            for i in 0..places {
                read(FRONT + i * rest / places, BYTES)?;
            }
            hash = add(hash, &length.to_le_bytes());
        }
        Ok(format!("{hash:016x}"))
    }
}
