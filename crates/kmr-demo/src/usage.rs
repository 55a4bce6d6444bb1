//! CPU time and memory of this process, by the kernel's counters. Linux only.

use std::time::Duration;

/// Kernel ticks a second in `/proc`: `USER_HZ`, 100 on every Linux platform that Rust supports.
const TICKS: u64 = 100;

/// CPU time of all threads so far, user and system. Resolution 10 ms.
pub(crate) fn cpu_time() -> Option<Duration> {
    parse_cpu(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Peak resident memory, bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses. It may contain spaces: count after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

fn parse_status(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_parsed() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 8 0 100 1 1";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(3)));
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse_status(status, "VmHWM:"), Some(2 << 20));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_cpu_and_memory() {
        assert!(peak_memory().unwrap() > 1 << 20);
        assert!(cpu_time().is_some());
    }
}
