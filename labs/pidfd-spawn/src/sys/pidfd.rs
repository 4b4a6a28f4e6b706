//! System calls on pidfds that neither libc nor nix wraps.
#![allow(unsafe_code, reason = "pidfd calls have no wrapper in libc or nix")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, opcode};
use kit::SysError;
use nix::errno::Errno;

/// `PIDFD_SELF_THREAD_GROUP`, Linux 6.14: this process, without opening a pidfd.
pub(crate) const SELF_PROCESS: RawFd = -10001;
/// `PIDFD_SELF_THREAD`, Linux 6.14.
pub(crate) const SELF_THREAD: RawFd = -10000;

fn check(ret: libc::c_long) -> Result<libc::c_long, i32> {
    if ret < 0 { Err(Errno::last_raw()) } else { Ok(ret) }
}

/// `pidfd_open(pid, flags)`.
pub(crate) fn open(pid: i32, flags: u32) -> Result<OwnedFd, i32> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) })?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `pidfd_send_signal(pidfd, signal, NULL, flags)`; `pidfd` may be one of the `SELF` numbers.
pub(crate) fn send_signal(pidfd: RawFd, signal: i32, flags: u32) -> Result<(), i32> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a NULL siginfo lets the kernel fill it as kill(2) does.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, info, flags) }).map(drop)
}

/// `pidfd_getfd(pidfd, fd, 0)`.
pub(crate) fn getfd(pidfd: BorrowedFd<'_>, fd: RawFd) -> Result<OwnedFd, i32> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0u32) })?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `process_mrelease(pidfd, 0)`.
pub(crate) fn mrelease(pidfd: BorrowedFd<'_>) -> Result<(), i32> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::syscall(libc::SYS_process_mrelease, pidfd.as_raw_fd(), 0u32) }).map(drop)
}

/// `process_madvise(pidfd, {address, length}, MADV_COLD, 0)`; the number of bytes advised.
///
/// Only this advice: it changes no contents, neither another's nor our own.
pub(crate) fn madvise_cold(pidfd: BorrowedFd<'_>, address: u64, length: u64) -> Result<u64, i32> {
    let range = libc::iovec { iov_base: address as *mut _, iov_len: length as usize };
    let (fd, cold) = (pidfd.as_raw_fd(), libc::MADV_COLD);
    // SAFETY: one readable iovec, whose range is the other process's; MADV_COLD only moves pages to
    // the inactive list.
    let n = unsafe { libc::syscall(libc::SYS_process_madvise, fd, &raw const range, 1usize, cold, 0u32) };
    check(n).map(|n| n as u64)
}

/// `struct pidfd_info` of Linux 6.16: the first 64 bytes are in Linux 6.13.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RawInfo {
    pub mask: u64,
    pub cgroupid: u64,
    pub pid: u32,
    pub tgid: u32,
    pub ppid: u32,
    pub ids: [u32; 8],
    pub exit_code: i32,
    pub coredump_mask: u32,
    pub coredump_signal: u32,
}

/// `PIDFD_INFO_EXIT`, Linux 6.15; `PIDFD_INFO_COREDUMP`, Linux 6.16.
pub(crate) const INFO_EXIT: u64 = 1 << 3;
/// Fields of pid, credentials and cgroup, filled while it lives; and the core dump's.
pub(crate) const INFO_WANTED: u64 = 1 | 2 | 4 | INFO_EXIT | 1 << 4;

/// `ioctl(pidfd, PIDFD_GET_INFO, info)`.
pub(crate) fn info(pidfd: RawFd) -> Result<RawInfo, i32> {
    let mut info = RawInfo { mask: INFO_WANTED, ..RawInfo::default() };
    // _IOWR(0xff, 11, struct pidfd_info): the size is part of the number, and the kernel accepts any
    // from 64 bytes on.
    let request = 3 << 30 | (size_of::<RawInfo>() as u64) << 16 | 0xff << 8 | 11;
    // SAFETY: `info` is writable for the size that the request names.
    let ret = unsafe { libc::ioctl(pidfd, request, &raw mut info) };
    check(ret.into()).map(|_| info)
}

/// What waitid(2) tells of a child.
pub(crate) struct Waited {
    pub pid: i32,
    pub code: i32,
    pub status: i32,
    pub user: Duration,
    pub system: Duration,
    pub max_rss_kib: u64,
}

/// `waitid(kind, id, &info, options, &rusage)`: the system call has a fifth argument that libc hides.
pub(crate) fn waitid(kind: libc::idtype_t, id: i32, options: i32) -> Result<Option<Waited>, i32> {
    // SAFETY: siginfo_t is plain data, for which zeroes are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: rusage is plain data, for which zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both results are writable and of the kernel's layout.
    let ret = unsafe { libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, options, &raw mut usage) };
    check(ret)?;
    // SAFETY: after waitid the union holds SIGCHLD's fields, or zeroes: nothing to report.
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    Ok(Some(Waited {
        pid,
        code: info.si_code,
        status,
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss as u64,
    }))
}

/// Queues an entry that points to no memory of ours; `None` if the queue is full.
pub(crate) fn push_plain(ring: &mut IoUring, poll: opcode::PollAdd, data: u64) -> Option<()> {
    let entry = poll.build().user_data(data);
    // SAFETY: POLL_ADD has no buffer; a descriptor closed meanwhile only makes it fail.
    unsafe { ring.submission().push(&entry) }.ok()
}

/// Waits for and reaps all of `pidfds` by IORING_OP_WAITID. `wait` submits and sleeps; `reaped` gets
/// the index, and pid, code and status of the siginfo.
///
/// # Errors
/// Of `wait`; of the operation (EINVAL before Linux 6.7).
pub(crate) fn ring_waitid(
    ring: &mut IoUring,
    pidfds: &[RawFd],
    mut wait: impl FnMut(&IoUring) -> Result<(), SysError>,
    mut reaped: impl FnMut(usize, (i32, i32, i32)),
) -> Result<(), SysError> {
    // SAFETY: siginfo_t is plain data, for which zeroes are a value.
    let empty = || unsafe { std::mem::zeroed::<libc::siginfo_t>() };
    // Leaked if we leave early: the kernel may still write to it.
    let infos: &mut [libc::siginfo_t] = Box::leak(pidfds.iter().map(|_| empty()).collect());
    let base = infos.as_mut_ptr();
    for (i, &fd) in pidfds.iter().enumerate() {
        // SAFETY: i is below the length of `infos`.
        let info = unsafe { base.add(i) };
        let entry = opcode::WaitId::new(libc::P_PIDFD, fd as u32, libc::WEXITED).infop(info);
        let entry = entry.build().user_data(i as u64);
        // SAFETY: `info` stays where it is until all completions are in, or for good.
        unsafe { ring.submission().push(&entry) }
            .map_err(|_| SysError::new("io_uring submission queue", libc::EBUSY))?;
    }
    let mut open = pidfds.len();
    while open > 0 {
        wait(ring)?;
        for done in ring.completion() {
            if done.result() < 0 {
                return Err(SysError::new("IORING_OP_WAITID", -done.result()));
            }
            open -= 1;
            let i = done.user_data() as usize;
            // SAFETY: i is one of ours, below the length; its operation is over.
            let at = unsafe { base.add(i) };
            // SAFETY: the kernel has filled this element and is done with it.
            let info = unsafe { at.read() };
            // SAFETY: after a wait the union holds SIGCHLD's fields.
            let pid = unsafe { info.si_pid() };
            // SAFETY: as above.
            let status = unsafe { info.si_status() };
            reaped(i, (pid, info.si_code, status));
        }
    }
    // SAFETY: from Box::leak above, with the same length; the kernel is done with all of it.
    drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(base, pidfds.len())) });
    Ok(())
}

/// `prctl(PR_SET_CHILD_SUBREAPER, 1)`: orphans among our descendants become our children.
pub(crate) fn become_subreaper() -> Result<(), i32> {
    // SAFETY: this option takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}
