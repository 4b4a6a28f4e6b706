//! A child process that is traced from its first breath.
#![allow(unsafe_code, reason = "fork")]

use kit::SysError;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Killed and reaped when dropped.
#[derive(Debug)]
pub struct Traced(pub Pid);

impl Traced {
    /// Forks. The child asks to be traced, stops, and then runs `body`, which must not allocate or lock:
    /// another thread of the parent may have held the allocator's lock.
    ///
    /// # Errors
    /// fork(2); EPERM from ptrace(2) where a filter forbids it.
    pub fn fork(body: impl FnOnce()) -> Result<Self, SysError> {
        // SAFETY: the child calls `body`, which keeps to async-signal-safe functions, and leaves by _exit.
        match unsafe { fork() }.map_err(SysError::nix("fork"))? {
            ForkResult::Parent { child } => {
                let traced = Self(child);
                match traced.wait()? {
                    WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(traced),
                    WaitStatus::Exited(_, errno) => Err(SysError::new("ptrace(PTRACE_TRACEME)", errno)),
                    other => Err(SysError::new("waitpid", 0).with_detail(format!("{other:?}"))),
                }
            }
            ForkResult::Child => {
                // SAFETY: prctl with integers only. We die with the thread that traces us.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                let errno = match ptrace::traceme() {
                    Ok(()) => {
                        stop_here();
                        body();
                        0
                    }
                    Err(errno) => errno as i32,
                };
                // SAFETY: ends this process without running the parent's exit handlers.
                unsafe { libc::_exit(errno) }
            }
        }
    }

    /// Waits for the next stop, or the end.
    ///
    /// # Errors
    /// waitpid(2).
    pub fn wait(&self) -> Result<WaitStatus, SysError> {
        waitpid(self.0, Some(WaitPidFlag::__WALL)).map_err(SysError::nix("waitpid"))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        // Until it is gone: a stop may be reported first. ECHILD: reaped already.
        while matches!(self.wait(), Ok(status) if !matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
        {
        }
    }
}

/// Forks, and has the child say whether all is well. May be called in a signal handler: allocates nothing.
pub fn fork_and_check(check: fn() -> bool) -> bool {
    fork_and_count(|| u8::from(!check())) == Some(0)
}

/// Forks, and has the child, which has one thread, count something; None if it could not. `count` must not allocate
/// or lock: another thread of the parent may have held the allocator's lock.
pub fn fork_and_count(count: impl FnOnce() -> u8) -> Option<u8> {
    // SAFETY: the child calls `count`, which keeps to async-signal-safe functions, and leaves by _exit.
    match unsafe { fork() }.ok()? {
        // SAFETY: ends this process without running the parent's exit handlers.
        ForkResult::Child => unsafe { libc::_exit(count().into()) },
        ForkResult::Parent { child } => match waitpid(child, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(_, count)) => u8::try_from(count).ok(),
            _ => None,
        },
    }
}

/// Stops the calling process until its tracer lets it go on.
pub fn stop_here() {
    let _ = nix::sys::signal::raise(Signal::SIGSTOP);
}
