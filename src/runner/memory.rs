//! Whether the kernel killed a process of the box for want of memory. Called by `supervisor`.
//!
//! On cgroup v1 only the process dies and the runner lives on; all that is left to see is a counter.
//!
//! **Invariant:** reads two small files of the kernel; what cannot be read counts as no kill.

use std::fs;

/// Where the box's own cgroup has its counters: v2, then v1.
const FILES: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// Processes of the box that were killed for want of memory so far.
pub(super) fn kills() -> u64 {
    FILES.iter().filter_map(|file| fs::read_to_string(file).ok()).find_map(|text| count(&text)).unwrap_or(0)
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        assert_eq!(count("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), Some(1));
        assert_eq!(count("under_oom 0\n"), None);
    }
}
