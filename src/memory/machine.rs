//! Memory that the machine leaves to the process: its RAM, its cgroups, and its limits.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// Memory available to this process, bytes: the minimum of half the RAM (the machine runs other programs), of
/// the limits of its cgroup and that one's ancestors, and of its limits of address space and data.
pub fn available() -> usize {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let ram = ram_of(&file("/proc/meminfo")).map(|ram| ram / 2);
    let own = file("/proc/self/cgroup");
    let groups = cgroup_limit(Path::new("/sys/fs/cgroup"), &own);
    let limits = [Resource::As, Resource::Data].into_iter().filter_map(|limit| getrlimit(limit).current);
    let least = ram.into_iter().chain(groups).chain(limits).min().unwrap_or(u64::MAX);
    usize::try_from(least).unwrap_or(usize::MAX)
}

/// `MemTotal` of `/proc/meminfo`, bytes.
fn ram_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest limit of the cgroups that `own` (`/proc/self/cgroup`) names and their ancestors, in a tree
/// mounted at `root`. In a container the tree may begin at its own group while the name is the host's:
/// missing ones are skipped.
fn cgroup_limit(root: &Path, own: &str) -> Option<u64> {
    let limits = own.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, files) = match controllers {
            "" => (root.to_owned(), &["memory.max", "memory.high"][..]),
            _ if controllers.split(',').any(|it| it == "memory") => {
                (root.join("memory"), &["memory.limit_in_bytes"][..])
            }
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        let groups = group.ancestors().take_while(|group| group.starts_with(&root));
        groups.flat_map(|group| files.iter().filter_map(|file| limit_in(&group.join(file)))).min()
    });
    limits.min()
}

/// The limit in that file; `max` means none.
fn limit_in(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::{available, cgroup_limit, ram_of};

    #[test]
    fn ram_is_read_from_meminfo() {
        let meminfo = "MemTotal:         246820 kB\nMemFree:          1 kB\n";
        assert_eq!(ram_of(meminfo), Some(246_820 * 1024));
        for odd in ["", "MemTotal:", "MemTotal: x kB", "MemTotal: 1 MB", "MemTotal: 99999999999999999999 kB"]
        {
            assert_eq!(ram_of(odd), None, "{odd:?}");
        }
        assert!(available() > 0);
    }

    #[test]
    fn cgroup_limit_is_the_least_of_the_group_and_those_above_it() {
        let root = env::temp_dir().join(format!("ai-proxy-cgroup-{}", process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        };
        let limit = |own: &str| cgroup_limit(&root, own);
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/memory.max", "300\n");
        assert_eq!(limit("0::/a/b\n"), Some(300));
        write("a/b/memory.high", "200\n");
        assert_eq!(limit("0::/a/b\n"), Some(200));
        // The name is the host's, the tree the container's.
        write("memory.max", "250\n");
        assert_eq!(limit("0::/docker/0123\n"), Some(250));
        write("memory/c/memory.limit_in_bytes", "100\n");
        assert_eq!(limit("5:cpu,cpuacct:/c\n4:memory:/c\n0::/a/b\n"), Some(100));
        assert_eq!(limit("4:hugetlb,memory:/c/d\n"), Some(100));
        assert_eq!(limit("5:cpu:/c\n\n:\nodd\n"), None);
        // No name escapes the tree.
        assert_eq!(limit("0::/../../../../a\n"), limit("0::/\n"));
        fs::remove_dir_all(&root).expect("removed");
    }
}
