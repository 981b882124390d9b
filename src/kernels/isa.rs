//! Which instructions this machine has, and which of them `LACUNA_ISA` allows.

use std::sync::OnceLock;

/// Whether kernels for AVX2 with FMA may run.
#[cfg(target_arch = "x86_64")]
pub(crate) fn avx2() -> bool {
    static AVX2: OnceLock<bool> = OnceLock::new();
    *AVX2.get_or_init(|| {
        let allowed = std::env::var("LACUNA_ISA").map_or(true, |isa| isa != "portable");
        allowed && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    })
}
