//! Exercise 1: a supervisor loop without races. The statement is in the lab's README; `cargo xtask homework check
//! pidfd-spawn ex1` says how far you are.
//!
//! The calls that you have are those of `Kernel`, in `tests/kernel/mod.rs`: read it first. The spec runs your loop on a
//! model of a kernel in which SIGTERM comes before the first, the second, the third … of your calls, in which the number of
//! a process goes to a stranger the moment it is reaped, and in which calls fail; and then on the real one. Graded are what
//! is started, signalled, reaped and closed, and when.

use super::kernel::{End, Errno, Kernel, Ms};

/// What to do about a service.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// How often it is started again after it failed: ended by a signal, or with an exit code other than 0.
    pub restarts: u32,
}

/// Starts all services, in their order, and returns when all have ended for good: how each ended last.
///
/// After a SIGTERM nothing is started any more. Every service that runs gets SIGTERM; `grace` milliseconds after the SIGTERM
/// was read, those that still run get SIGKILL.
///
/// If a call fails (other than by EINTR, or as an answer that you expect) every service that runs gets SIGKILL at once, and
/// the error is returned. However it returns, every process was reaped and every descriptor closed.
pub fn supervise(
    _kernel: &mut dyn Kernel,
    _services: &[Service],
    _grace: Ms,
) -> Result<Vec<Option<End>>, Errno> {
    unimplemented!("TODO(you): prepare for SIGTERM, start, then wait for whatever comes first")
}
