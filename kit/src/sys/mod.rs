//! The only place in kit with `unsafe`: calls that no crate wraps, or whose errno a probe wants itself.
#![allow(unsafe_code, reason = "system calls and signal handlers that no crate wraps safely")]

pub mod bpf;
pub mod child;
pub mod kvm;
mod machine;
pub mod map;
pub mod pidfd;
pub mod rseq;
mod signals;
pub mod uring;

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use crate::SysError;

#[cfg(feature = "session")]
pub use machine::columns;
pub use machine::{cpus, hypervisor, libc_version, uname};
pub use signals::{catch_interrupts, exit_now, interrupted_already};

/// The value of a system call, or its errno as an error of `call`.
fn check(call: &'static str, returned: libc::c_long) -> Result<libc::c_long, SysError> {
    if returned < 0 { Err(SysError::last(call)) } else { Ok(returned) }
}

/// The descriptor that a system call returned, now owned.
fn check_fd(call: &'static str, returned: libc::c_long) -> Result<OwnedFd, SysError> {
    let fd = check(call, returned)? as RawFd;
    // SAFETY: the callers pass the result of a call that creates a descriptor, and nobody else knows it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
