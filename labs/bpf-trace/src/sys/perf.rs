//! A tracepoint by way of perf, without tracefs being mounted anywhere.
#![allow(unsafe_code, reason = "perf_event_open(2), fsopen(2) and fsmount(2) have no wrapper in nix")]

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use kit::SysError;

fn own(call: &'static str, fd: libc::c_long) -> Result<OwnedFd, SysError> {
    if fd < 0 {
        return Err(SysError::last(call));
    }
    // SAFETY: the kernel has just returned this descriptor; nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A tracefs of our own: a mount that is in no directory and ends with its descriptor. fsopen(2), Linux 5.2.
///
/// # Errors
///
/// EPERM without CAP_SYS_ADMIN; ENODEV if the kernel was built without tracefs.
pub fn private_tracefs() -> Result<OwnedFd, SysError> {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    let cloexec = 1_u32;
    // SAFETY: the name is a C string; the flags are a number.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), cloexec) };
    let context = own("fsopen(\"tracefs\")", context)?;
    let none = std::ptr::null::<u8>();
    // SAFETY: this command takes neither key nor value: null, as fsconfig(2) wants it.
    let made =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    if made < 0 {
        return Err(SysError::last("fsconfig(FSCONFIG_CMD_CREATE)"));
    }
    // SAFETY: takes numbers only.
    let mount = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), cloexec, 0) };
    own("fsmount(\"tracefs\")", mount)
}

/// The number of the tracepoint `group/name` (`raw_syscalls/sys_exit`), read from a tracefs.
pub fn tracepoint_id(tracefs: BorrowedFd<'_>, name: &str) -> Result<u64, SysError> {
    let path = format!("events/{name}/id");
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
    let file = nix::fcntl::openat(tracefs, path.as_str(), flags, nix::sys::stat::Mode::empty())
        .map_err(SysError::nix(format!("open(tracefs/{path})")))?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).map_err(SysError::io(format!("read(tracefs/{path})")))?;
    text.trim().parse().map_err(|_| SysError::new(format!("tracefs/{path}"), 0).with_detail(text))
}

/// Has `program` run at each passage of the tracepoint with this number, on every CPU, until the result is closed.
pub fn attach_tracepoint(program: BorrowedFd<'_>, id: u64) -> Result<OwnedFd, SysError> {
    const PERF_TYPE_TRACEPOINT: u64 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    // struct perf_event_attr, first version, 64 bytes: type and size, config.
    let attr = [PERF_TYPE_TRACEPOINT | 64 << 32, id, 0, 0, 0, 0, 0, 0];
    // Every process, on one CPU: a BPF program hangs on the tracepoint itself, not on the event's CPU.
    // SAFETY: the attr is the 64 bytes that it states, and is only read.
    let event =
        unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, PERF_FLAG_FD_CLOEXEC) };
    let event = own("perf_event_open(PERF_TYPE_TRACEPOINT)", event)?;
    for (name, request, argument) in [
        ("ioctl(PERF_EVENT_IOC_SET_BPF)", PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()),
        ("ioctl(PERF_EVENT_IOC_ENABLE)", PERF_EVENT_IOC_ENABLE, 0),
    ] {
        // SAFETY: both requests take a number by value.
        if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
            return Err(SysError::last(name));
        }
    }
    Ok(event)
}
