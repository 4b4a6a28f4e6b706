//! The only place in kit with `unsafe`: calls that no crate wraps.
#![allow(unsafe_code, reason = "system calls and signal handlers that no crate wraps safely")]

mod machine;
mod signals;

#[cfg(feature = "session")]
pub use machine::columns;
pub use machine::{cpus, hypervisor, libc_version, uname};
pub use signals::{catch_interrupts, exit_now, interrupted_already};
