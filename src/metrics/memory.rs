//! How much memory the process has taken.

/// The most bytes of memory that the process has held at once, as the system counts them; `None` where it does not say.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_grows_with_what_is_held() {
        let before = peak_memory();
        assert_eq!(before.is_some(), cfg!(target_os = "linux"));
        let held = vec![1u8; 64 << 20];
        assert!(peak_memory() >= before.map(|before| before.max(held.len() as u64)));
    }
}
