//! Which instructions this machine has, and which of them `LACUNA_ISA` asks for.

use crate::{Error, Result};
use std::sync::OnceLock;

/// The instructions that kernels are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// What every machine has.
    Portable,
    /// AVX2 with FMA, on x86-64.
    Avx2,
}

impl Isa {
    /// The name in `LACUNA_ISA` and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
        }
    }

    /// The best that this machine has.
    pub fn detected() -> Isa {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Isa::Avx2;
        }
        Isa::Portable
    }

    /// What `LACUNA_ISA` asks for, or the best that this machine has if it is unset or empty.
    ///
    /// # Errors
    /// If the value is no name of kernels, or names some that this machine cannot run.
    pub fn chosen() -> Result<Isa> {
        let asked = std::env::var("LACUNA_ISA").unwrap_or_default();
        let refuse = |reason: &str| Err(Error::setting("LACUNA_ISA", format!("'{asked}' {reason}")));
        match asked.as_str() {
            "" => Ok(Isa::detected()),
            "portable" => Ok(Isa::Portable),
            "avx2" if Isa::detected() == Isa::Avx2 => Ok(Isa::Avx2),
            "avx2" => refuse("kernels cannot run on this machine"),
            _ => refuse("is neither portable nor avx2"),
        }
    }

    /// As [`Isa::chosen`], read once a process.
    ///
    /// # Panics
    /// If `LACUNA_ISA` cannot be met.
    pub(crate) fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| Isa::chosen().unwrap_or_else(|e| panic!("{e}")))
    }
}
