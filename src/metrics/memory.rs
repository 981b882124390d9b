//! How much memory the process has taken, and how much there is to take.

use std::fs;
use std::path::{Path, PathBuf};

/// The most bytes of memory that the process has held at once, as the system counts them; `None` where it does not say.
pub fn peak_memory() -> Option<u64> {
    bytes_of(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The bytes of memory that are free to take: those that the system can give without swapping, or those that the control groups of the
/// process leave, if they are fewer. `None` where the system says neither.
pub fn available_memory() -> Option<u64> {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|text| bytes_of(&text, "MemAvailable:"));
    let groups = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| left_by_groups(Path::new("/sys/fs/cgroup"), &text));
    match (system, groups) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The bytes behind a key of a list like `MemAvailable:  1024 kB`.
fn bytes_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The fewest bytes that any of the groups of a process leaves: `list` is its `/proc/self/cgroup`, `root` where groups are mounted. Pages
/// of files that nobody has read lately count as free, since the system takes them first.
fn left_by_groups(root: &Path, list: &str) -> Option<u64> {
    let of_line = |line: &str| -> Option<u64> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (top, limit, usage, idle) = match controllers {
            "" => (root.to_path_buf(), "memory.max", "memory.current", "inactive_file "),
            c if c.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
            }
            _ => return None,
        };
        let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let left = |folder: &Path| -> Option<u64> {
            // "max" is no number: such a group has no limit.
            let limit = number(folder.join(limit))?;
            let used = number(folder.join(usage))?;
            let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let idle = stat.lines().find_map(|l| l.strip_prefix(idle)?.trim().parse::<u64>().ok()).unwrap_or(0);
            Some(limit.saturating_sub(used.saturating_sub(idle)))
        };
        let own = top.join(path.trim_start_matches('/'));
        own.ancestors().take_while(|folder| folder.starts_with(&top)).filter_map(left).min()
    };
    list.lines().filter_map(of_line).min()
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

    #[test]
    fn what_is_free_is_said_on_linux_and_lies_within_what_a_machine_has() {
        let free = available_memory();
        assert_eq!(free.is_some(), cfg!(target_os = "linux"));
        assert!(free.is_none_or(|free| free < 1 << 50), "{free:?}");
    }

    #[test]
    fn the_tightest_group_counts_and_idle_pages_of_files_are_free() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let left = |list: &str| left_by_groups(folder.path(), list);
        assert_eq!(left("0::/user/job\n"), None, "no group is there");
        write("user/memory.max", "1000\n");
        write("user/memory.current", "700\n");
        write("user/job/memory.max", "max\n");
        write("user/job/memory.current", "600\n");
        assert_eq!(left("0::/user/job\n"), Some(300), "a group without a limit has that of the group above");
        write("user/memory.stat", "anon 600\ninactive_file 50\nactive_file 9\n");
        assert_eq!(left("0::/user/job\n"), Some(350));
        write("user/job/memory.max", "610\n");
        assert_eq!(left("0::/user/job\n"), Some(10));
        assert_eq!(left("0::/\n"), None);
        write("memory/docker/memory.limit_in_bytes", "500\n");
        write("memory/docker/memory.usage_in_bytes", "900\n");
        assert_eq!(left("5:cpu,cpuacct:/docker\n4:memory:/docker\n"), Some(0), "what is over the limit leaves nothing");
    }
}
