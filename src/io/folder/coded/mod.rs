//! Weights of a folder in codes of a few bits, as other tools lay them.
//!
//! ```text
//! of the layer L, weight (out, in), b bits, groups of g inputs; words are I32
//! compressed-tensors   L.weight_packed (out, ⌈in b / 32⌉)   L.weight_scale (out, in/g)   L.weight_shape I64 (2)   L.weight_zero_point (⌈out b / 32⌉, in/g)
//! int-quantized        L.weight I8 (out, in)                L.weight_scale (out, in/g)                            L.weight_zero_point I8 (out, in/g)
//! gptq                 L.qweight (in b / 32, out)           L.scales F16 (in/g, out)     L.g_idx I32 (in)         L.qzeros (in/g, out b / 32)
//! awq                  L.qweight (in, out / 8)              L.scales F16 (in/g, out)                              L.qzeros (in/g, out / 8)
//! ```
//!
//! Codes fill words from the lowest bit on and go over from one word to the next (3 bits); AWQ's eight codes of a word stand in the order 0, 2, 4, 6, 1, 3, 5, 7.
//! compressed-tensors packs three bits so from its version 0.18 on; before, a word held ten such codes, and such files are refused by their shape, here and there.
//! GPTQ is written in its second version, where zero points stand as they are (`checkpoint_format: gptq_v2`); the first, which stores them less one, is read.
//! `quantization_config` of `config.json` says which layout it is.

mod bits;
mod scheme;
mod parts;

pub(super) use parts::{CodedParts, Decoded, Raw, encoded, planned};
pub use scheme::QuantLayout;
pub(crate) use scheme::check_quant_method;
pub(super) use scheme::{OWN, Scheme};
