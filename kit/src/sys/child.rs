//! Children that a probe makes to try something in, and always ends.
#![allow(unsafe_code, reason = "clone and clone3 have no safe wrapper")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use crate::SysError;

/// The kernel's `struct clone_args`, version 2 (5.7); see clone(2).
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child that is killed and reaped on drop.
///
/// It was made with exit signal 0: no SIGCHLD, and `SIGCHLD` being ignored does not reap it behind our back.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    reaped: bool,
}

/// libc's constant is an i32, which this does not fit.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// How long a child may take before it is killed.
const PATIENCE: Duration = Duration::from_secs(2);

impl Child {
    /// clone(2) like fork: the child runs `body` and exits with its value.
    ///
    /// `body` runs in a copy of a process that may have had other threads: it must only make system
    /// calls (no allocation, no lock, no panic).
    pub fn fork(body: impl Fn() -> u8) -> Result<Self, SysError> {
        // SAFETY: no CLONE_VM and a null stack: the child gets a copy of everything and goes on here.
        let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
        Self::from_clone("clone", pid, body)
    }

    /// clone3(2) like fork, with CLONE_PIDFD and what `how` asks for; see [`Child::fork`] for `body`.
    pub fn clone3(how: How<'_>, body: impl Fn() -> u8) -> Result<(Self, OwnedFd), SysError> {
        let mut pidfd: i32 = -1;
        let set_tid = how.set_tid.unwrap_or(0);
        let mut args = CloneArgs {
            flags: how.flags | libc::CLONE_PIDFD as u64,
            pidfd: (&raw mut pidfd) as u64,
            ..CloneArgs::default()
        };
        if how.set_tid.is_some() {
            args.set_tid = (&raw const set_tid) as u64;
            args.set_tid_size = 1;
        }
        if let Some(cgroup) = how.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        let size = size_of::<CloneArgs>();
        // SAFETY: `args` and all that it points to live across the call; no CLONE_VM, so the child has a copy.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) };
        let child = Self::from_clone("clone3", pid, body)?;
        // SAFETY: CLONE_PIDFD stored a new descriptor there, which nobody else knows.
        Ok((child, unsafe { OwnedFd::from_raw_fd(pidfd) }))
    }

    fn from_clone(call: &'static str, pid: libc::c_long, body: impl Fn() -> u8) -> Result<Self, SysError> {
        if pid == 0 {
            let status = libc::c_int::from(body());
            // SAFETY: ends the child at once; no destructor of the parent's copy may run here.
            unsafe { libc::_exit(status) };
        }
        let pid = super::check(call, pid)? as libc::pid_t;
        Ok(Self { pid, reaped: false })
    }

    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Its exit status; an error if it was killed, by us after two seconds or by anyone.
    pub fn wait(mut self) -> Result<u8, SysError> {
        let end = Instant::now() + PATIENCE;
        let mut nap = Duration::from_micros(50);
        while Instant::now() < end {
            if let Some(status) = self.try_wait(libc::WNOHANG)? {
                return if libc::WIFEXITED(status) {
                    Ok(libc::WEXITSTATUS(status) as u8)
                } else {
                    Err(SysError::new("wait4", 0).with_detail("the child was killed"))
                };
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(5));
        }
        Err(SysError::new("wait4", libc::ETIMEDOUT).with_detail("the child did not end"))
    }

    /// Waits for a stop or an end, as a tracer; the raw wait status.
    pub fn wait_stop(&mut self) -> Result<i32, SysError> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.try_wait(libc::WNOHANG)? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Err(SysError::new("wait4", libc::ETIMEDOUT))
    }

    fn try_wait(&mut self, flags: i32) -> Result<Option<i32>, SysError> {
        let mut status = 0;
        // SAFETY: `status` is writable for the call; the pid is our unreaped child, so it names no other process.
        let pid = unsafe { libc::waitpid(self.pid, &raw mut status, flags | libc::__WALL) };
        if super::check("wait4", libc::c_long::from(pid))? == 0 {
            return Ok(None);
        }
        self.reaped = libc::WIFEXITED(status) || libc::WIFSIGNALED(status);
        Ok(Some(status))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        while !self.reaped {
            // SAFETY: the pid is our unreaped child, so it names no other process.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            if self.try_wait(0).is_err() {
                return;
            }
        }
    }
}

/// What a child of [`Child::clone3`] shall have besides a pidfd.
#[derive(Debug, Default)]
pub struct How<'a> {
    /// CLONE_NEW… flags.
    pub flags: u64,
    /// The thread id in the innermost PID namespace.
    pub set_tid: Option<libc::pid_t>,
    /// The cgroup v2 folder to start in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// For a child: dies with the thread that made it, then sleeps for ever.
pub fn sleep_until_killed() -> u8 {
    // SAFETY: prctl with plain integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    loop {
        // SAFETY: pause takes no argument.
        unsafe { libc::pause() };
    }
}

/// For a child: unshare(2); 0 or the errno.
pub fn unshare(flags: i32) -> u8 {
    // SAFETY: takes a plain integer; the child is single-threaded and ends right after.
    status(unsafe { libc::unshare(flags) })
}

/// For a child: mounts a `kind` file system over `at` in a mount namespace of its own; 0 or the errno.
pub fn mount_private(kind: &CStr, at: &CStr) -> u8 {
    let unshared = unshare(libc::CLONE_NEWNS);
    if unshared != 0 {
        return unshared;
    }
    let (private, none) = (libc::MS_REC | libc::MS_PRIVATE, std::ptr::null());
    // SAFETY: C strings that live across the call; a null type and data are allowed for MS_PRIVATE.
    let made = status(unsafe { libc::mount(c"none".as_ptr(), c"/".as_ptr(), none, private, none.cast()) });
    if made != 0 {
        return made;
    }
    // SAFETY: C strings that live across the call; the file systems mounted here take no data.
    status(unsafe { libc::mount(c"none".as_ptr(), at.as_ptr(), kind.as_ptr(), 0, none.cast()) })
}

/// For a child: whether `path` opens for reading; 0 or the errno.
pub fn can_open(path: &CStr) -> u8 {
    // SAFETY: a C string that lives across the call; the descriptor ends with the child.
    status(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })
}

/// For a child: at which of its first bytes the file at `path` has `wanted`; `None` if it has not or does not open.
pub fn position(path: &CStr, wanted: u8) -> Option<u8> {
    // SAFETY: a C string that lives across the call.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let mut text = [0u8; 64];
    // SAFETY: the buffer has the length that is given; a bad descriptor is an error and reads nothing.
    let read = unsafe { libc::read(fd, text.as_mut_ptr().cast(), text.len()) };
    let read = usize::try_from(read).ok()?;
    text.iter().take(read).position(|b| *b == wanted).map(|at| at as u8)
}

/// 0 for success, else errno as an exit status (Linux's are below 134).
fn status(returned: libc::c_int) -> u8 {
    if returned < 0 { nix::errno::Errno::last_raw() as u8 } else { 0 }
}
