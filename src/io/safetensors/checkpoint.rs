//! [`Checkpoint`]: the tensors of one file.

use super::dtype::Dtype;
use super::header::{METADATA, Table, TensorInfo, encode};
use crate::io::{atomic, open, quoted};
use crate::{Error, Result};
use ::safetensors::tensor::Dtype as Element;
use ndarray::{Array, Array2, ArrayD, ArrayRef, Dimension, IxDyn};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// What one name stands for.
#[derive(Clone)]
pub(super) enum Tensor {
    /// Numbers, in standard layout, each of them one that the dtype can hold.
    Weight(ArrayD<f32>, Dtype),
    /// Anything else, kept as it was found.
    Opaque { element: Element, shape: Vec<usize>, bytes: Vec<u8> },
}

impl Tensor {
    pub(super) fn element(&self) -> Element {
        match self {
            Tensor::Weight(_, dtype) => dtype.element(),
            Tensor::Opaque { element, .. } => *element,
        }
    }

    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Tensor::Weight(values, _) => values.shape(),
            Tensor::Opaque { shape, .. } => shape,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Tensor::Weight(values, dtype) => values.len() * dtype.bytes(),
            Tensor::Opaque { bytes, .. } => bytes.len(),
        }
    }
}

/// An ordered set of named tensors, with text beside them: the content of one safetensors file.
///
/// Tensors of dtype F32, F16 and BF16 are weights: `f32` in memory, written back in their own dtype. Tensors of any other
/// dtype are kept byte by byte and written back as they were.
///
/// The order in memory ([`Checkpoint::names`]) is that of the file that was read, then that of insertion. What is written does not depend
/// on it: tensors of wide elements come first, then names in alphabetical order, so the same content gives the same bytes.
///
/// ```
/// use lacuna::io::{Checkpoint, Dtype};
/// use lacuna::mask::Mask;
/// use ndarray::array;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("pruned.safetensors");
/// let mut model = Checkpoint::new();
/// model.insert("fc.weight", array![[0.5, 0.0, -2.0]], Dtype::F16)?;
/// model.insert_mask("fc.weight", &Mask::from_array(&array![[true, true, false]]))?;
/// model.write(&path)?;
///
/// let model = Checkpoint::read(&path)?;
/// assert_eq!(model.matrix("fc.weight")?, array![[0.5, 0.0, -2.0]]);
/// assert_eq!(model.mask("fc.weight")?.unwrap().kept(), 2);
/// assert_eq!(model.dtype("fc.weight")?, Dtype::F16);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Clone)]
pub struct Checkpoint {
    /// Where it was read; for messages.
    pub(super) path: PathBuf,
    /// The names in order.
    order: Vec<String>,
    tensors: HashMap<String, Tensor>,
    pub(super) metadata: BTreeMap<String, String>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors, {} entries of metadata)", self.path.display(), self.len(), self.metadata.len())
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint::new()
    }
}

impl Checkpoint {
    /// An empty one, which messages call `(new checkpoint)`.
    pub fn new() -> Self {
        let path = PathBuf::from("(new checkpoint)");
        Checkpoint { path, order: Vec::new(), tensors: HashMap::new(), metadata: BTreeMap::new() }
    }

    /// Reads a file. NaN and infinities are read as they are; see [`check_finite`].
    ///
    /// Memory: 4 bytes a number, and the bytes of the one tensor that is being read.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read. [`Error::Malformed`] if it is no safetensors file or not a whole one: the
    /// line says what is wrong, of which tensor, with the numbers.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let (file, bytes) = open(path.as_ref())?;
        Checkpoint::load(path.as_ref(), BufReader::with_capacity(1 << 18, file), bytes)
    }

    /// Reads the bytes of a file; `path` names it in messages.
    ///
    /// # Errors
    /// [`Error::Malformed`], as [`Checkpoint::read`].
    pub fn from_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        Checkpoint::load(path.as_ref(), bytes, bytes.len() as u64)
    }

    fn load(path: &Path, mut source: impl Read, file_bytes: u64) -> Result<Self> {
        let table = Table::read(path, &mut source, file_bytes)?;
        let mut read = Checkpoint { path: path.to_path_buf(), metadata: table.metadata, ..Checkpoint::new() };
        for (name, entry) in table.tensors {
            // Asked for only now that the file is known to be as long as all tensors together.
            let mut bytes = vec![0; entry.data_offsets.1 - entry.data_offsets.0];
            source.read_exact(&mut bytes).map_err(|e| Error::io(path, e))?;
            let tensor = match Dtype::of(entry.dtype) {
                None => Tensor::Opaque { element: entry.dtype, shape: entry.shape, bytes },
                Some(dtype) => {
                    let values = ArrayD::from_shape_vec(IxDyn(&entry.shape), dtype.decode(&bytes));
                    let refuse = |e| Error::malformed(path, format!("tensor {}: shape {:?}: {e}", quoted(&name), entry.shape));
                    Tensor::Weight(values.map_err(refuse)?, dtype)
                }
            };
            read.put(name, tensor);
        }
        Ok(read)
    }

    /// Writes a file, whole or not at all (see [`atomic`]), its tensors sorted by the width of their elements and their names: the same
    /// content gives the same bytes, whatever the order in memory.
    ///
    /// # Errors
    /// [`Error::Io`] naming `path`; [`Error::Malformed`] if the names and metadata together exceed the 100 MB that the
    /// format allows.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (header, tensors) = self.prepare(path)?;
        atomic::write(path, |out| emit(&header, &tensors, out))
    }

    /// The bytes that [`Checkpoint::write`] writes.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the names and metadata together exceed the 100 MB that the format allows.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (header, tensors) = self.prepare(&self.path)?;
        let mut bytes = Vec::with_capacity(header.len() + tensors.iter().map(|t| t.bytes()).sum::<usize>());
        emit(&header, &tensors, &mut bytes).map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes)
    }

    /// The header, and the tensors in the order in which they follow it.
    fn prepare(&self, path: &Path) -> Result<(Vec<u8>, Vec<&Tensor>)> {
        let mut sorted: Vec<(&String, &Tensor)> = self.tensors.iter().collect();
        sorted.sort_by(|(a, s), (b, t)| t.element().cmp(&s.element()).then(a.cmp(b)));
        let entries = sorted.iter().map(|(name, t)| (name.to_string(), t.element(), t.shape().to_vec(), t.bytes()));
        let header = encode(path, entries, &self.metadata)?;
        Ok((header, sorted.into_iter().map(|(_, t)| t).collect()))
    }

    /// The file it was read from, as messages name it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tensors, those of masks included.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The names of all tensors, those of masks included, in the order of the file that was read, then of insertion.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }

    /// Whether a tensor of this name is there, whatever its dtype.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// What [`read_header`](super::read_header) would list of this tensor.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such tensor.
    pub fn info(&self, name: &str) -> Result<TensorInfo> {
        let t = self.tensor(name)?;
        let (dtype, shape) = (t.element().to_string(), t.shape().to_vec());
        Ok(TensorInfo { name: name.to_string(), dtype, shape, bytes: t.bytes() as u64 })
    }

    /// The weights, which are the tensors of dtype F32, F16 and BF16, in order, each in its own shape.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &ArrayD<f32>)> {
        self.order.iter().filter_map(|name| match self.tensors.get(name) {
            Some(Tensor::Weight(values, _)) => Some((name.as_str(), values)),
            _ => None,
        })
    }

    /// A weight in its own shape.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such tensor; [`Error::Malformed`], naming file, tensor and dtype, if it does not
    /// hold numbers of dtype F32, F16 or BF16.
    pub fn get(&self, name: &str) -> Result<&ArrayD<f32>> {
        self.weight(name).map(|(values, _)| values)
    }

    /// How the file stores a weight.
    ///
    /// # Errors
    /// As [`Checkpoint::get`].
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        self.weight(name).map(|(_, dtype)| dtype)
    }

    /// A weight as a matrix `(out, in)`: what follows the first dimension is laid in one row, so that the
    /// `(out, in, kh, kw)` of a convolution becomes `(out, in * kh * kw)`.
    ///
    /// # Errors
    /// As [`Checkpoint::get`], and [`Error::Malformed`] if it has fewer than 2 dimensions.
    pub fn matrix(&self, name: &str) -> Result<Array2<f32>> {
        let values = self.get(name)?;
        let shape = self.matrix_shape(name)?;
        let matrix = values.to_shape(shape).map_err(|e| self.malformed(name, &format!("as a {shape:?} matrix: {e}")))?;
        Ok(matrix.into_owned())
    }

    /// Puts a weight in; one of the same name is replaced, in its place. Its numbers are rounded to `dtype` at once, so that
    /// [`Checkpoint::get`] gives what a reader of the file will see.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a finite number is too large for `dtype`, or the name is the format's own `__metadata__`;
    /// [`Error::Shape`] if the weight it replaces has a mask of another shape.
    pub fn insert<D: Dimension>(&mut self, name: &str, values: Array<f32, D>, dtype: Dtype) -> Result<()> {
        if name == METADATA {
            return Err(Error::invalid_option("tensor name", format!("'{METADATA}' is the format's own")));
        }
        if self.has_mask(name) {
            let (old, new) = (self.mask_shape(name)?, flat(values.shape()));
            if old != new {
                return Err(Error::shape(format!("weight {} that has a mask", quoted(name)), &[old.0, old.1], values.shape()));
            }
        }
        let mut values = standard(values);
        let numbers = values.as_slice().expect("`standard` made it so");
        if let Some(at) = dtype.first_too_large(numbers) {
            let cols = flat(values.shape()).1;
            let place = format!("{} at row {}, column {}", numbers[at], at / cols, at % cols);
            return Err(Error::invalid_option("dtype", format!("tensor {}: {place} is too large for {dtype}", quoted(name))));
        }
        values.mapv_inplace(|v| dtype.round(v));
        self.put(name.to_string(), Tensor::Weight(values.into_dyn(), dtype));
        Ok(())
    }

    /// Gives a weight new numbers, as the matrix that [`Checkpoint::matrix`] gave; its shape and dtype stay.
    ///
    /// # Errors
    /// As [`Checkpoint::matrix`] and [`Checkpoint::insert`]; [`Error::Shape`] if the matrix has another shape.
    pub fn set_matrix(&mut self, name: &str, matrix: Array2<f32>) -> Result<()> {
        let (shape, dtype) = self.weight(name).map(|(values, dtype)| (values.shape().to_vec(), dtype))?;
        let (rows, cols) = self.matrix_shape(name)?;
        let misfit = Error::shape(format!("weight {}", quoted(name)), &[rows, cols], matrix.shape());
        if matrix.dim() != (rows, cols) {
            return Err(misfit);
        }
        let values = standard(matrix).into_shape_with_order(IxDyn(&shape)).map_err(|_| misfit)?;
        self.insert(name, values, dtype)
    }

    /// Takes a tensor out, with its mask if it has one.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such tensor.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        self.tensor(name)?;
        self.remove_mask(name);
        self.take(name);
        Ok(())
    }

    /// The text entries, by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Puts a text entry in; one of the same key is replaced.
    pub fn insert_metadata(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.metadata.insert(key.into(), value.into());
    }

    pub(super) fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.find(name).ok_or_else(|| Error::unknown_layer(name, self.names()))
    }

    pub(super) fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Puts a tensor in, last or in the place of the one it replaces.
    pub(super) fn put(&mut self, name: String, tensor: Tensor) {
        if self.tensors.insert(name.clone(), tensor).is_none() {
            self.order.push(name);
        }
    }

    pub(super) fn take(&mut self, name: &str) {
        self.tensors.remove(name);
        self.order.retain(|n| n != name);
    }

    fn weight(&self, name: &str) -> Result<(&ArrayD<f32>, Dtype)> {
        match self.tensor(name)? {
            Tensor::Weight(values, dtype) => Ok((values, *dtype)),
            Tensor::Opaque { element, .. } => Err(self.malformed(name, &format!("is {element}; weights are F32, F16 or BF16"))),
        }
    }

    /// The shape of a tensor as a matrix.
    pub(super) fn matrix_shape(&self, name: &str) -> Result<(usize, usize)> {
        let shape = self.tensor(name)?.shape();
        if shape.len() < 2 {
            return Err(self.malformed(name, &format!("has shape {shape:?}; a weight matrix has at least 2 dimensions")));
        }
        Ok(flat(shape))
    }

    /// The shape of a tensor's mask: that of the matrix, and `(n, 1)` for a vector.
    pub(super) fn mask_shape(&self, name: &str) -> Result<(usize, usize)> {
        self.tensor(name).map(|t| flat(t.shape()))
    }

    pub(super) fn malformed(&self, name: &str, reason: &str) -> Error {
        Error::malformed(&self.path, format!("tensor {} {reason}", quoted(name)))
    }
}

fn emit(header: &[u8], tensors: &[&Tensor], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(header)?;
    tensors.iter().try_for_each(|tensor| match tensor {
        Tensor::Weight(values, dtype) => dtype.encode(values, out),
        Tensor::Opaque { bytes, .. } => out.write_all(bytes),
    })
}

/// The first dimension, and the product of the others: `(n, 1)` for a vector, `(1, 1)` for a number.
fn flat(shape: &[usize]) -> (usize, usize) {
    match shape.split_first() {
        Some((rows, rest)) => (*rows, rest.iter().product()),
        None => (1, 1),
    }
}

/// The array with its last index running fastest in memory, copied only if it was not so.
fn standard<D: Dimension>(values: Array<f32, D>) -> Array<f32, D> {
    if values.is_standard_layout() { values } else { values.as_standard_layout().into_owned() }
}

/// Refuses NaN and infinities. Rows are those of the matrix that [`Checkpoint::matrix`] makes of the array; of a vector,
/// every entry is a row.
///
/// ```
/// use ndarray::array;
/// let e = lacuna::io::check_finite("fc.weight", &array![[1.0, 2.0], [3.0, f32::NAN]]).unwrap_err();
/// assert!(e.to_string().starts_with("tensor 'fc.weight': NaN at row 1, column 1"));
/// ```
///
/// # Errors
/// [`Error::NotFinite`] with the name, and the place of the first such number.
pub fn check_finite<D: Dimension>(name: &str, values: &ArrayRef<f32, D>) -> Result<()> {
    if values.fold(true, |ok, v| ok & v.is_finite()) {
        return Ok(());
    }
    let (at, value) = values.iter().copied().enumerate().find(|(_, v)| !v.is_finite()).unwrap_or((0, f32::NAN));
    let cols = flat(values.shape()).1;
    Err(Error::NotFinite { what: format!("tensor {}", quoted(name)), row: at / cols, col: at % cols, value: f64::from(value) })
}
