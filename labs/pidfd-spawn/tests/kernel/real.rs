//! The kernel itself, by the lab's library. Only SIGTERM is not sent to the test: an eventfd plays its part.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use pidfd_spawn::pidfd;
use pidfd_spawn::process::Child;
use pidfd_spawn::spawn::Spawn;

use super::{End, Errno, Fd, Kernel, Ms, Pid, Signal};

/// See the module.
pub struct Real {
    commands: Vec<Spawn<'static>>,
    /// Who writes to it sends SIGTERM.
    pub term: Arc<EventFd>,
    pub starts: usize,
    children: BTreeMap<Fd, Child>,
    begin: Instant,
    /// Pidfds that were closed before their process was reaped.
    pub forgotten: usize,
}

impl Real {
    pub fn new(commands: Vec<Spawn<'static>>) -> Self {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Self {
            commands,
            term: Arc::new(EventFd::from_flags(flags).expect("an eventfd")),
            starts: 0,
            children: BTreeMap::new(),
            begin: Instant::now(),
            forgotten: 0,
        }
    }

    fn child(&mut self, fd: Fd) -> Result<&mut Child, Errno> {
        self.children.get_mut(&fd).ok_or(Errno::Ebadf)
    }
}

impl Kernel for Real {
    fn block_term(&mut self) {}

    fn got_term(&mut self) -> bool {
        false
    }

    fn term_fd(&mut self) -> Result<Fd, Errno> {
        Ok(Fd(self.term.as_fd().as_raw_fd()))
    }

    fn read_term(&mut self, _fd: Fd) -> Result<(), Errno> {
        self.term.read().map(drop).map_err(|_| Errno::Eagain)
    }

    fn spawn(&mut self, service: usize) -> Result<(Pid, Fd), Errno> {
        self.starts += 1;
        let child = self.commands[service].spawn().map_err(|_| Errno::Eagain)?;
        let (pid, fd) = (Pid(child.pid()), Fd(child.as_fd().as_raw_fd()));
        self.children.insert(fd, child);
        Ok((pid, fd))
    }

    fn poll(&mut self, fds: &[Fd], timeout: Option<Ms>) -> Result<Vec<Fd>, Errno> {
        let find = |fd: &Fd| -> Option<BorrowedFd<'_>> {
            let term = self.term.as_fd();
            if fd.0 == term.as_raw_fd() { Some(term) } else { self.children.get(fd).map(|c| c.as_fd()) }
        };
        let mut polled = Vec::new();
        for fd in fds {
            polled.push(PollFd::new(find(fd).ok_or(Errno::Ebadf)?, PollFlags::POLLIN));
        }
        let timeout =
            timeout.map_or(PollTimeout::NONE, |ms| PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX));
        nix::poll::poll(&mut polled, timeout).map_err(|_| Errno::Eintr)?;
        Ok(fds.iter().zip(&polled).filter(|(_, p)| p.any() == Some(true)).map(|(fd, _)| *fd).collect())
    }

    fn reap(&mut self, pidfd: Fd) -> Result<Option<End>, Errno> {
        let child = self.child(pidfd)?;
        if child.is_reaped() {
            return Err(Errno::Echild);
        }
        let exit = child.try_wait().map_err(|_| Errno::Echild)?;
        Ok(exit.map(|exit| match exit.end {
            pidfd::End::Exited(code) => End::Exited(code),
            pidfd::End::Killed { signal: libc::SIGTERM, .. } => End::Killed(Signal::Term),
            pidfd::End::Killed { .. } => End::Killed(Signal::Kill),
        }))
    }

    fn pidfd_send_signal(&mut self, pidfd: Fd, signal: Signal) -> Result<(), Errno> {
        let signal = match signal {
            Signal::Term => nix::sys::signal::Signal::SIGTERM,
            Signal::Kill => nix::sys::signal::Signal::SIGKILL,
        };
        self.child(pidfd)?.signal(signal).map_err(|_| Errno::Esrch)
    }

    fn kill(&mut self, pid: Pid, signal: Signal) -> Result<(), Errno> {
        let fd = self.children.iter().find(|(_, c)| c.pid() == pid.0).map(|(fd, _)| *fd);
        self.pidfd_send_signal(fd.ok_or(Errno::Esrch)?, signal)
    }

    fn close(&mut self, fd: Fd) {
        if let Some(child) = self.children.remove(&fd) {
            self.forgotten += usize::from(!child.is_reaped());
        }
    }

    fn now(&mut self) -> Ms {
        self.begin.elapsed().as_millis() as Ms
    }
}
