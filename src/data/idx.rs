//! The idx format, in which MNIST and its kin come, plain or gzip.
//!
//! ```text
//! 0 0 │ element type (8 = unsigned byte) │ number of dimensions │ a big-endian u32 for each │ the elements, last index fastest
//! ```
//!
//! Whether a file is gzip is decided by its first two bytes, not by its name. No more is read or unpacked than the
//! dimensions promise and one byte, and they may promise no more than the file can hold.

use crate::io::{one_line, open};

use crate::data::Dataset;
use crate::{Error, Result};
use flate2::read::MultiGzDecoder;
use ndarray::{Array2, Array3};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Deflate makes at most 1032 bytes of one: no gzip file holds more than this many times its own size.
const MAX_EXPANSION: u64 = 1032;
/// Memory asked for before anything was unpacked.
const FIRST_BYTES: u64 = 1 << 20;

/// An array of unsigned bytes as an idx file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Idx {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it is not idx, not of unsigned bytes, shorter or
    /// longer than its dimensions say, or damaged gzip.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let (file, bytes) = open(path.as_ref())?;
        load(path.as_ref(), BufReader::new(file), bytes)
    }

    /// Reads the bytes of a file; `path` names it in messages.
    ///
    /// ```
    /// use lacuna::data::idx::Idx;
    /// let idx = Idx::from_bytes("two.idx", &[0, 0, 8, 1, 0, 0, 0, 2, 7, 9])?;
    /// assert_eq!((idx.shape(), idx.data()), (&[2][..], &[7, 9][..]));
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Malformed`], as [`Idx::read`].
    pub fn from_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        load(path.as_ref(), bytes, bytes.len() as u64)
    }

    /// The dimensions, the slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, last index fastest.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The elements, without a copy.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }
}

fn load(path: &Path, mut source: impl Read, file_bytes: u64) -> Result<Idx> {
    let mut start = Vec::new();
    source.by_ref().take(2).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
    let gzip = start == [0x1f, 0x8b];
    let whole = io::Cursor::new(start).chain(source);
    if gzip {
        parse(path, MultiGzDecoder::new(whole), file_bytes.saturating_mul(MAX_EXPANSION), "gzip file")
    } else {
        parse(path, whole, file_bytes, "file")
    }
}

/// Reads idx out of a source that holds at most `most` bytes.
fn parse(path: &Path, mut source: impl Read, most: u64, kind: &str) -> Result<Idx> {
    let refuse = |reason: String| Err(Error::malformed(path, reason));
    let mut magic = Vec::new();
    take(path, &mut source, 4, &mut magic)?;
    let [zero, zero2, element, rank] = magic[..] else {
        return refuse(format!("{} bytes are too few for idx, which begins with 4 that say what it holds", magic.len()));
    };
    if (zero, zero2) != (0, 0) {
        return refuse(format!("not idx: it begins with {zero:#04x} {zero2:#04x}, not with two zero bytes"));
    }
    if element != 8 {
        let name = match element {
            9 => "signed bytes",
            0xb => "16-bit integers",
            0xc => "32-bit integers",
            0xd => "32-bit floats",
            0xe => "64-bit floats",
            _ => "unknown to the format",
        };
        return refuse(format!("idx elements of type {element:#04x} ({name}); only 0x08 (unsigned bytes) is read"));
    }
    let mut sizes = Vec::new();
    take(path, &mut source, 4 * u64::from(rank), &mut sizes)?;
    if sizes.len() != 4 * usize::from(rank) {
        return refuse(format!("truncated: {rank} dimensions take {} bytes, {} are there", 4 * u32::from(rank), sizes.len()));
    }
    let shape: Vec<u32> = sizes.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
    let shown = shown(&shape);
    let header = 4 + sizes.len() as u64;
    let bytes = if shape.contains(&0) { Some(0) } else { shape.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::from(d))) };
    let Some(bytes) = bytes.filter(|b| *b <= most.saturating_sub(header)) else {
        let promised = bytes.map_or("more than 2^64".into(), |b| b.to_string());
        return refuse(format!(
            "truncated: dimensions {shown} promise {promised} elements, but a {kind} of this size holds at most {}",
            most.saturating_sub(header)
        ));
    };
    let mut data = Vec::with_capacity(bytes.min(FIRST_BYTES) as usize);
    take(path, &mut source, bytes + 1, &mut data)?;
    match (data.len() as u64).cmp(&bytes) {
        std::cmp::Ordering::Less => {
            refuse(format!("truncated: dimensions {shown} promise {bytes} elements, {} are there", data.len()))
        }
        std::cmp::Ordering::Greater => refuse(format!("bytes follow the {bytes} elements that dimensions {shown} promise")),
        std::cmp::Ordering::Equal => Ok(Idx { shape: shape.into_iter().map(|d| d as usize).collect(), data }),
    }
}

/// Dimensions for a message: there may be 255 of ten digits each.
fn shown(shape: &[impl std::fmt::Debug]) -> String {
    one_line(&format!("{shape:?}"), 200)
}

/// Appends at most `most` bytes.
fn take(path: &Path, source: &mut impl Read, most: u64, into: &mut Vec<u8>) -> Result<()> {
    match source.take(most).read_to_end(into) {
        Ok(_) => Ok(()),
        // An error of the system has a code; all others come from unpacking.
        Err(e) if e.raw_os_error().is_some() => Err(Error::io(path, e)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Error::malformed(path, "truncated: the gzip data end too early"))
        }
        Err(e) => Err(Error::malformed(path, format!("damaged gzip data: {e}"))),
    }
}

/// Reads images: `(n, height, width)`, 0 to 255.
///
/// # Errors
/// As [`Idx::read`], and [`Error::Malformed`] if there are not 3 dimensions.
pub fn read_images(path: impl AsRef<Path>) -> Result<Array3<u8>> {
    let path = path.as_ref();
    let idx = Idx::read(path)?;
    let &[n, height, width] = idx.shape() else {
        return Err(Error::malformed(path, format!("images have 3 dimensions, the file has {}", shown(idx.shape()))));
    };
    Array3::from_shape_vec((n, height, width), idx.data)
        .map_err(|e| Error::malformed(path, format!("dimensions [{n}, {height}, {width}]: {e}")))
}

/// Reads labels.
///
/// # Errors
/// As [`Idx::read`], and [`Error::Malformed`] if there is not 1 dimension.
pub fn read_labels(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let idx = Idx::read(path)?;
    if idx.shape().len() != 1 {
        return Err(Error::malformed(path, format!("labels have 1 dimension, the file has {}", shown(idx.shape()))));
    }
    Ok(idx.data)
}

/// Reads MNIST, or a set that comes in the same four files (Fashion-MNIST): `(train, test)`, pixels scaled to [0, 1].
///
/// The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`, each plain or with `.gz`
/// at its end. `scripts/fetch_data.sh` puts them under [`data_dir`](crate::data::data_dir).
///
/// # Errors
/// [`Error::Io`] if a file is missing, which says how to get it, or cannot be read; [`Error::Malformed`] if it is not what it
/// should be: images and labels that differ in number, a label above 9, images of two sizes.
pub fn mnist(folder: impl AsRef<Path>) -> Result<(Dataset, Dataset)> {
    let folder = folder.as_ref();
    let (train, test) = (half(folder, "train")?, half(folder, "t10k")?);
    if train.shape() != test.shape() {
        let ((_, h, w), (_, th, tw)) = (train.shape(), test.shape());
        return Err(Error::malformed(folder, format!("training images are {h} x {w}, test images {th} x {tw}")));
    }
    Ok((train, test))
}

fn half(folder: &Path, part: &str) -> Result<Dataset> {
    let images = read_images(find(folder, &format!("{part}-images-idx3-ubyte"))?)?;
    let path = find(folder, &format!("{part}-labels-idx1-ubyte"))?;
    let labels = read_labels(&path)?;
    let (n, height, width) = images.dim();
    if labels.len() != n {
        return Err(Error::malformed(path, format!("{} labels for {n} images", labels.len())));
    }
    if let Some((at, label)) = labels.iter().enumerate().find(|(_, l)| **l > 9) {
        return Err(Error::malformed(path, format!("label {label} of image {at} is not one of the ten classes 0 to 9")));
    }
    let x = images.into_raw_vec_and_offset().0.into_iter().map(|p| f32::from(p) / 255.0).collect();
    let x = Array2::from_shape_vec((n, height * width), x).map_err(|e| Error::malformed(folder, e.to_string()))?;
    Dataset::new(x, labels.into_iter().map(usize::from).collect(), 10, (1, height, width))
}

/// The file of this name, plain or gzip.
fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let (plain, gzip) = (folder.join(name), folder.join(format!("{name}.gz")));
    if let Some(found) = [&plain, &gzip].into_iter().find(|p| p.exists()) {
        return Ok(found.clone());
    }
    let set = if folder.ends_with("fashion-mnist") { "fashion-mnist" } else { "mnist" };
    let hint = format!("not there, nor with .gz; scripts/fetch_data.sh {set} fetches it into $LACUNA_DATA (./data if unset)");
    Err(Error::io(plain, io::Error::new(io::ErrorKind::NotFound, hint)))
}
