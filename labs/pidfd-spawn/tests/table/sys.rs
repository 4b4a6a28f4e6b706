//! The kernel's table, of this process.
#![allow(unsafe_code, reason = "descriptors by number")]

use std::os::fd::RawFd;

use super::{Entry, Errno, Table};

/// This process's own descriptors. Who makes one sees to it that the numbers used are nobody else's.
#[derive(Debug)]
pub struct Real;

fn said(result: i32) -> Result<i32, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    Err(match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EMFILE) => Errno::Emfile,
        Some(libc::EINTR) => Errno::Eintr,
        Some(libc::EINVAL) => Errno::Einval,
        _ => Errno::Ebadf,
    })
}

impl Real {
    /// What a number stands for, by its inode.
    pub fn entry(fd: RawFd) -> Option<Entry> {
        // SAFETY: integers only; an fd that is not open gives EBADF.
        let flags = said(unsafe { libc::fcntl(fd, libc::F_GETFD) }).ok()?;
        let inode = std::fs::metadata(format!("/proc/self/fd/{fd}")).ok()?;
        Some((std::os::unix::fs::MetadataExt::ino(&inode), flags & libc::FD_CLOEXEC != 0))
    }
}

impl Table for Real {
    fn dup2(&mut self, from: i32, to: i32) -> Result<(), Errno> {
        // SAFETY: integers only. What is open as `to` is the test's: see `Real`.
        said(unsafe { libc::dup2(from, to) }).map(drop)
    }

    fn dup_above(&mut self, fd: i32, lowest: i32) -> Result<i32, Errno> {
        // SAFETY: integers only; makes a new number.
        said(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest) })
    }

    fn clear_cloexec(&mut self, fd: i32) -> Result<(), Errno> {
        // SAFETY: integers only.
        said(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
    }

    fn close(&mut self, fd: i32) -> Result<(), Errno> {
        // SAFETY: what is open as `fd` is the test's: see `Real`.
        said(unsafe { libc::close(fd) }).map(drop)
    }
}
