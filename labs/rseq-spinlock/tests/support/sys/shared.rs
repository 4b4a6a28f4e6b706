//! Counts in memory that outlives the processes that write there, and processes to be killed at it.
#![allow(unsafe_code, reason = "shared memory, and fork")]

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use rseq_spinlock::percpu::Count;

/// The words of a [`Count`]: its own, and padding.
pub type Words = [AtomicU64; size_of::<Count>() / 8];

/// `n` counts of 0, and the same memory as words. It stays mapped.
pub fn counts(n: usize) -> (&'static [Count], &'static [Words]) {
    let bytes = NonZeroUsize::new(n * size_of::<Count>()).expect("at least one");
    // SAFETY: a new mapping, placed by the kernel: it touches none that exists.
    let at = unsafe {
        mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)
    };
    let at = at.expect("memory for some pages");
    // SAFETY: a page holds `n` counts, aligned to more than 128 bytes; zero bytes are a count of 0; nothing unmaps
    // it; only atomics are reached through either view.
    let counts = unsafe { std::slice::from_raw_parts(at.as_ptr().cast::<Count>(), n) };
    // SAFETY: as above: the same memory, all atomics.
    let words = unsafe { std::slice::from_raw_parts(at.as_ptr().cast::<Words>(), n) };
    (counts, words)
}

/// A process that does one thing until it is killed, which is at drop.
pub struct Child(Pid);

impl Child {
    /// Forks. `again` must not allocate: another thread may have held the allocator's lock.
    pub fn fork(again: impl Fn()) -> Self {
        // SAFETY: the child calls `again`, which keeps to async-signal-safe functions, until it is killed.
        match unsafe { fork() }.expect("a process more") {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => {
                // SAFETY: prctl with integers only. We do not outlive the test.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                loop {
                    again();
                }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}
