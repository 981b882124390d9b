//! What a cost model has to know of the machine.

use crate::kernels::Isa;
use std::sync::OnceLock;

/// Caches of one core and the instructions that kernels use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Instructions.
    pub isa: Isa,
    /// Whether sixteen numbers are gathered faster than loaded one by one.
    pub gathers: bool,
    /// Whether products of bytes are added in 32 bits by one instruction, AVX-512 VNNI.
    pub multiplies: bool,
    /// Whether bytes are spread over the columns of a mask by one instruction, AVX-512 VBMI2.
    pub expands: bool,
    /// Bytes of the first data cache.
    pub l1: usize,
    /// Bytes of the second cache.
    pub l2: usize,
    /// Bytes of the last cache.
    pub l3: usize,
}

impl Machine {
    /// This machine. Caches that the system does not tell of are taken for 32 KiB, 512 KiB and 8 MiB.
    pub fn here() -> Machine {
        static HERE: OnceLock<Machine> = OnceLock::new();
        *HERE.get_or_init(|| {
            let level = |level: usize| {
                (0..8).find_map(|i| {
                    let read =
                        |what: &str| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{i}/{what}")).ok();
                    let right = read("level")?.trim().parse() == Ok(level) && read("type")?.trim() != "Instruction";
                    let size = read("size")?;
                    let number: usize = size.trim().trim_end_matches(['K', 'M']).parse().ok()?;
                    let unit = if size.trim().ends_with('M') { 1 << 20 } else { 1 << 10 };
                    right.then_some(number * unit)
                })
            };
            Machine {
                isa: Isa::current(),
                gathers: Isa::current() == Isa::Avx512 && Isa::gathers_fast(),
                multiplies: Isa::multiplies_bytes(),
                expands: Isa::expands_bytes(),
                l1: level(1).unwrap_or(32 << 10),
                l2: level(2).unwrap_or(512 << 10),
                l3: level(3).unwrap_or(8 << 20),
            }
        })
    }
}
