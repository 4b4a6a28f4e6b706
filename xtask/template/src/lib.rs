//! # What does a system call cost?
//!
//! A process asks the kernel by an instruction that changes the privilege level, and gets its answer in a
//! register:
//!
//! ```text
//! user    mov eax, SYS_getppid; syscall ----+          +---> rax = parent's id
//!                                           v          |
//! kernel                          entry, table, getppid, exit
//! ```
//!
//! `getppid` does next to nothing, so what it costs is the way.
//!
//! References: [syscall(2)](https://man7.org/linux/man-pages/man2/syscall.2.html),
//! [getppid(2)](https://man7.org/linux/man-pages/man2/getppid.2.html).

pub mod cost;
mod sys;

pub use cost::Cost;
