//! What a run costs beside time.

use std::fs;

/// Seconds that all threads of the process have run so far, as the system counts them; `None` where it does not say.
pub fn processor_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may hold anything; user and system time are the 12th and 13th field behind it, in hundredths.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// Joules that the processors' packages have taken so far, as they count them themselves (RAPL); `None` where the machine does not tell, or not
/// this user. The count begins anew now and then.
pub fn joules() -> Option<f64> {
    let zones = fs::read_dir("/sys/class/powercap").ok()?.flatten();
    let packages =
        zones.filter(|zone| fs::read_to_string(zone.path().join("name")).is_ok_and(|name| name.starts_with("package")));
    let energies: Vec<f64> = packages
        .map(|zone| fs::read_to_string(zone.path().join("energy_uj")).ok()?.trim().parse::<f64>().ok())
        .collect::<Option<_>>()?;
    (!energies.is_empty()).then(|| energies.iter().sum::<f64>() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_the_processors_passes_where_work_is_done() {
        assert_eq!(processor_seconds().is_some(), cfg!(target_os = "linux"));
        let Some(before) = processor_seconds() else { return };
        let begun = std::time::Instant::now();
        let mut sum = 0u64;
        while begun.elapsed().as_millis() < 60 {
            sum = std::hint::black_box(sum + 1);
        }
        let after = processor_seconds().unwrap();
        assert!(after > before && after < before + 60.0, "{before} to {after}");
    }
}
