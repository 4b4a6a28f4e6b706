//! Time-slice extension: "not now, I hold a lock". Linux 7.0, `CONFIG_RSEQ_SLICE_EXTENSION`.
//!
//! Kernel: `Documentation/userspace-api/rseq.rst`. A thread sets `slice_ctrl.request` before its section.
//! When its slice ends inside, the kernel may clear the request, set `granted` and let it run on for some
//! microseconds; the thread thanks with `rseq_slice_yield`. Kernels before 7.0 answer EINVAL.
#![allow(unsafe_code, reason = "a prctl and a system call that libc does not know")]

use kit::SysError;

use super::rseq::Thread;

const PR_RSEQ_SLICE_EXTENSION: libc::c_int = 79;
const PR_RSEQ_SLICE_EXTENSION_SET: libc::c_ulong = 2;
const PR_RSEQ_SLICE_EXT_ENABLE: libc::c_ulong = 1;
const SYS_RSEQ_SLICE_YIELD: libc::c_long = 471;

/// `slice_ctrl` as one little-endian word: `request` is its first byte, `granted` the second.
const REQUEST: u32 = 1;
const GRANTED: u32 = 1 << 8;

/// Proof that the calling thread may ask for extensions.
#[derive(Debug, Clone, Copy)]
pub struct Slice(Thread);

impl Slice {
    /// Turns extensions on for the calling thread.
    ///
    /// # Errors
    /// EINVAL: the kernel has none. ENOTSUPP: switched off at boot. ENXIO: rseq is not registered.
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
        Ok(Self(thread))
    }

    /// Runs a short section with the request set. True if the kernel let us run on past the end of a slice.
    pub fn hold<T>(self, section: impl FnOnce() -> T) -> (T, bool) {
        self.0.set_slice_ctrl(REQUEST);
        let value = section();
        let granted = self.0.slice_ctrl() & GRANTED != 0;
        self.0.set_slice_ctrl(0);
        if granted {
            // SAFETY: no arguments, no memory; any system call would end the grant, this one does nothing
            // else.
            unsafe { libc::syscall(SYS_RSEQ_SLICE_YIELD) };
        }
        (value, granted)
    }
}
