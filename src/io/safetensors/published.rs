//! The layouts of published sparse checkpoints, `sparse-bitmask` and `sparse-24-bitmask` of compressed-tensors (read by its versions up to 0.12; later ones
//! have dropped them).
//!
//! ```text
//! of the weight fc.weight (R, C)     sparse-bitmask           sparse-24-bitmask
//! fc.shape         I64               [R, C]                   [[R], [C]]
//! fc.compressed    F32, F16, BF16    (kept), row by row       (R, C / 2): two of every four
//! fc.bitmask       U8                (R, ceil(C / 8)), least significant bit first, as Mask::to_bytes
//! fc.row_offsets   I64               (R): kept before a row   none
//! ```
//!
//! Their writer infers the mask from `w != 0`; what is written here is the mask itself, kept zeros too, which their reader takes as they are.
//! Names begin with the layer's, or in older files with the weight's own, `fc.weight.shape`: both are read, the first is written.

use super::checkpoint::{Checkpoint, Tensor};
use super::dtype::Dtype;
use crate::io::quoted;
use crate::mask::{Mask, Pattern};
use crate::{Error, Result};
use ::safetensors::tensor::Dtype as Element;
use ndarray::{Array1, Array2, ArrayRef2};

/// The tensors of a weight.
const PARTS: [&str; 4] = ["shape", "compressed", "bitmask", "row_offsets"];
const TWO_OF_FOUR: Pattern = Pattern::Nm { n: 2, m: 4 };

impl Checkpoint {
    /// Puts in what a mask keeps of the weight `name`, in the layout `sparse-bitmask`; a weight of that name in either layout is replaced.
    ///
    /// # Errors
    /// [`Error::Shape`] if the mask has another shape; [`Error::InvalidOption`] if a kept number is too large for `dtype`.
    pub fn insert_sparse_bitmask(&mut self, name: &str, weight: &ArrayRef2<f32>, mask: &Mask, dtype: Dtype) -> Result<()> {
        let compressed = kept_values(name, weight, mask)?;
        let mut before = 0i64;
        let offsets = mask.row_counts().into_iter().map(|count| {
            let offset = before;
            before += count as i64;
            offset
        });
        let row_offsets = integers(vec![mask.rows()], offsets);
        let layer = self.begin(name, mask, vec![2]);
        self.insert(&format!("{layer}.compressed"), compressed, dtype)?;
        self.put(format!("{layer}.row_offsets"), row_offsets);
        Ok(())
    }

    /// As [`Checkpoint::insert_sparse_bitmask`], in the layout `sparse-24-bitmask`.
    ///
    /// # Errors
    /// As there, and [`Error::Violation`] or [`Error::Pattern`] if the mask is not 2:4.
    pub fn insert_sparse_24_bitmask(&mut self, name: &str, weight: &ArrayRef2<f32>, mask: &Mask, dtype: Dtype) -> Result<()> {
        let compressed = kept_values(name, weight, mask)?;
        TWO_OF_FOUR.check(mask)?;
        let shape = (mask.rows(), mask.cols() / 2);
        let found = compressed.len();
        let compressed =
            compressed.into_shape_with_order(shape).map_err(|_| Error::shape("kept", &[shape.0, shape.1], &[found]))?;
        let layer = self.begin(name, mask, vec![2, 1]);
        self.insert(&format!("{layer}.compressed"), compressed, dtype)
    }

    /// The weight `name` of either layout, with zeros where its mask drops, and its mask.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if neither layout has it; [`Error::Malformed`] if a tensor is missing or of another type or shape, or they
    /// contradict one another.
    pub fn published(&self, name: &str) -> Result<(Array2<f32>, Mask)> {
        let prefixes = [layer(name), name];
        let Some(layer) = prefixes.into_iter().find(|p| self.contains(&format!("{p}.compressed"))) else {
            return Err(Error::unknown_layer(name, self.names()));
        };
        let part = |part: &str| format!("{layer}.{part}");
        let (_, shape) = self.integers(&part("shape"))?;
        let [rows, cols] = shape[..] else {
            return Err(self.malformed(&part("shape"), &format!("has {} numbers; a weight has rows and columns", shape.len())));
        };
        if u32::try_from(rows.max(cols)).is_err() {
            return Err(self.malformed(&part("shape"), &format!("says {rows} x {cols}, which is too large")));
        }
        let (bits, expected) = (self.needed(&part("bitmask"))?, [rows, cols.div_ceil(8)]);
        let bytes = match bits {
            Tensor::Opaque { element: Element::U8, shape, bytes } if *shape == expected => bytes,
            other => {
                let (element, found) = (other.element(), other.shape());
                let reason =
                    format!("is {element} of shape {found:?}; the mask of a {rows} x {cols} weight is U8 of {expected:?}");
                return Err(self.malformed(&part("bitmask"), &reason));
            }
        };
        let mask =
            Mask::from_bytes(rows, cols, bytes).map_err(|e| self.malformed(&part("bitmask"), &format!("is no mask: {e}")))?;
        let values = self.get(&part("compressed"))?;
        let refuse = |reason: String| Err(self.malformed(&part("compressed"), &reason));
        match values.shape() {
            [kept] if *kept == mask.kept() => self.check_offsets(&part("row_offsets"), &mask)?,
            [r, c] if (*r, *c) == (rows, cols / 2) => {
                if let Err(e) = TWO_OF_FOUR.check(&mask) {
                    return refuse(format!("is two of four, but the {e}"));
                }
            }
            other => {
                let kept = mask.kept();
                return refuse(format!("has shape {other:?}; the mask keeps {kept} of {rows} x {cols}"));
            }
        }
        let mut weight = Array2::zeros((rows, cols));
        mask.iter_kept().zip(values.iter()).for_each(|(at, value)| weight[at] = *value);
        Ok((weight, mask))
    }

    /// The weights of either layout, by the names under which [`Checkpoint::published`] gives them, in order.
    pub fn published_names(&self) -> Vec<String> {
        let whole = |layer: &&str| ["shape", "bitmask"].iter().all(|part| self.contains(&format!("{layer}.{part}")));
        let named = |layer: &str| if layer.ends_with(".weight") { layer.to_string() } else { format!("{layer}.weight") };
        self.names().filter_map(|n| n.strip_suffix(".compressed")).filter(whole).map(named).collect()
    }

    /// The name of the layout of a published weight: the values of 2:4 stand in rows of as many.
    pub(crate) fn published_layout(&self, name: &str) -> &'static str {
        let values = [layer(name), name].into_iter().find_map(|layer| self.info(&format!("{layer}.compressed")).ok());
        if values.is_some_and(|values| values.shape.len() == 2) { "sparse-24-bitmask" } else { "sparse-bitmask" }
    }

    /// Takes an earlier weight of the name away and puts shape and bits in.
    fn begin<'a>(&mut self, name: &'a str, mask: &Mask, shape: Vec<usize>) -> &'a str {
        for prefix in [layer(name), name] {
            if self.contains(&format!("{prefix}.compressed")) {
                PARTS.iter().for_each(|part| self.take(&format!("{prefix}.{part}")));
            }
        }
        let layer = layer(name);
        self.put(format!("{layer}.shape"), integers(shape, [mask.rows() as i64, mask.cols() as i64].into_iter()));
        let bits =
            Tensor::Opaque { element: Element::U8, shape: vec![mask.rows(), mask.cols().div_ceil(8)], bytes: mask.to_bytes() };
        self.put(format!("{layer}.bitmask"), bits);
        layer
    }

    fn needed(&self, name: &str) -> Result<&Tensor> {
        self.find(name).ok_or_else(|| self.malformed(name, "is missing"))
    }

    /// Whole numbers from 0 on, with the shape they have.
    fn integers(&self, name: &str) -> Result<(&[usize], Vec<usize>)> {
        let Tensor::Opaque { element: Element::I64, shape, bytes } = self.needed(name)? else {
            return Err(self.malformed(name, "is not I64"));
        };
        let numbers = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
        let checked =
            numbers.map(|n| usize::try_from(n).map_err(|_| self.malformed(name, &format!("holds {n}, which is no count"))));
        Ok((shape, checked.collect::<Result<_>>()?))
    }

    fn check_offsets(&self, name: &str, mask: &Mask) -> Result<()> {
        let (_, offsets) = self.integers(name)?;
        if offsets.len() != mask.rows() {
            return Err(self.malformed(name, &format!("has {} numbers for {} rows", offsets.len(), mask.rows())));
        }
        let mut before = 0;
        for (r, count) in mask.row_counts().into_iter().enumerate() {
            if offsets.get(r) != Some(&before) {
                return Err(
                    self.malformed(name, &format!("says {:?} of row {r}, before which {before} are kept", offsets.get(r)))
                );
            }
            before += count;
        }
        Ok(())
    }
}

/// The name of the layer of a weight.
fn layer(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// What a mask keeps of a weight, row by row.
fn kept_values(name: &str, weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Array1<f32>> {
    if mask.dim() != weight.dim() {
        let expected = [weight.nrows(), weight.ncols()];
        return Err(Error::shape(format!("mask of {}", quoted(name)), &expected, &[mask.rows(), mask.cols()]));
    }
    Ok(mask.iter_kept().map(|at| weight[at]).collect())
}

fn integers(shape: Vec<usize>, numbers: impl Iterator<Item = i64>) -> Tensor {
    Tensor::Opaque { element: Element::I64, shape, bytes: numbers.flat_map(i64::to_le_bytes).collect() }
}
