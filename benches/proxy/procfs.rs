//! What /proc tells about a process and the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// CPU time that the threads of a process have used.
pub struct CpuTime {
    /// Per thread, in nanoseconds.
    threads: BTreeMap<u32, u64>,
    /// Of the whole process, threads that ended included; coarser than `threads`.
    total_ns: u64,
}

/// USER_HZ, which is 100 on every Linux that Rust supports.
const NS_PER_TICK: u64 = 10_000_000;

impl CpuTime {
    pub fn now(pid: u32) -> io::Result<CpuTime> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(path.join("schedstat")) else {
                continue;
            };
            let tid = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let run_ns = text.split(' ').next().and_then(|word| word.parse().ok());
            if let (Some(tid), Some(run_ns)) = (tid, run_ns) {
                threads.insert(tid, run_ns);
            }
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may hold blanks: utime and stime are the 12th and 13th word behind it.
        let words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks = words.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
        Ok(CpuTime { threads, total_ns: ticks * NS_PER_TICK })
    }

    /// Nanoseconds used since `earlier`.
    pub fn since(&self, earlier: &CpuTime) -> u64 {
        let all_live_on = earlier.threads.keys().all(|tid| self.threads.contains_key(tid));
        if !all_live_on || self.threads.is_empty() {
            return self.total_ns.saturating_sub(earlier.total_ns);
        }
        let sum = |time: &CpuTime| time.threads.values().sum::<u64>();
        sum(self).saturating_sub(sum(earlier))
    }
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Resident pages, shared ones in full.
    pub rss_kib: u64,
    /// Resident pages, shared ones in part: the fairer figure where libraries are shared.
    pub pss_kib: u64,
}

impl Memory {
    pub fn now(pid: u32) -> io::Result<Memory> {
        Ok(Memory {
            rss_kib: field(&format!("/proc/{pid}/status"), "VmRSS:")?,
            pss_kib: field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?,
        })
    }
}

/// The number behind `name` in a file of `name: number` lines.
fn field(path: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no {name} in {path}")))
}

/// CPU time that the whole machine has spent busy, in nanoseconds over all cores.
pub fn machine_busy_ns() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|w| w.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal …; guest time is inside user.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| ticks.get(index)).sum::<u64>();
    Ok(busy * NS_PER_TICK)
}

/// `model name` of the first core.
pub fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name.trim()).to_string()
}

pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string()
}
