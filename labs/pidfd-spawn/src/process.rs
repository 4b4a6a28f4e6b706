//! A running child, and the one owner of the duty to reap it.

use std::os::fd::{AsFd, BorrowedFd};

use kit::SysError;
use nix::sys::signal::Signal;

use crate::error::SpawnError;
use crate::pidfd::{Exit, PidFd};
use crate::ways::{Started, Way};

/// A way that was tried first and refused by the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FellBack {
    /// The way tried.
    pub from: Way,
    /// Why not.
    pub why: SpawnError,
}

/// A child process. Dropping it ends it (SIGKILL) and reaps it: nothing is left behind.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: PidFd,
    way: Way,
    fell_back: Vec<FellBack>,
    exit: Option<Exit>,
}

impl Child {
    pub(crate) fn new(started: Started, way: Way, fell_back: Vec<FellBack>) -> Self {
        Self { pid: started.pid, pidfd: started.pidfd.into(), way, fell_back, exit: None }
    }

    /// Its number: for people to read. Signals go through [`pidfd`](Self::pidfd).
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its handle.
    pub fn pidfd(&self) -> &PidFd {
        &self.pidfd
    }

    /// How it was created in the end.
    pub fn way(&self) -> Way {
        self.way
    }

    /// What was tried before that.
    pub fn fell_back(&self) -> &[FellBack] {
        &self.fell_back
    }

    /// Waits for its end and reaps it; the second call returns the same.
    ///
    /// # Errors
    /// ECHILD, if somebody else reaped it (SIGCHLD ignored, `wait(-1)` elsewhere).
    pub fn wait(&mut self) -> Result<Exit, SysError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let exit = self.pidfd.wait()?;
        self.exit = Some(exit);
        Ok(exit)
    }

    /// Reaps it if it has ended.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> Result<Option<Exit>, SysError> {
        if self.exit.is_none() {
            self.exit = self.pidfd.try_wait()?;
        }
        Ok(self.exit)
    }

    /// For a waiter that reaped it another way, such as io_uring.
    pub(crate) fn reaped(&mut self, exit: Exit) {
        self.exit = Some(exit);
    }

    /// Whether it was reaped.
    pub fn is_reaped(&self) -> bool {
        self.exit.is_some()
    }

    /// Sends a signal; never to a successor of its PID.
    ///
    /// # Errors
    /// ESRCH once it was reaped.
    pub fn signal(&self, signal: Signal) -> Result<(), SysError> {
        self.pidfd.signal(signal)
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() {
            let _ = self.pidfd.signal(Signal::SIGKILL);
            let _ = self.pidfd.wait();
        }
    }
}
