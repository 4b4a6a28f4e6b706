//! Per-CPU data: each CPU has its own slot, and rseq makes sure that nobody else is in ours.
//!
//! | file | sections | replaces |
//! | --- | --- | --- |
//! | `counter` | add | one shared atomic |
//! | `freelist` | push, pop | a locked or lock-free LIFO, without ABA |
//! | `ring` | push, pop | a locked queue |
//! | `lock` | take | an atomic swap: the release is a store anyway |
//!
//! Reading *all* slots is the dear side: a sum is a walk, and emptying another CPU's slot takes
//! membarrier(2).

mod counter;
mod freelist;
mod lock;
mod ring;

use crate::sys::rseq::{RseqError, Thread};
use crate::sys::sections::{ByCid, ByCpu, Index};

pub use counter::{Count, Counter};
pub use freelist::{FreeList, Link, List};
pub use lock::{CpuGuard, CpuLock, Held};
pub use ring::{RING, Ring, Rings};

/// How many slots to have when indexing by CPU: one more than the highest CPU number that can ever be.
///
/// `/sys/devices/system/cpu/possible` counts CPUs that are offline or forbidden to us: a cpuset may change
/// while we run. Where it cannot be read: the configured count of sysconf(3), which is why sections check the
/// index.
pub fn possible_cpus() -> usize {
    std::fs::read_to_string("/sys/devices/system/cpu/possible")
        .ok()
        .and_then(|list| last_cpu(&list))
        .map_or_else(configured, |last| last + 1)
}

fn configured() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF).ok().flatten().map_or(1, |n| n as usize)
}

/// The last number of a CPU list: `0-3,8` gives 8.
fn last_cpu(list: &str) -> Option<usize> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

/// Checks that this thread can use sections with index `I`.
///
/// # Errors
/// No rseq, or `mm_cid` is asked for and the kernel does not keep it (before Linux 6.3).
pub fn usable<I: Index>() -> Result<Thread, RseqError> {
    let thread = Thread::current()?;
    thread.place().keeps(I::FIELD as u32 + 4)?;
    Ok(thread)
}

/// Slots for `n` indices.
fn slots<T>(n: usize, new: impl Fn() -> T) -> Box<[T]> {
    (0..n.max(1)).map(|_| new()).collect()
}

/// How often an operation was aborted before it was done.
pub type Aborts = u32;

/// Shorthands for the two ways to index.
pub type CounterByCpu = Counter<ByCpu>;
/// See [`CounterByCpu`].
pub type CounterByCid = Counter<ByCid>;

#[cfg(test)]
mod tests {
    use super::last_cpu;

    #[test]
    fn the_last_cpu_of_a_list() {
        assert_eq!(last_cpu("0\n"), Some(0));
        assert_eq!(last_cpu("0-1\n"), Some(1));
        assert_eq!(last_cpu("0-3,8\n"), Some(8));
        assert_eq!(last_cpu(""), None);
        assert_eq!(last_cpu("none"), None);
    }
}
