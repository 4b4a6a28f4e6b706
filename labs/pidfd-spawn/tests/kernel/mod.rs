//! What an exercise may ask of the kernel: the system calls of a supervisor, cut down to their sense.

mod model;
mod real;

pub use model::{Child, Model, Moment};
pub use real::Real;

/// A descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fd(pub i32);

/// A process's number. Once it was reaped, a stranger may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pid(pub i32);

/// Milliseconds.
pub type Ms = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Term,
    Kill,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Killed(Signal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// Not now: no signal is pending, or there are too many processes.
    Eagain,
    /// No such descriptor.
    Ebadf,
    /// Nobody to be reaped: it was reaped already.
    Echild,
    /// A signal's handler ran. Try again.
    Eintr,
    /// Too many open descriptors.
    Emfile,
    /// No such process any more.
    Esrch,
}

pub trait Kernel {
    /// `pthread_sigmask(SIG_BLOCK, {SIGTERM})`: from now on SIGTERM stays pending. Before, a handler takes it, which sets
    /// the flag of `got_term`.
    fn block_term(&mut self);

    /// The flag that the handler sets.
    fn got_term(&mut self) -> bool;

    /// `signalfd({SIGTERM})`: readable while SIGTERM is pending. EMFILE.
    fn term_fd(&mut self) -> Result<Fd, Errno>;

    /// `read(signalfd)`: takes the pending SIGTERM. EAGAIN: none is.
    fn read_term(&mut self, fd: Fd) -> Result<(), Errno>;

    /// `clone3(CLONE_PIDFD)` and execve: starts a service, by its place in the list. EAGAIN, EMFILE.
    fn spawn(&mut self, service: usize) -> Result<(Pid, Fd), Errno>;

    /// `poll(fds, timeout)`: which of them are readable, in no order; none when the time is over. A pidfd is readable once
    /// its process has ended, and stays so. EINTR.
    fn poll(&mut self, fds: &[Fd], timeout: Option<Ms>) -> Result<Vec<Fd>, Errno>;

    /// `waitid(P_PIDFD, WEXITED | WNOHANG)`: how it ended, and it is no more; None while it runs. ECHILD.
    fn reap(&mut self, pidfd: Fd) -> Result<Option<End>, Errno>;

    /// `pidfd_send_signal`. ESRCH.
    fn pidfd_send_signal(&mut self, pidfd: Fd, signal: Signal) -> Result<(), Errno>;

    /// `kill`. ESRCH.
    fn kill(&mut self, pid: Pid, signal: Signal) -> Result<(), Errno>;

    fn close(&mut self, fd: Fd);

    /// `clock_gettime(CLOCK_MONOTONIC)`.
    fn now(&mut self) -> Ms;
}
