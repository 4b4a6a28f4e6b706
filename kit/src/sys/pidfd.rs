//! pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2), PIDFD_GET_INFO, membership of ptrace.
#![allow(unsafe_code, reason = "these calls have no safe wrapper in nix")]

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use crate::SysError;

/// `_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)` with the 64 bytes of Linux 6.13.
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;

pub fn open(pid: libc::pid_t) -> Result<OwnedFd, SysError> {
    // SAFETY: plain integers.
    super::check_fd("pidfd_open", unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Signal 0 by pidfd: only asks whether it may be sent.
pub fn signal_0(pidfd: BorrowedFd<'_>) -> Result<(), SysError> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo stands for that of kill(2).
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), 0, none, 0) };
    super::check("pidfd_send_signal", sent).map(drop)
}

/// A copy of descriptor `theirs` of the process.
pub fn getfd(pidfd: BorrowedFd<'_>, theirs: RawFd) -> Result<OwnedFd, SysError> {
    // SAFETY: plain integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), theirs, 0) };
    super::check_fd("pidfd_getfd", fd)
}

/// PIDFD_GET_INFO with the request `mask`: the mask of what came back, and the pid.
pub fn info(pidfd: BorrowedFd<'_>, mask: u64) -> Result<(u64, u32), SysError> {
    // mask, cgroupid, pid, tgid, …: 64 bytes, of which the first three words matter here.
    let mut info = [0u64; 8];
    info[0] = mask;
    // SAFETY: the request encodes 64 bytes, which `info` has.
    let returned = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, info.as_mut_ptr()) };
    super::check("ioctl(PIDFD_GET_INFO)", libc::c_long::from(returned))?;
    Ok((info[0], info[2] as u32))
}

/// ptrace(PTRACE_SEIZE), then PTRACE_INTERRUPT.
pub fn seize_and_interrupt(pid: libc::pid_t) -> Result<(), SysError> {
    // SAFETY: SEIZE takes no address; options 0.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
    super::check("ptrace(PTRACE_SEIZE)", seized)?;
    // SAFETY: INTERRUPT takes neither address nor data.
    let stopped = unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) };
    super::check("ptrace(PTRACE_INTERRUPT)", stopped).map(drop)
}
