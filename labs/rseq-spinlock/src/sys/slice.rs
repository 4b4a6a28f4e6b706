//! Time-slice extension: "not now, I hold a lock". Linux 7.0, `CONFIG_RSEQ_SLICE_EXTENSION`.
//!
//! Kernel: `Documentation/userspace-api/rseq.rst`. A thread sets `slice_ctrl.request` before its section.
//! When its slice ends inside, the kernel may clear the request, set `granted` and let it run on for some
//! microseconds; the thread thanks with `rseq_slice_yield`. If it is taken off all the same, the kernel clears
//! `granted`. Kernels before 7.0 answer EINVAL.
//!
//! No such kernel was at hand when this was written: the tests play its part.
#![allow(unsafe_code, reason = "a prctl and a system call that libc does not know")]

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering, compiler_fence};

use kit::SysError;

use super::rseq::{self, Thread};

const PR_RSEQ_SLICE_EXTENSION: libc::c_int = 79;
const PR_RSEQ_SLICE_EXTENSION_SET: libc::c_ulong = 2;
const PR_RSEQ_SLICE_EXT_ENABLE: libc::c_ulong = 1;
const SYS_RSEQ_SLICE_YIELD: libc::c_long = 471;

/// `struct rseq_slice_ctrl`: four bytes of which we write the first and the kernel both.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SliceCtrl {
    request: AtomicU8,
    granted: AtomicU8,
    reserved: AtomicU16,
}

impl SliceCtrl {
    /// Nothing asked, nothing granted.
    pub const fn new() -> Self {
        Self { request: AtomicU8::new(0), granted: AtomicU8::new(0), reserved: AtomicU16::new(0) }
    }

    /// Asks. The kernel looks from this CPU only: program order is all the order that is needed.
    #[inline]
    fn ask(&self) {
        self.request.store(1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Asks no longer.
    #[inline]
    fn withdraw(&self) {
        compiler_fence(Ordering::SeqCst);
        self.request.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Whether we run on somebody else's time. Only after [`withdraw`](Self::withdraw) can no grant come any
    /// more.
    #[inline]
    fn is_granted(&self) -> bool {
        self.granted.load(Ordering::Relaxed) != 0
    }
}

/// Set once a thread may ask, and for ever. A thread that may not asks in vain: the kernel does not look.
static ON: AtomicBool = AtomicBool::new(false);

/// How many grants were given back, by all threads.
static GRANTS: AtomicU64 = AtomicU64::new(0);

/// Asks for time, if anyone has turned that on. Call [`withdraw`] after the section, which must be short, and
/// not the middle of another.
#[inline]
pub fn ask() {
    if ON.load(Ordering::Relaxed)
        && let Some(ctrl) = rseq::slice_ctrl()
    {
        ctrl.ask();
    }
}

/// Takes back what [`ask`] did, and yields if time was granted.
#[inline]
pub fn withdraw() {
    if ON.load(Ordering::Relaxed)
        && let Some(ctrl) = rseq::slice_ctrl()
    {
        ctrl.withdraw();
        if ctrl.is_granted() {
            give_back();
        }
    }
}

#[cold]
fn give_back() {
    GRANTS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: no arguments, no memory; any system call would end the grant, this one does nothing else.
    unsafe { libc::syscall(SYS_RSEQ_SLICE_YIELD) };
}

/// Grants that threads of this process have had and given back.
pub fn grants() -> u64 {
    GRANTS.load(Ordering::Relaxed)
}

/// Proof that the calling thread asks for extensions.
#[derive(Debug, Clone, Copy)]
pub struct Slice(Thread);

impl Slice {
    /// Turns extensions on for the calling thread: its rseq-aware locks ask from now on.
    ///
    /// # Errors
    /// EINVAL: the kernel has none. ENOTSUPP: switched off at boot, or rseq is registered in the old way, with
    /// 32 bytes. ENXIO: rseq is not registered.
    #[doc(alias = "PR_RSEQ_SLICE_EXTENSION")]
    pub fn enable(thread: Thread) -> Result<Self, SysError> {
        // SAFETY: this prctl takes integers only; the last two must be zero.
        let r = unsafe {
            libc::prctl(
                PR_RSEQ_SLICE_EXTENSION,
                PR_RSEQ_SLICE_EXTENSION_SET,
                PR_RSEQ_SLICE_EXT_ENABLE,
                0 as libc::c_ulong,
                0 as libc::c_ulong,
            )
        };
        if r != 0 {
            return Err(SysError::last("prctl(PR_RSEQ_SLICE_EXTENSION)"));
        }
        Ok(Self::on(thread))
    }

    /// Asks although no kernel listens: for tests, which play the kernel with [`grant`](Self::grant).
    pub fn simulated(thread: Thread) -> Self {
        Self::on(thread)
    }

    fn on(thread: Thread) -> Self {
        ON.store(true, Ordering::Relaxed);
        Self(thread)
    }

    /// Whether this thread asks at the moment.
    pub fn asks(self) -> bool {
        self.0.slice_ctrl().request.load(Ordering::Relaxed) != 0
    }

    /// Does what the kernel does at the end of a slice: grants if asked, or else reschedules, which ends a grant.
    /// Whether it granted.
    pub fn grant(self) -> bool {
        end_of_slice(self.0.slice_ctrl())
    }
}

/// The kernel's part.
fn end_of_slice(ctrl: &SliceCtrl) -> bool {
    let asked = ctrl.request.swap(0, Ordering::Relaxed) != 0;
    ctrl.granted.store(u8::from(asked), Ordering::Relaxed);
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slice may end before, in and after the section, and between the last two instructions, in each
    /// combination: who was granted time and was not rescheduled since yields, and nobody else.
    #[test]
    fn time_is_given_back_exactly_if_it_was_granted() {
        for ends in 0..16u32 {
            let ctrl = SliceCtrl::new();
            let mut running_on = false;
            let mut point = |i: u32| {
                if ends & 1 << i != 0 {
                    running_on = end_of_slice(&ctrl);
                }
            };
            point(0);
            ctrl.ask();
            point(1);
            point(2);
            ctrl.withdraw();
            point(3);
            assert_eq!(ctrl.is_granted(), running_on, "{ends:04b}");
            // One end of a slice is granted, a second is not: no section runs on for ever.
            assert_eq!(running_on, matches!((ends >> 1 & 3).count_ones(), 1) && ends & 8 == 0, "{ends:04b}");
            assert_eq!(ctrl.request.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn the_fields_are_where_the_kernel_has_them() {
        assert_eq!(std::mem::offset_of!(SliceCtrl, request), 0);
        assert_eq!(std::mem::offset_of!(SliceCtrl, granted), 1);
        assert_eq!(size_of::<SliceCtrl>(), 4);
    }
}
