//! Empty slots of [`Sell`](crate::storage::Sell).

use std::fmt;

/// What a slot holds that has no weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slots {
    /// A zero: fewer instructions, for weights in the caches.
    #[default]
    Padded,
    /// Nothing, and a bit says so: fewer bytes, for weights that come from memory. AVX2 has no instruction for it.
    Packed,
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Slots::Padded { "padded" } else { "packed" })
    }
}
