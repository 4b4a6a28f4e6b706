//! System calls without libc, for code that runs between clone and exec.
//!
//! There, the child may share its parent's memory and thread-local storage, and the parent may have
//! other threads that hold locks. So these functions set no errno, take no lock, allocate nothing,
//! and do not go through libc, whose `setuid` would signal the *parent's* threads.
#![allow(unsafe_code, reason = "enters the kernel without libc, so that nothing shared is touched")]

use std::arch::asm;
use std::ffi::{c_char, c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One system call; the errno comes back as `Err`, and is stored nowhere.
///
/// # Safety
/// - Pointers among the arguments are valid for what the kernel does with them.
/// - The call does not change memory that Rust code relies on (as `munmap` might).
unsafe fn call(nr: c_long, a: [usize; 5]) -> Result<usize, i32> {
    let ret: isize;
    // SAFETY: the x86-64 kernel ABI: number in rax, arguments in rdi, rsi, rdx, r10, r8; rcx and r11
    // are clobbered, the stack is not used. What the call does is the caller's obligation.
    unsafe {
        asm!("syscall", inlateout("rax") nr as isize => ret,
             in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // The kernel returns -4095..=-1 for errors.
    if (-4095..0).contains(&ret) { Err(-ret as i32) } else { Ok(ret as usize) }
}

/// `_exit(code)`: ends the process without running anything of the parent's.
pub(crate) fn exit(code: c_int) -> ! {
    loop {
        // SAFETY: exit_group takes no pointer and does not return.
        let _ = unsafe { call(libc::SYS_exit_group, [code as usize, 0, 0, 0, 0]) };
    }
}

/// The handler and mask of one signal, as the kernel lays it out (not as libc does).
#[repr(C)]
#[derive(Default)]
struct KernelSigaction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Sets a signal to its default action, unless it is ignored and `even_ignored` is not set.
pub(crate) fn default_action(signal: c_int, even_ignored: bool) -> Result<(), i32> {
    let mut old = KernelSigaction::default();
    let at = &raw mut old as usize;
    // SAFETY: `old` is writable and of the size that the mask size of 8 implies; no new action is given.
    unsafe { call(libc::SYS_rt_sigaction, [signal as usize, 0, at, 8, 0]) }?;
    if old.handler == libc::SIG_DFL || (old.handler == libc::SIG_IGN && !even_ignored) {
        return Ok(());
    }
    let new = KernelSigaction::default();
    let at = &raw const new as usize;
    // SAFETY: `new` is readable and holds SIG_DFL (0), which runs no code of ours.
    unsafe { call(libc::SYS_rt_sigaction, [signal as usize, at, 0, 8, 0]) }.map(drop)
}

/// Sets the calling thread's mask: bit n-1 is signal n. Returns the mask that was there.
pub(crate) fn set_mask(mask: u64) -> Result<u64, i32> {
    let mut old = 0u64;
    let (new, at) = (&raw const mask as usize, &raw mut old as usize);
    // SAFETY: both point to 8 bytes, the size given.
    unsafe { call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, new, at, 8, 0]) }?;
    Ok(old)
}

/// `setsid()`: a session of its own.
pub(crate) fn setsid() -> Result<(), i32> {
    // SAFETY: takes no pointer.
    unsafe { call(libc::SYS_setsid, [0; 5]) }.map(drop)
}

/// `setpgid(0, group)`; group 0 makes a new one.
pub(crate) fn setpgid(group: i32) -> Result<(), i32> {
    // SAFETY: takes no pointer.
    unsafe { call(libc::SYS_setpgid, [0, group as usize, 0, 0, 0]) }.map(drop)
}

/// `setgroups(0, NULL)`: no supplementary groups.
pub(crate) fn clear_groups() -> Result<(), i32> {
    // SAFETY: with length 0 the list is not read.
    unsafe { call(libc::SYS_setgroups, [0; 5]) }.map(drop)
}

/// `setresgid(gid, gid, gid)`, for the calling thread alone.
pub(crate) fn set_gid(gid: u32) -> Result<(), i32> {
    let g = gid as usize;
    // SAFETY: takes no pointer.
    unsafe { call(libc::SYS_setresgid, [g, g, g, 0, 0]) }.map(drop)
}

/// `setresuid(uid, uid, uid)`, for the calling thread alone.
pub(crate) fn set_uid(uid: u32) -> Result<(), i32> {
    let u = uid as usize;
    // SAFETY: takes no pointer.
    unsafe { call(libc::SYS_setresuid, [u, u, u, 0, 0]) }.map(drop)
}

/// `prctl(PR_SET_PDEATHSIG, signal)`: the signal that comes when the thread that created us ends.
pub(crate) fn set_parent_death(signal: c_int) -> Result<(), i32> {
    let a = [libc::PR_SET_PDEATHSIG as usize, signal as usize, 0, 0, 0];
    // SAFETY: this option takes no pointer.
    unsafe { call(libc::SYS_prctl, a) }.map(drop)
}

/// `getppid()`.
pub(crate) fn parent() -> i32 {
    // SAFETY: takes no pointer.
    unsafe { call(libc::SYS_getppid, [0; 5]) }.unwrap_or(0) as i32
}

/// `write(fd, bytes)`.
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> Result<usize, i32> {
    // SAFETY: the slice is readable for its length.
    unsafe { call(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0]) }
}

/// `chdir(path)`.
///
/// # Safety
/// `path` is a NUL-terminated string.
pub(crate) unsafe fn chdir(path: *const c_char) -> Result<(), i32> {
    // SAFETY: the caller promises a NUL-terminated string.
    unsafe { call(libc::SYS_chdir, [path as usize, 0, 0, 0, 0]) }.map(drop)
}

/// `dup3(from, to, flags)`.
pub(crate) fn dup3(from: RawFd, to: RawFd, flags: c_int) -> Result<(), i32> {
    // SAFETY: takes no pointer; `to` is closed, which only this process sees.
    unsafe { call(libc::SYS_dup3, [from as usize, to as usize, flags as usize, 0, 0]) }.map(drop)
}

/// `fcntl(fd, F_DUPFD_CLOEXEC, at_least)`.
pub(crate) fn dup_above(fd: RawFd, at_least: RawFd) -> Result<RawFd, i32> {
    let a = [fd as usize, libc::F_DUPFD_CLOEXEC as usize, at_least as usize, 0, 0];
    // SAFETY: this command takes no pointer.
    unsafe { call(libc::SYS_fcntl, a) }.map(|fd| fd as RawFd)
}

/// The same for our own process: a copy of `fd` at `at_least` or above, closed at exec.
pub(crate) fn own_dup_above(fd: BorrowedFd<'_>, at_least: RawFd) -> Result<OwnedFd, i32> {
    dup_above(fd.as_raw_fd(), at_least).map(own)
}

/// `fcntl(fd, F_SETFD, 0)`: the descriptor survives exec.
pub(crate) fn keep_on_exec(fd: RawFd) -> Result<(), i32> {
    // SAFETY: this command takes no pointer.
    unsafe { call(libc::SYS_fcntl, [fd as usize, libc::F_SETFD as usize, 0, 0, 0]) }.map(drop)
}

/// `close_range(first, last, flags)`; Linux 5.9, `CLOSE_RANGE_CLOEXEC` 5.11.
pub(crate) fn close_range(first: u32, last: u32, flags: u32) -> Result<(), i32> {
    let a = [first as usize, last as usize, flags as usize, 0, 0];
    // SAFETY: takes no pointer. The callers are new children with a descriptor table of their own.
    unsafe { call(libc::SYS_close_range, a) }.map(drop)
}

/// `execve(path, argv, envp)`; returns only the errno.
///
/// # Safety
/// `path` is a NUL-terminated string; `argv` and `envp` are NULL-terminated arrays of such.
pub(crate) unsafe fn execve(
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> i32 {
    let a = [path as usize, argv as usize, envp as usize, 0, 0];
    // SAFETY: the caller promises the strings; when it succeeds, nothing of this program goes on.
    unsafe { call(libc::SYS_execve, a) }.err().unwrap_or(0)
}

/// `clone3(args)` without shared memory: returns twice, 0 in the child, as `fork` does.
///
/// # Safety
/// - `args` has neither CLONE_VM nor a stack; its pointers are valid or 0.
/// - The child uses only this module until it ends or execs: the parent may have had other threads.
pub(crate) unsafe fn clone3(args: &libc::clone_args) -> Result<i32, i32> {
    let a = [&raw const *args as usize, size_of::<libc::clone_args>(), 0, 0, 0];
    // SAFETY: `args` is a clone_args of the size given; the child has a copy of all memory.
    unsafe { call(libc::SYS_clone3, a) }.map(|pid| pid as i32)
}

/// `waitid(kind, id, NULL, options)`: reaps or peeks; returns `si_status`-like data as (code, status).
pub(crate) fn waitid(kind: libc::idtype_t, id: i32, options: c_int) -> Result<(i32, i32), i32> {
    // SAFETY: siginfo_t is plain data, for which zeroes are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let a = [kind as usize, id as usize, &raw mut info as usize, options as usize, 0];
    // SAFETY: `info` is a writable siginfo_t; the rusage pointer is NULL.
    unsafe { call(libc::SYS_waitid, a) }?;
    // SAFETY: after waitid the union holds the fields of SIGCHLD, or zeroes.
    let status = unsafe { info.si_status() };
    Ok((info.si_code, status))
}

/// `kill(pid, signal)`: the call that this lab is about.
pub(crate) fn kill(pid: i32, signal: c_int) -> Result<(), i32> {
    // SAFETY: takes no pointer.
    unsafe { call(libc::SYS_kill, [pid as usize, signal as usize, 0, 0, 0]) }.map(drop)
}

/// `pidfd_send_signal(pidfd, signal, NULL, 0)`.
pub(crate) fn pidfd_send_signal(pidfd: RawFd, signal: c_int) -> Result<(), i32> {
    // SAFETY: a NULL siginfo lets the kernel fill it as kill(2) does.
    unsafe { call(libc::SYS_pidfd_send_signal, [pidfd as usize, signal as usize, 0, 0, 0]) }.map(drop)
}

/// `recvmsg(fd, message, flags)`; 0 at the end.
///
/// # Safety
/// What `message` points to is writable for the lengths it gives.
pub(crate) unsafe fn recvmsg(fd: RawFd, message: &mut libc::msghdr, flags: c_int) -> Result<usize, i32> {
    let a = [fd as usize, &raw mut *message as usize, flags as usize, 0, 0];
    // SAFETY: the caller promises the buffers.
    unsafe { call(libc::SYS_recvmsg, a) }
}

/// `sendmsg(fd, message, MSG_NOSIGNAL)`.
///
/// # Safety
/// What `message` points to is readable for the lengths it gives.
pub(crate) unsafe fn sendmsg(fd: RawFd, message: &libc::msghdr) -> Result<usize, i32> {
    let a = [fd as usize, &raw const *message as usize, libc::MSG_NOSIGNAL as usize, 0, 0];
    // SAFETY: the caller promises the buffers.
    unsafe { call(libc::SYS_sendmsg, a) }
}

/// `pause()`: sleeps until a signal.
pub(crate) fn pause() {
    // SAFETY: takes no pointer.
    let _ = unsafe { call(libc::SYS_pause, [0; 5]) };
}

/// Nanoseconds on CLOCK_MONOTONIC.
pub(crate) fn now_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let a = [libc::CLOCK_MONOTONIC as usize, &raw mut t as usize, 0, 0, 0];
    // SAFETY: `t` is a writable timespec.
    let _ = unsafe { call(libc::SYS_clock_gettime, a) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Takes over a descriptor that the kernel has just given us through a library that returns numbers.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass what SCM_RIGHTS or a system call has just created, once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
