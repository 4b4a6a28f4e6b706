//! membarrier(2): make the *other* threads pass a barrier, so that they need none of their own.
#![allow(unsafe_code, reason = "libc has no wrapper for membarrier")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use kit::SysError;

/// `FLAG_CPU`: the command is for the CPU given, not for all. Linux 5.10.
const FLAG_CPU: u32 = 1;

fn call(cmd: libc::c_int, flags: u32, cpu: u32) -> Result<libc::c_int, SysError> {
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    let r = unsafe { libc::syscall(libc::SYS_membarrier, cmd, flags, cpu) };
    if r < 0 { Err(SysError::last("membarrier")) } else { Ok(r as libc::c_int) }
}

fn register(cmd: libc::c_int) -> Result<(), SysError> {
    call(cmd, 0, 0).map(drop)
}

/// Set once `PRIVATE_EXPEDITED` is ours to use, and for ever.
static EXPEDITED: AtomicBool = AtomicBool::new(false);

/// Registers the process for `PRIVATE_EXPEDITED`; false if the kernel has none. Linux 4.14.
pub fn register_expedited() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        let ready = register(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED).is_ok();
        EXPEDITED.store(ready, Ordering::Relaxed);
        ready
    })
}

/// Whether [`all`] works; one load.
#[inline]
pub fn expedited() -> bool {
    EXPEDITED.load(Ordering::Relaxed)
}

/// `PRIVATE_EXPEDITED`: on return, each running thread of the process has passed a full memory barrier.
/// False where that is not to be had.
#[doc(alias = "MEMBARRIER_CMD_PRIVATE_EXPEDITED")]
pub fn all() -> bool {
    register_expedited() && call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0).is_ok()
}

/// `PRIVATE_EXPEDITED_RSEQ`: on return, no critical section that had begun on `cpu` before the call is still
/// running there: it has committed, or it has been aborted. Linux 5.10.
///
/// # Errors
/// EINVAL from kernels without it (or built without `CONFIG_RSEQ`), ENOSYS where there is no membarrier.
#[doc(alias = "MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ")]
pub fn abort_sections_on(cpu: u32) -> Result<(), SysError> {
    static READY: OnceLock<Result<(), SysError>> = OnceLock::new();
    READY.get_or_init(|| register(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ)).clone()?;
    call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, FLAG_CPU, cpu).map(drop)
}
