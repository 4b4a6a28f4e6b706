//! Real-time priority: who has it preempts everyone who has not, at once.
#![allow(unsafe_code, reason = "nix has no wrapper for sched_setscheduler")]

use kit::SysError;

/// `SCHED_FIFO` at the lowest real-time priority, for the calling thread.
///
/// # Errors
/// EPERM: no CAP_SYS_NICE and `ulimit -r` is 0, or a cgroup without a share of real time. See sched(7).
#[doc(alias = "SCHED_FIFO")]
pub fn real_time() -> Result<(), SysError> {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: `param` is read during the call only; pid 0 is the calling thread.
    let r = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) };
    if r == 0 { Ok(()) } else { Err(SysError::last("sched_setscheduler(SCHED_FIFO)")) }
}
