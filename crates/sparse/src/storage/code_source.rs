//! The storage for weights that were made of codes.

use super::{
    ActivationBits, CodeLayout, Format, LinearOp, Machine, Parts, Precision, Quantized, QuantizedNm, QuantizedSparse, Slots,
    Stored,
};
use crate::mask::{Mask, Pattern};
use crate::{Error, Result};
use ndarray::ArrayRef2;

/// The patterns of which few bits have a storage, those that are others too first.
const PATTERNS: [(usize, usize); 6] = [(1, 2), (2, 4), (4, 8), (1, 4), (2, 8), (4, 16)];

/// Codes of 4 or 8 bits of which a weight was made: known, or to be found in its numbers. Nothing is rounded.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{ActivationBits, CodeSource, Format, Precision, Slots}};
/// use ndarray::Array2;
/// let (w, mask) = (Array2::from_shape_fn((2, 32), |(r, c)| 0.25 * ((r + c) % 7) as f32), Mask::from_fn(2, 32, |_, c| c % 2 == 0));
/// let parts = CodeSource::Numbers(&w).parts(&mask, Format::Sell(Slots::Padded))?.expect("multiples of a quarter");
/// assert_eq!(parts.into_storage()?.to_dense(), mask.applied(&w));
/// let (format, _, op) = CodeSource::Numbers(&w).storage(&mask, ActivationBits::Full).expect("likewise");
/// assert_eq!((format, op.to_dense()), (Format::Nm(1, 2), mask.applied(&w)));
/// assert!(CodeSource::Numbers(&w.mapv(|w| w.exp())).parts(&mask, Format::Nm(2, 4))?.is_none());
/// # Ok::<(), lacuna_sparse::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub enum CodeSource<'a> {
    /// A weight `(out, in)`, whose codes are found where it has some.
    Numbers(&'a ArrayRef2<f32>),
    /// The codes of what is kept.
    Kept(&'a QuantizedSparse),
}

impl CodeSource<'_> {
    fn nm(self, mask: &Mask, (n, m): (usize, usize)) -> Option<QuantizedNm> {
        match self {
            CodeSource::Numbers(weight) => QuantizedNm::exactly(weight, mask, (n, m)),
            CodeSource::Kept(codes) => QuantizedNm::of_kept(codes, (n, m)).ok(),
        }
    }

    fn sparse(self, mask: &Mask) -> Option<QuantizedSparse> {
        match self {
            CodeSource::Numbers(weight) => QuantizedSparse::exactly(weight, mask),
            CodeSource::Kept(codes) => Some(codes.clone()),
        }
    }

    /// All codes, where what is dropped has one that stands for 0.
    fn whole(self, mask: &Mask) -> Option<Quantized> {
        match self {
            CodeSource::Numbers(weight) => Quantized::exactly(&mask.applied(weight)),
            CodeSource::Kept(codes) => Quantized::of_kept(codes),
        }
    }

    /// What a mask keeps (of kept codes their own mask), in the storage that suits the mask and this machine, to be multiplied with activations of so many bits: N:M, else windows where few are kept, else
    /// all codes with zeros between them (which take no more time), else, where no code stands for 0, windows again. None if the weight has no codes.
    pub fn storage(self, mask: &Mask, activations: ActivationBits) -> Option<(Format, Precision, Box<dyn LinearOp>)> {
        let holds = |&(n, m): &(usize, usize)| {
            mask.cols() % m == 0 && mask.kept() * m == mask.len() * n && (Pattern::Nm { n, m }).check(mask).is_ok()
        };
        if let Some((n, m)) = PATTERNS.into_iter().find(holds)
            && let Some(op) = self.nm(mask, (n, m))
        {
            return Some((Format::Nm(n, m), op.precision(), Box::new(op.with_activation_bits(activations))));
        }
        let sparse = self.sparse(mask)?.with_activation_bits(activations);
        let values = sparse.precision();
        // Beyond these windows hold more bytes than all codes.
        let few = mask.kept() * 1000 < mask.len() * if Machine::here().expands { 400 } else { 300 };
        if !few && let Some(whole) = self.whole(mask) {
            return Some((
                Format::Dense,
                whole.precision(),
                Box::new(whole.with_kept(mask.kept()).with_activation_bits(activations)),
            ));
        }
        Some((Format::Sell(Slots::Padded), values, Box::new(sparse.with_layout(CodeLayout::Windows))))
    }

    /// What a mask keeps, as the named lists of a storage, as files hold it; none if the weight has no codes.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] of a storage that has no codes; if the mask has not the pattern of an N:M or block storage.
    pub fn parts(self, mask: &Mask, format: Format) -> Result<Option<Parts>> {
        let any = || self.sparse(mask).map(|op| op.to_parts());
        match format {
            Format::Nm(n, m) => {
                Pattern::Nm { n, m }.check(mask)?;
                Ok(self.nm(mask, (n, m)).map(|op| op.to_parts()))
            }
            Format::Bsr(rows, cols) => Pattern::Block { rows, cols }.check(mask).map(|()| any()),
            Format::Sell(_) | Format::Bitmask(_) => Ok(any()),
            _ => Err(Error::invalid_option(
                "format",
                format!("{format} has no codes of a few bits; sell, bitmask, nm and bsr have"),
            )),
        }
    }
}
