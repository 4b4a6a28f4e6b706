//! futex(2), private to the process.
#![allow(unsafe_code, reason = "libc has no wrapper for futex")]

use std::ptr::null;
use std::sync::atomic::AtomicU32;

/// `FUTEX_WAIT`: sleeps while `*word == expected`. Returns on a wake-up, a changed word, or a signal.
///
/// Man page: futex(2). Linux 2.6. Failure (EAGAIN, EINTR) means "look again", which the caller does anyway.
#[doc(alias = "FUTEX_WAIT")]
pub fn wait(word: &AtomicU32, expected: u32) {
    // SAFETY: the kernel reads four bytes at `word`, which is alive and aligned for as long as the borrow;
    // there is no timeout.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            null::<libc::timespec>(),
        );
    }
}

/// `FUTEX_WAKE`: wakes up to `n` threads that sleep on `word`, longest sleeper first.
///
/// Man page: futex(2). Linux 2.6.
#[doc(alias = "FUTEX_WAKE")]
pub fn wake(word: &AtomicU32, n: i32) {
    // SAFETY: for a private futex the address is a key only; nothing is read or written there.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, n);
    }
}
