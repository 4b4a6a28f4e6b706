//! A pidfd: a handle on a process, which cannot come to mean another one.
//!
//! pidfd_open(2), Linux 5.3; waitid(P_PIDFD), 5.4; pidfd_getfd(2), 5.6; PIDFD_THREAD, 6.9;
//! PIDFD_GET_INFO, 6.13; PIDFD_SELF, 6.14; its PIDFD_INFO_EXIT, 6.15.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use kit::SysError;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;

use crate::sys;

/// A pidfd. Holding one proves that "this process" has a meaning, not that it still runs.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `exit(code)`.
    Exited(i32),
    /// Killed by a signal.
    Killed {
        /// Its number; see signal(7).
        signal: i32,
        /// Whether a core was dumped (or would have been: the flag is the kernel's).
        core: bool,
    },
}

impl End {
    /// From the status word of wait(2).
    pub fn from_status(status: i32) -> Self {
        if status & 0x7f == 0 {
            End::Exited(status >> 8 & 0xff)
        } else {
            End::Killed { signal: status & 0x7f, core: status & 0x80 != 0 }
        }
    }

    /// From `si_code` and `si_status` of waitid(2).
    pub(crate) fn from_siginfo(code: i32, status: i32) -> Self {
        match code {
            libc::CLD_EXITED => End::Exited(status),
            _ => End::Killed { signal: status, core: code == libc::CLD_DUMPED },
        }
    }

    /// Whether it was `exit(0)`.
    pub fn success(self) -> bool {
        self == End::Exited(0)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            End::Exited(code) => write!(f, "exit {code}"),
            End::Killed { signal, core } => {
                match Signal::try_from(signal) {
                    Ok(s) => write!(f, "killed by {s}")?,
                    Err(_) => write!(f, "killed by signal {signal}")?,
                }
                if core { f.write_str(", core dumped") } else { Ok(()) }
            }
        }
    }
}

/// What reaping a child told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub end: End,
    /// CPU time in user mode, with that of children it reaped.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Largest resident size, in KiB.
    pub max_rss_kib: u64,
}

/// `struct pidfd_info`, as far as the kernel filled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// PID and parent, while the process is not reaped.
    pub pid: Option<(u32, u32)>,
    /// The cgroup's id, the inode number of its directory.
    pub cgroup_id: Option<u64>,
    /// How it ended; also after it was reaped, by whomever.
    pub end: Option<End>,
}

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

impl PidFd {
    /// `pidfd_open(pid, flags)`. For a process that is not your child, `pid` may already be another's.
    ///
    /// # Errors
    /// ESRCH: no such process. EINVAL: `pid` is not positive, or a flag the kernel does not know.
    /// ENOENT (EINVAL before Linux 6.9): a thread that leads no process, without `PIDFD_THREAD`.
    pub fn open(pid: i32, flags: u32) -> Result<Self, SysError> {
        sys::pidfd::open(pid, flags).map(Self).map_err(|errno| {
            let e = SysError::new(format!("pidfd_open({pid}, {flags:#x})"), errno);
            match errno {
                libc::EINVAL => e.with_detail("a PID must be positive, and flags known to this kernel"),
                libc::ENOENT => e.with_detail("that is a thread, not a process: use PIDFD_THREAD"),
                _ => e,
            }
        })
    }

    /// `pidfd_open(tid, PIDFD_THREAD)`: one thread; readable when that thread ends. Linux 6.9.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_thread(tid: i32) -> Result<Self, SysError> {
        Self::open(tid, libc::PIDFD_THREAD)
    }

    /// Sends a signal; ESRCH once the process has ended and was reaped, whoever has its PID now.
    ///
    /// # Errors
    /// ESRCH, EPERM as for kill(2).
    #[doc(alias = "pidfd_send_signal")]
    pub fn signal(&self, signal: Signal) -> Result<(), SysError> {
        sys::pidfd::send_signal(self.0.as_raw_fd(), signal as i32, 0)
            .map_err(|e| SysError::new("pidfd_send_signal", e))
    }

    /// Signals the process group that the process leads. Linux 6.9.
    ///
    /// # Errors
    /// ESRCH, EPERM as for kill(2); EINVAL on older kernels.
    #[doc(alias = "PIDFD_SIGNAL_PROCESS_GROUP")]
    pub fn signal_group(&self, signal: Signal) -> Result<(), SysError> {
        sys::pidfd::send_signal(self.0.as_raw_fd(), signal as i32, libc::PIDFD_SIGNAL_PROCESS_GROUP)
            .map_err(|e| SysError::new("pidfd_send_signal(PIDFD_SIGNAL_PROCESS_GROUP)", e))
    }

    /// Whether it still is there to be signalled: a zombie is.
    pub fn exists(&self) -> bool {
        sys::pidfd::send_signal(self.0.as_raw_fd(), 0, 0) != Err(libc::ESRCH)
    }

    /// `waitid(P_PIDFD, …, WEXITED)`: waits for our child's end and reaps it.
    ///
    /// # Errors
    /// ECHILD: not our child, already reaped, or SIGCHLD is ignored.
    pub fn wait(&self) -> Result<Exit, SysError> {
        loop {
            match self.waitid(libc::WEXITED) {
                Ok(Some(exit)) => return Ok(exit),
                Ok(None) => {}
                Err(e) if e.errno == libc::EINTR => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The same with WNOHANG: `None` while it runs.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<Exit>, SysError> {
        self.waitid(libc::WEXITED | libc::WNOHANG)
    }

    fn waitid(&self, options: i32) -> Result<Option<Exit>, SysError> {
        let waited = sys::pidfd::waitid(libc::P_PIDFD, self.0.as_raw_fd(), options)
            .map_err(|e| SysError::new("waitid(P_PIDFD)", e))?;
        Ok(waited.map(|w| Exit {
            end: End::from_siginfo(w.code, w.status),
            user: w.user,
            system: w.system,
            max_rss_kib: w.max_rss_kib,
        }))
    }

    /// Whether it ends within `time`, by poll: for who may not reap it.
    pub fn ended_within(&self, time: Duration) -> bool {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, timeout).is_ok_and(|n| n == 1)
    }

    /// `ioctl(PIDFD_GET_INFO)`: also for a process that is not our child, and after its reaping.
    ///
    /// # Errors
    /// ENOTTY before Linux 6.13; ESRCH when it is reaped and the kernel (before 6.15) kept nothing.
    #[doc(alias = "PIDFD_GET_INFO")]
    pub fn info(&self) -> Result<Info, SysError> {
        let i = sys::pidfd::info(self.0.as_raw_fd()).map_err(|e| SysError::new("PIDFD_GET_INFO", e))?;
        Ok(Info {
            pid: (i.mask & 1 != 0).then_some((i.pid, i.ppid)),
            cgroup_id: (i.mask & 4 != 0).then_some(i.cgroupid),
            end: (i.mask & sys::pidfd::INFO_EXIT != 0).then(|| End::from_status(i.exit_code)),
        })
    }

    /// Takes a copy of descriptor `fd` of that process. Linux 5.6; the right is ptrace's.
    ///
    /// # Errors
    /// EPERM: no right to ptrace it. EBADF: it has no such descriptor. ESRCH: it has ended.
    #[doc(alias = "pidfd_getfd")]
    pub fn getfd(&self, fd: RawFd) -> Result<OwnedFd, SysError> {
        sys::pidfd::getfd(self.as_fd(), fd).map_err(|e| SysError::new(format!("pidfd_getfd({fd})"), e))
    }

    /// The inode on pidfs: differs between any two processes since boot. Linux 6.9.
    ///
    /// # Errors
    /// Those of fstat(2); none known.
    pub fn inode(&self) -> Result<u64, SysError> {
        nix::sys::stat::fstat(&self.0).map(|s| s.st_ino).map_err(SysError::nix("fstat(pidfd)"))
    }

    /// `process_mrelease`: frees the memory of a process that is already dying. Linux 5.15.
    ///
    /// # Errors
    /// EINVAL: no fatal signal was sent to it. ESRCH: it has ended and has no memory.
    #[doc(alias = "process_mrelease")]
    pub fn release_memory(&self) -> Result<(), SysError> {
        sys::pidfd::mrelease(self.as_fd()).map_err(|e| SysError::new("process_mrelease", e))
    }

    /// `process_madvise(MADV_COLD)` on a range of *its* memory; bytes advised. Linux 5.10.
    ///
    /// # Errors
    /// EPERM: no right to; ENOMEM: nothing mapped there; ESRCH.
    #[doc(alias = "process_madvise")]
    pub fn advise_cold(&self, address: u64, length: u64) -> Result<u64, SysError> {
        sys::pidfd::madvise_cold(self.as_fd(), address, length)
            .map_err(|e| SysError::new("process_madvise(MADV_COLD)", e))
    }

    /// A second handle on the same process.
    ///
    /// # Errors
    /// EMFILE.
    pub fn try_clone(&self) -> Result<Self, SysError> {
        self.0.try_clone().map(Self).map_err(SysError::io("fcntl(F_DUPFD_CLOEXEC)"))
    }
}

/// PIDFD_SELF: asks about (or signals) ourselves without opening anything. Linux 6.14.
///
/// # Errors
/// EBADF on older kernels.
#[doc(alias = "PIDFD_SELF")]
pub fn signal_self(signal: Option<Signal>) -> Result<(), SysError> {
    sys::pidfd::send_signal(sys::pidfd::SELF_PROCESS, signal.map_or(0, |s| s as i32), 0)
        .map_err(|e| SysError::new("pidfd_send_signal(PIDFD_SELF_THREAD_GROUP)", e))
}

/// The same for the calling thread.
///
/// # Errors
/// EBADF on older kernels.
pub fn signal_self_thread(signal: Option<Signal>) -> Result<(), SysError> {
    sys::pidfd::send_signal(sys::pidfd::SELF_THREAD, signal.map_or(0, |s| s as i32), 0)
        .map_err(|e| SysError::new("pidfd_send_signal(PIDFD_SELF_THREAD)", e))
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for PidFd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<PidFd> for OwnedFd {
    fn from(fd: PidFd) -> Self {
        fd.0
    }
}
