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
    of_machine("MemAvailable:", |group| group.limit.saturating_sub(group.used))
}

/// The bytes of memory that there are for the process at all: those of the machine, or those that its control groups may have, if they are
/// fewer. `None` where the system says neither.
pub fn machine_memory() -> Option<u64> {
    of_machine("MemTotal:", |group| group.limit)
}

/// The fewest bytes of those behind a key of the system's list and those of the groups of the process.
fn of_machine(key: &str, of_group: impl Fn(&Group) -> u64) -> Option<u64> {
    let system = fs::read_to_string("/proc/meminfo").ok().and_then(|text| bytes_of(&text, key));
    let groups = fs::read_to_string("/proc/self/cgroup").ok();
    let groups = groups.and_then(|text| groups_of(Path::new("/sys/fs/cgroup"), &text).iter().map(of_group).min());
    match (system, groups) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A control group with a limit.
struct Group {
    limit: u64,
    /// Without pages of files that nobody has read lately, since the system takes them first.
    used: u64,
}

/// The bytes behind a key of a list like `MemAvailable:  1024 kB`.
fn bytes_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The groups of a process that have a limit: `list` is its `/proc/self/cgroup`, `root` where groups are mounted.
fn groups_of(root: &Path, list: &str) -> Vec<Group> {
    let of_line = |line: &str| -> Option<Vec<Group>> {
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
        let group = |folder: &Path| -> Option<Group> {
            // "max" is no number: such a group has no limit.
            let limit = number(folder.join(limit))?;
            let used = number(folder.join(usage))?;
            let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let idle = stat.lines().find_map(|l| l.strip_prefix(idle)?.trim().parse::<u64>().ok()).unwrap_or(0);
            Some(Group { limit, used: used.saturating_sub(idle) })
        };
        let own = top.join(path.trim_start_matches('/'));
        Some(own.ancestors().take_while(|folder| folder.starts_with(&top)).filter_map(group).collect())
    };
    list.lines().filter_map(of_line).flatten().collect()
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
        let (free, all) = (available_memory(), machine_memory());
        assert_eq!((free.is_some(), all.is_some()), (cfg!(target_os = "linux"), cfg!(target_os = "linux")));
        assert!(all.is_none_or(|all| all < 1 << 50) && free <= all, "{free:?} of {all:?}");
    }

    #[test]
    fn the_tightest_group_counts_and_idle_pages_of_files_are_free() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let left = |list: &str| groups_of(folder.path(), list).iter().map(|g| g.limit.saturating_sub(g.used)).min();
        assert_eq!(left("0::/user/job\n"), None, "no group is there");
        write("user/memory.max", "1000\n");
        write("user/memory.current", "700\n");
        write("user/job/memory.max", "max\n");
        write("user/job/memory.current", "600\n");
        assert_eq!(groups_of(folder.path(), "0::/user/job\n")[0].limit, 1000);
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
