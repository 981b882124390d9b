//! Which instructions this machine has, and which of them `LACUNA_ISA` asks for.

use crate::{Error, Result};
use std::io::Write;
use std::sync::OnceLock;

/// The instructions that kernels are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// What every machine has.
    Portable,
    /// AVX2 with FMA, BMI, POPCNT and F16C, on x86-64.
    Avx2,
    /// AVX-512 F, VL, BW and DQ beside all of [`Isa::Avx2`].
    Avx512,
    /// NEON with fused multiply-adds, on aarch64: the portable kernels, compiled for it.
    Neon,
}

impl Isa {
    /// All of them, the slowest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512];

    /// The name in `LACUNA_ISA` and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    /// Whether this machine can run them.
    pub fn runs_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("popcnt")
                    && is_x86_feature_detected!("f16c")
            };
            let avx512 = || {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
            };
            match self {
                Isa::Portable => true,
                Isa::Avx2 => avx2(),
                Isa::Avx512 => avx2() && avx512(),
                Isa::Neon => false,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        match self {
            Isa::Portable => true,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            Isa::Avx2 | Isa::Avx512 => false,
        }
    }

    /// The best that this machine has.
    pub fn detected() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.runs_here()).unwrap_or(Isa::Portable)
    }

    /// Whether products of unsigned and signed bytes are added in 32 bits by one instruction of the current set: AVX-512 VNNI.
    pub(crate) fn multiplies_bytes() -> bool {
        #[cfg(target_arch = "x86_64")]
        return Isa::current() == Isa::Avx512 && is_x86_feature_detected!("avx512vnni");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether the current set permutes bytes and spreads them over a mask beside that: AVX-512 VBMI and VBMI2.
    pub(crate) fn expands_bytes() -> bool {
        #[cfg(target_arch = "x86_64")]
        return Isa::multiplies_bytes() && is_x86_feature_detected!("avx512vbmi") && is_x86_feature_detected!("avx512vbmi2");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether this processor gathers sixteen numbers in about the time of sixteen loads; some take almost twice that and are faster by
    /// single loads.
    pub(crate) fn gathers_fast() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            static INTEL: OnceLock<bool> = OnceLock::new();
            *INTEL.get_or_init(|| {
                // The name of the maker: "Genu", "ineI", "ntel".
                let found = std::arch::x86_64::__cpuid(0);
                [found.ebx, found.edx, found.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
            })
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// What `LACUNA_ISA` asks for, or the best that this machine has if it is unset or empty. A program that wants to refuse a value that
    /// cannot be met asks here before its first product, as the command does.
    ///
    /// # Errors
    /// If the value is no name of kernels, or names some that this machine cannot run.
    pub fn chosen() -> Result<Isa> {
        let asked = std::env::var_os("LACUNA_ISA").unwrap_or_default();
        let asked = asked.to_string_lossy();
        let refuse = |reason: &str| Err(Error::invalid_option("LACUNA_ISA", format!("{} {reason}", shown(&asked))));
        match Isa::ALL.into_iter().find(|isa| isa.name() == asked) {
            _ if asked.is_empty() => Ok(Isa::detected()),
            Some(isa) if isa.runs_here() => Ok(isa),
            Some(_) => refuse("kernels cannot run on this machine"),
            None => refuse("is none of portable, neon, avx2 and avx512"),
        }
    }

    /// As [`Isa::chosen`], read once a process. A product has nobody to give an error to: where the value cannot be met, the best that this
    /// machine has runs, and one line on standard error says so.
    #[inline]
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            Isa::chosen().unwrap_or_else(|e| {
                let isa = Isa::detected();
                // Whether anybody reads it is not ours to say.
                let _ = writeln!(std::io::stderr(), "warning: {e}; {} kernels run instead", isa.name());
                isa
            })
        })
    }
}

/// Threads that a pool may have.
const THREADS: usize = 1024;

/// Refuses variables of the environment that cannot be met, for programs that say so before they begin: `LACUNA_ISA` as [`Isa::chosen`] does,
/// and a `RAYON_NUM_THREADS` that the pool of threads would pass over (no number) or fail at (too many).
///
/// # Errors
/// If one of them cannot be met; it is named.
pub fn check_environment() -> Result<()> {
    Isa::chosen()?;
    let asked = std::env::var_os("RAYON_NUM_THREADS").unwrap_or_default();
    let asked = asked.to_string_lossy();
    if asked.is_empty() || asked.parse().is_ok_and(|threads: usize| threads <= THREADS) {
        return Ok(());
    }
    Err(Error::invalid_option("RAYON_NUM_THREADS", format!("{}, where 1 to {THREADS} are possible, or 0 for all", shown(&asked))))
}

/// A value, fit for a message of one line.
fn shown(value: &str) -> String {
    format!("'{}'", value.chars().take(40).flat_map(char::escape_debug).collect::<String>())
}
