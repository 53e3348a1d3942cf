//! What the kernel knows about a process: CPU time, memory, and how busy a core is.

use std::fs;
use std::io;

/// Clock ticks in `/proc/stat`, per second (fixed by Linux's ABI).
const TICKS_PER_SECOND: f64 = 100.0;

/// The process and all its descendants.
pub fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        for thread in threads(pid) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|text| text.parse::<u32>().ok()));
        }
    }
    found
}

fn threads(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Nanoseconds that all threads of these processes have run.
pub fn cpu_ns(pids: &[u32]) -> io::Result<u64> {
    let mut total = 0;
    for &pid in pids {
        for thread in threads(pid) {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat"))?;
            total += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(total)
}

/// Resident memory of these processes, in KiB.
pub fn rss_kib(pids: &[u32]) -> io::Result<u64> {
    let mut total = 0;
    for &pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
        total += line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

/// Seconds a core has been busy since the machine started.
pub fn core_busy_seconds(core: usize) -> io::Result<f64> {
    let name = format!("cpu{core}");
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name.as_str())).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((ticks.iter().sum::<u64>() - idle) as f64 / TICKS_PER_SECOND)
}

/// The middle of some figures.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(&upper), 0) => f64::midpoint(upper, sorted.get(middle - 1).copied().unwrap_or(upper)),
        (Some(&only), _) => only,
        (None, _) => f64::NAN,
    }
}
