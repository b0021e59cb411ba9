//! The memory that the devices of a process may take, shared by its engines.
//!
//! Whoever grows past it gives up what it holds, and says so: a process that is ended for want of memory would restore
//! the same devices again, and be ended again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The bound, and what is taken of it.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// How often a partition was given up, whose memory others may take.
    releases: AtomicU64,
}

/// There is not enough memory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its devices do not fit into the memory for devices, {limit} bytes in all engines together \
     (mapper.max_state_bytes); raise it, or start more mappers, so that each has fewer partitions"
)]
pub struct Exceeded {
    limit: usize,
}

impl Budget {
    /// So many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), releases: AtomicU64::new(0) })
    }

    /// A share of nothing yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    /// Changes whenever a partition has been given up.
    pub fn releases(&self) -> u64 {
        self.releases.load(Ordering::Acquire)
    }
}

/// What a partition takes of the budget; nothing, once it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Takes so many bytes, instead of those that it has taken before.
    ///
    /// # Errors
    /// When it grows and the budget is exceeded now. The bytes count all the same: whoever holds them has to let go of
    /// them. One that does not grow is not refused for another's growth.
    pub fn take(&mut self, bytes: usize) -> Result<(), Exceeded> {
        let Budget { used, limit, .. } = &*self.budget;
        let (more, grows) = (bytes.wrapping_sub(self.bytes), bytes > self.bytes);
        self.bytes = bytes;
        let used = used.fetch_add(more, Ordering::Relaxed).wrapping_add(more);
        if grows && used > *limit { Err(Exceeded { limit: *limit }) } else { Ok(()) }
    }

    /// The partition is given up: others that found no room may look again.
    pub fn release(self) {
        let budget = self.budget.clone();
        drop(self);
        budget.releases.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Half of the memory that this process may use: the other half is for Kafka's clients, and for a table that grows while
/// its predecessor is still there.
pub fn half_of_memory() -> usize {
    (memory(Path::new("/")).unwrap_or(usize::MAX) / 2).max(1)
}

/// What its cgroup or the machine has, whichever is less, in bytes; `root` is where `/proc` and `/sys` are.
fn memory(root: &Path) -> Option<usize> {
    let read = |path: &Path| std::fs::read_to_string(root.join(path)).ok();
    let meminfo = read(Path::new("proc/meminfo")).unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    let total = total.and_then(|kib| Some(kib.trim().parse::<usize>().ok()? * 1024));
    let cgroups = read(Path::new("proc/self/cgroup")).unwrap_or_default();
    let limits = cgroups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let own = Path::new(mount).join(path.trim_start_matches('/'));
        // Every group above has a say, too. Within a container the path may be that of the host: then the mount counts.
        let groups = own.ancestors().take_while(|group| group.starts_with(mount));
        groups.filter_map(|group| read(&group.join(file))?.trim().parse().ok()).min()
    });
    limits.chain(total).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_take_from_one_budget_until_it_is_exceeded() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert_eq!(one.take(60), Ok(()));
        assert_eq!(other.take(40), Ok(()));
        let exceeded = other.take(41).unwrap_err();
        assert!(exceeded.to_string().contains("100 bytes") && exceeded.to_string().contains("mapper.max_state_bytes"));
        // It counts until it is let go of; whoever has not grown has nothing to do with it.
        assert_eq!(one.take(60), Ok(()));
        assert_eq!(one.take(59), Ok(()));
        assert!(one.take(61).is_err());
        assert_eq!(one.take(60), Ok(()));
        assert_eq!(other.take(0), Ok(()));
        assert_eq!(one.take(100), Ok(()));
        assert_eq!(one.take(20), Ok(()));
        assert_eq!(other.take(80), Ok(()));
    }

    #[test]
    fn only_a_partition_that_is_given_up_lets_others_look_again() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (budget.share(), budget.share());
        one.take(100).unwrap();
        let before = budget.releases();
        other.take(1).unwrap_err();
        drop(other);
        assert_eq!(budget.releases(), before);
        one.release();
        assert_ne!(budget.releases(), before);
        assert_eq!(budget.share().take(100), Ok(()));
    }

    fn machine(files: &[(&str, &str)]) -> Option<usize> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        memory(root.path())
    }

    #[test]
    fn the_least_of_machine_and_cgroups_is_what_there_is() {
        let total = ("proc/meminfo", "MemTotal:        1000 kB\nMemFree:          10 kB\n");
        let total_bytes = Some(1000 * 1024);
        assert_eq!(machine(&[]), None);
        assert_eq!(machine(&[total]), total_bytes);
        let second = ("proc/self/cgroup", "0::/pod/container\n");
        assert_eq!(machine(&[total, second, ("sys/fs/cgroup/pod/container/memory.max", "max\n")]), total_bytes);
        assert_eq!(machine(&[total, second, ("sys/fs/cgroup/pod/container/memory.max", "5000\n")]), Some(5000));
        assert_eq!(machine(&[total, second, ("sys/fs/cgroup/pod/memory.max", "4000\n")]), Some(4000));
        // Seen from within a container, whose own group is the root.
        assert_eq!(machine(&[total, second, ("sys/fs/cgroup/memory.max", "3000\n")]), Some(3000));
        let first = ("proc/self/cgroup", "3:cpu,cpuacct:/c\n2:memory:/docker/1\n0::/\n");
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(machine(&[total, first, unlimited]), total_bytes);
        let limited = ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "2000\n");
        assert_eq!(machine(&[total, first, unlimited, limited]), Some(2000));
        assert!(half_of_memory() < usize::MAX / 2, "this machine tells");
    }
}
