//! The only file with `unsafe`.
#![allow(unsafe_code, reason = "the lab is about the raw call, which the C library wraps")]

/// `pid_t getppid(void)`; see [getppid(2)](https://man7.org/linux/man-pages/man2/getppid.2.html).
///
/// It cannot fail. Any Linux has it.
#[doc(alias = "SYS_getppid")]
pub fn getppid() -> u32 {
    // SAFETY: getppid takes no argument and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_getppid) as u32 }
}
