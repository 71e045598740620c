//! Figures of a process and of the machine, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// CPU time that the threads of a process, or of several, have used.
pub struct CpuTime {
    /// Per thread, in nanoseconds.
    threads: BTreeMap<u32, u64>,
    /// Of the whole process, threads that ended included; coarser than `threads`.
    total_ns: u64,
}

/// USER_HZ, which is 100 on every Linux that Rust supports.
const NS_PER_TICK: u64 = 10_000_000;

/// The processes to measure.
#[derive(Clone, Copy)]
pub enum Processes {
    One(u32),
    /// The process and all its living descendants.
    Tree(u32),
}

impl Processes {
    fn pids(self) -> io::Result<Vec<u32>> {
        match self {
            Processes::One(pid) => Ok(vec![pid]),
            Processes::Tree(root) => Ok(descendants(root, &parents()?)),
        }
    }
}

/// (process, its parent) of all processes.
fn parents() -> io::Result<Vec<(u32, u32)>> {
    let mut pairs = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the listing and the reading.
        if let Ok(parent) = stat_words(pid, 1, 1) {
            pairs.push((pid, parent as u32));
        }
    }
    Ok(pairs)
}

/// `root` and all its descendants.
pub fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// The sum of `count` numbers in a process's `stat`, the first of them `skip` words behind the name.
fn stat_words(pid: u32, skip: usize, count: usize) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold blanks and parentheses.
    let words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    Ok(words.skip(skip).take(count).filter_map(|word| word.parse::<u64>().ok()).sum())
}

impl CpuTime {
    pub fn now(processes: Processes) -> io::Result<CpuTime> {
        let mut sum = CpuTime { threads: BTreeMap::new(), total_ns: 0 };
        for pid in processes.pids()? {
            match CpuTime::of(pid) {
                Ok(one) => {
                    sum.threads.extend(one.threads);
                    sum.total_ns += one.total_ns;
                }
                // It has ended since it was listed: its time counts for its parent.
                Err(_) if matches!(processes, Processes::Tree(root) if root != pid) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    fn of(pid: u32) -> io::Result<CpuTime> {
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
        // utime, stime, and both of children that have ended.
        Ok(CpuTime { threads, total_ns: stat_words(pid, 11, 4)? * NS_PER_TICK })
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

/// Memory of a process, or the sum of several, in KiB.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Resident pages, shared ones in full.
    pub rss_kib: u64,
    /// Resident pages, shared ones in part: the fairer figure where libraries are shared.
    pub pss_kib: u64,
}

impl Memory {
    pub fn now(processes: Processes) -> io::Result<Memory> {
        let mut sum = Memory { rss_kib: 0, pss_kib: 0 };
        for pid in processes.pids()? {
            sum.rss_kib += field(&format!("/proc/{pid}/status"), "VmRSS:")?;
            sum.pss_kib += field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
        }
        Ok(sum)
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
