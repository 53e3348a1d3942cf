//! What the operating system says about this process, read from `/proc` when asked.

use serde::Serialize;

/// Clock ticks per second in `/proc/self/stat`: part of Linux's interface, the same on every architecture Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures of this process. What cannot be read is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProcessSnapshot {
    /// Memory in RAM.
    pub resident_bytes: Option<u64>,
    /// Address space.
    pub virtual_bytes: Option<u64>,
    /// CPU time used, user and system.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Soft limit of open file descriptors.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl ProcessSnapshot {
    /// Reads the figures; a few small files, some 50 µs.
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            resident_bytes: status_field(&status, "VmRSS:").map(|kib| kib * 1024),
            virtual_bytes: status_field(&status, "VmSize:").map(|kib| kib * 1024),
            cpu_seconds: cpu_ticks(&stat).map(|ticks| ticks as f64 / TICKS_PER_SECOND),
            open_fds: open_fds(),
            max_fds: soft_limit_of_files(&limits),
            threads: status_field(&status, "Threads:"),
        }
    }
}

fn status_field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// `utime` + `stime`: the 14th and 15th field. The second, the command, may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn soft_limit_of_files(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

/// Since Linux 6.2 the directory's size is the number of its entries; before, they are counted.
fn open_fds() -> Option<u64> {
    let size = std::fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 { Some(size) } else { Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_where_linux_puts_them() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("garbage"), None);
        assert_eq!(status_field("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(status_field("", "VmRSS:"), None);
        let limits = "Limit Soft Limit Hard Limit Units\nMax open files            1024        4096       files\n";
        assert_eq!(soft_limit_of_files(limits), Some(1024));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_files_and_threads() {
        let process = ProcessSnapshot::read();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!(process.open_fds.unwrap() >= 3);
        assert!(process.threads.unwrap() >= 1);
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap());
        assert!(process.cpu_seconds.is_some());
    }
}
