//! The storage for weights that were made of codes.

use super::{ActivationBits, CodeLayout, Format, LinearOp, Machine, Precision, Quantized, QuantizedNm, QuantizedSparse, Slots};
use crate::mask::{Mask, Pattern};
use ndarray::ArrayRef2;

/// The patterns of which few bits have a storage, those that are others too first.
const PATTERNS: [(usize, usize); 6] = [(1, 2), (2, 4), (4, 8), (1, 4), (2, 8), (4, 16)];

/// The codes that what a mask keeps of a weight was made of, in the storage that suits the mask and this machine, to be multiplied with activations of so many bits: N:M,
/// else windows where few are kept, else all codes with zeros between them (which take no more time), else, where no code stands for 0, windows again. None if the
/// weight has no codes.
pub fn exact_codes(
    weight: &ArrayRef2<f32>,
    mask: &Mask,
    activations: ActivationBits,
) -> Option<(Format, Precision, Box<dyn LinearOp>)> {
    let holds = |&(n, m): &(usize, usize)| {
        mask.cols() % m == 0 && mask.kept() * m == mask.len() * n && (Pattern::Nm { n, m }).check(mask).is_ok()
    };
    if let Some((n, m)) = PATTERNS.into_iter().find(holds)
        && let Some(op) = QuantizedNm::exactly(weight, mask, (n, m))
    {
        return Some((Format::Nm(n, m), op.precision(), Box::new(op.with_activation_bits(activations))));
    }
    let sparse = QuantizedSparse::exactly(weight, mask)?.with_activation_bits(activations);
    let values = sparse.precision();
    // Beyond these windows hold more bytes than all codes.
    let few = mask.kept() * 1000 < mask.len() * if Machine::here().expands { 400 } else { 300 };
    if !few && let Some(whole) = Quantized::exactly(&mask.applied(weight)) {
        return Some((
            Format::Dense,
            whole.precision(),
            Box::new(whole.with_kept(mask.kept()).with_activation_bits(activations)),
        ));
    }
    Some((Format::Sell(Slots::Padded), values, Box::new(sparse.with_layout(CodeLayout::Windows))))
}
