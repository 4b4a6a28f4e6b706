//! The outer process: starts the supervisor, listens to it, and cleans up if it dies.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kit::SysError;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::config::Config;
use super::event::{Event, receive};
use super::supervisor::Supervisor;
use super::{EVENT_FD, INNER};
use crate::cgroup::{self, Cgroup};
use crate::error::SpawnError;
use crate::pidfd::PidFd;
use crate::process::Child;
use crate::spawn::Spawn;
use crate::sys;

/// Why supervising did not begin, or broke.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The supervisor could not be started.
    #[error("cannot start the supervisor: {0}")]
    Spawn(#[from] SpawnError),
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// A supervisor, watched. Dropping it stops the supervisor and leaves nothing running.
#[derive(Debug)]
pub struct Guard {
    supervisor: Child,
    events: OwnedFd,
    cgroup: Option<Cgroup>,
    /// Why services are without a cgroup, where they are.
    pub no_cgroup: Option<SysError>,
}

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

impl Guard {
    /// Runs `program` (this program) as the supervisor of `file`.
    ///
    /// From then on, all children of this process are taken for the supervisor's: use it in a process
    /// that has no others.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn start(program: &Path, file: &Path) -> Result<Self, GuardError> {
        sys::pidfd::become_subreaper().map_err(|e| SysError::new("prctl(PR_SET_CHILD_SUBREAPER)", e))?;
        let name = format!("pidfd-spawn-{}", std::process::id());
        let (cgroup, no_cgroup) = match cgroup::own().and_then(|own| Cgroup::create(&own, &name)) {
            Ok(group) => (Some(group), None),
            Err(e) => (None, Some(e)),
        };
        let (events, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(SysError::nix("socketpair"))?;
        let root = cgroup.as_ref().map_or(Path::new(""), |c| c.path());
        let supervisor = Spawn::new(program)
            .arg(INNER)
            .arg(file)
            .arg(root)
            .fd(EVENT_FD, &theirs)
            // Ctrl-C reaches the guard alone, which then stops the supervisor in order.
            .group(0)
            .parent_death(Signal::SIGTERM)
            .spawn()?;
        Ok(Self { supervisor, events, cgroup, no_cgroup })
    }

    /// The supervisor's handle.
    pub fn supervisor(&self) -> &PidFd {
        self.supervisor.pidfd()
    }

    /// The cgroup with all services in it.
    pub fn cgroup_path(&self) -> Option<&Path> {
        self.cgroup.as_ref().map(Cgroup::path)
    }

    /// The next event, with the pidfd of a process that began; `Ok(None)` when the supervisor is gone,
    /// or nothing came until `until`: ask [`PidFd::exists`] which.
    ///
    /// # Errors
    /// The socket failed.
    pub fn next(&self, until: Option<Instant>) -> Result<Option<(Event, Option<PidFd>)>, SysError> {
        loop {
            let timeout = match until {
                None => PollTimeout::NONE,
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
                }
            };
            let mut fds = [PollFd::new(self.events.as_fd(), PollFlags::POLLIN)];
            match nix::poll::poll(&mut fds, timeout) {
                Ok(0) if until.is_some_and(|at| at <= Instant::now()) => return Ok(None),
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return receive(self.events.as_fd()),
                Err(e) => return Err(SysError::nix("poll")(e)),
            }
        }
    }

    /// Asks the supervisor to stop everything; its events go on until it is done.
    ///
    /// # Errors
    /// ESRCH: it is gone already.
    pub fn stop(&self) -> Result<(), SysError> {
        self.supervisor.signal(Signal::SIGTERM)
    }

    /// Waits for the supervisor's end, and ends what it may have left: the number of such processes.
    ///
    /// # Errors
    /// Those of waitid(2).
    pub fn finish(mut self) -> Result<usize, SysError> {
        self.supervisor.wait()?;
        let members = self.cgroup.as_ref().map_or(0, |c| usize::from(c.populated()));
        if let Some(group) = &self.cgroup {
            let _ = group.kill();
        }
        Ok(members.max(super::sweep()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.supervisor.is_reaped() {
            let _ = self.supervisor.signal(Signal::SIGTERM);
            // Its events are read, or it might wait for room in the socket.
            let until = Instant::now() + Duration::from_secs(20);
            while let Ok(Some(_)) = self.next(Some(until)) {}
            let _ = self.supervisor.signal(Signal::SIGKILL);
            let _ = self.supervisor.wait();
        }
        if let Some(group) = &self.cgroup {
            let _ = group.kill();
        }
        super::sweep();
        // Then the cgroup's own drop removes it, with all groups in it.
    }
}

/// What the program does when run again with [`INNER`]: file and cgroup are its arguments.
///
/// # Errors
/// As text: the guard reads it on standard error.
pub fn inner(file: &Path, root: &Path) -> Result<(), String> {
    let config = Config::read(file).map_err(|e| e.to_string())?;
    let events = sys::raw::own(EVENT_FD);
    let root = Some(PathBuf::from(root)).filter(|r| !r.as_os_str().is_empty());
    Supervisor::new(config, events, root).and_then(Supervisor::run).map_err(|e| e.to_string())
}
