//! What a plan is made for.

use crate::Result;
use crate::kernels::CODE_BLOCK;
use crate::mask::Mask;
use crate::storage::{ActivationBits, Format, LinearOp, Precision};
use ndarray::ArrayRef2;

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// Tokens of a usual product.
    pub tokens: usize,
    /// Whether products of one token come as well: then they get a storage of their own where that is faster, and memory for both.
    pub single_too: bool,
    /// Whether the weight comes from memory at each product, as those of a model do that is larger than the caches; else the last cache is
    /// taken to hold it, if it can.
    pub from_memory: bool,
    /// What storages keep. A dense one keeps f32 where it has no such groups.
    pub values: Precision,
    /// Bits of activations in products with codes of four and eight bits.
    pub activation_bits: ActivationBits,
}

impl Hint {
    /// Products of so many tokens.
    pub fn tokens(tokens: usize) -> Hint {
        Hint { tokens, single_too: false, from_memory: false, values: Precision::F32, activation_bits: ActivationBits::Full }
    }

    /// Products of so many tokens, and of one.
    pub fn tokens_and_single(tokens: usize) -> Hint {
        Hint { single_too: true, ..Hint::tokens(tokens) }
    }

    /// The same, of weights that come from memory each time.
    pub fn from_memory(self) -> Hint {
        Hint { from_memory: true, ..self }
    }

    /// A storage with the numbers that it keeps.
    pub(super) fn build(self, format: Format, weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Box<dyn LinearOp>> {
        let values = self.values_in(format, weight.ncols());
        format.build_with(weight, mask, values, self.activation_bits)
    }

    /// The same with activations of so many bits.
    pub fn with_activation_bits(self, activation_bits: ActivationBits) -> Hint {
        Hint { activation_bits, ..self }
    }

    /// What a storage of rows of so many inputs keeps: [`Hint::values`], or f32 where a dense weight has no such groups.
    pub fn values_in(self, format: Format, inputs: usize) -> Precision {
        match (format, self.values.group()) {
            (Format::Csr, _) => Precision::F32,
            (Format::Dense, Some(group)) if group == 0 || group % CODE_BLOCK != 0 || inputs % group != 0 => Precision::F32,
            _ => self.values,
        }
    }

    /// Whether a product of one token is another one than the usual.
    pub(super) fn two(self) -> bool {
        self.single_too && self.tokens > 1
    }

    /// The same, of storages that keep other numbers than f32.
    pub fn with_values(self, values: Precision) -> Hint {
        Hint { values, ..self }
    }
}
