//! Ways of creating a process, one module each, all running the same [`Plan`].

pub(crate) mod clone3;
pub(crate) mod fork;
pub(crate) mod posix_spawn;
pub(crate) mod vfork;
pub mod zygote;

use std::os::fd::OwnedFd;

use kit::SysError;

use crate::error::{SpawnError, Step};
use crate::plan::Plan;
use crate::sys;

/// A way of creating a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `fork`, then exec: copies the page tables of the parent, errors come back by a pipe.
    Fork,
    /// `vfork`, then exec: runs in the parent's memory, on its stack.
    Vfork,
    /// The C library's `posix_spawn`: clone3 inside, without pidfd, and without the failing step.
    PosixSpawn,
    /// `clone3(CLONE_VM|CLONE_VFORK|CLONE_PIDFD|CLONE_CLEAR_SIGHAND)`: stack, pidfd and cgroup at once.
    Clone3,
    /// A small process forked early does it, and passes the pidfd back by SCM_RIGHTS.
    Zygote,
}

/// The way that this lab is about.
pub const CLONE3: kit::Place = clone3::HERE;

impl Way {
    /// All of them.
    pub const ALL: [Way; 5] = [Way::Fork, Way::Vfork, Way::PosixSpawn, Way::Clone3, Way::Zygote];

    /// In metrics and on the command line: lower_snake_case.
    pub fn name(self) -> &'static str {
        match self {
            Way::Fork => "fork",
            Way::Vfork => "vfork",
            Way::PosixSpawn => "posix_spawn",
            Way::Clone3 => "clone3",
            Way::Zygote => "zygote",
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A child whose program has begun.
#[derive(Debug)]
pub(crate) struct Started {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// After a way that gives only a PID: the pidfd of our own child.
///
/// No race here: the number stays taken until *we* reap the child, unless SIGCHLD is ignored.
fn open_own_child(way: Way, pid: i32) -> Result<Started, SpawnError> {
    match sys::pidfd::open(pid, 0) {
        Ok(pidfd) => Ok(Started { pid, pidfd }),
        Err(errno) => {
            // It runs already and nobody would hold it: end it. CLONE_PIDFD has no such moment.
            let _ = sys::raw::kill(pid, libc::SIGKILL);
            reap(pid);
            Err(SpawnError::Create { way, source: SysError::new("pidfd_open", errno) })
        }
    }
}

/// Takes away the zombie of a child that failed before exec.
fn reap(pid: i32) {
    while sys::raw::waitid(libc::P_PID, pid, libc::WEXITED) == Err(libc::EINTR) {}
}

fn create(way: Way, call: &'static str) -> impl FnOnce(i32) -> SpawnError {
    move |errno| SpawnError::Create { way, source: SysError::new(call, errno) }
}

fn in_child(way: Way, (step, errno): (Step, i32)) -> SpawnError {
    SpawnError::Child { way, step, source: SysError::new(step.call(), errno) }
}

/// The cgroup's `cgroup.procs`, for ways whose child joins by itself.
fn cgroup_procs(way: Way, plan: &Plan<'_>) -> Result<Option<OwnedFd>, SpawnError> {
    use nix::fcntl::{OFlag, openat};
    let Some(dir) = plan.cgroup else { return Ok(None) };
    openat(dir, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
        .map(Some)
        .map_err(|e| SpawnError::Create { way, source: SysError::new("openat(\"cgroup.procs\")", e as i32) })
}
