//! io_uring_setup(2), io_uring_enter(2), io_uring_register(2).
#![allow(unsafe_code, reason = "the three system calls have no wrapper in nix")]

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use crate::SysError;

/// The words of `struct io_uring_params` that are used: flags, sq_thread_idle, features.
const FLAGS: usize = 2;
const IDLE_MS: usize = 4;
const FEATURES: usize = 5;

/// A ring of four entries with `flags`, and the kernel's feature bits.
pub fn setup(flags: u32) -> Result<(OwnedFd, u32), SysError> {
    let mut params = [0u32; 30];
    params[FLAGS] = flags;
    params[IDLE_MS] = 1;
    // SAFETY: `params` has the 120 bytes of struct io_uring_params, writable for the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) };
    Ok((super::check_fd("io_uring_setup", fd)?, params[FEATURES]))
}

/// io_uring_enter with nothing to submit and nothing to wait for.
pub fn enter(ring: BorrowedFd<'_>) -> Result<(), SysError> {
    let none: *const libc::c_void = std::ptr::null();
    // SAFETY: no flags, so the last two arguments (signal mask and its size) may be null and 0.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 0, 0, 0, none, 0) };
    super::check("io_uring_enter", done).map(drop)
}

/// How many operations IORING_REGISTER_PROBE reports as supported.
pub fn operations(ring: BorrowedFd<'_>) -> Result<usize, SysError> {
    // struct io_uring_probe: 16 bytes, then 8 bytes for each of 256 operations.
    let mut probe = [0u64; 2 + 256];
    // SAFETY: `probe` has room for the header and for the 256 operations that the call names.
    let done =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), 8, probe.as_mut_ptr(), 256) };
    super::check("io_uring_register(IORING_REGISTER_PROBE)", done)?;
    let supported = |op: &u64| (op >> 16) & 1 == 1; // op, resv, flags (u16): IO_URING_OP_SUPPORTED is bit 0
    Ok(probe[2..].iter().filter(|op| supported(op)).count())
}

/// IORING_REGISTER_PBUF_RING of eight buffers at `memory`.
pub fn buffer_ring(ring: BorrowedFd<'_>, memory: &super::map::Map) -> Result<(), SysError> {
    // struct io_uring_buf_reg: address; entries, then group and flags; three reserved.
    let mut registration = [memory.address(), 8, 0, 0, 0];
    // SAFETY: `registration` is a whole struct; the kernel pins the pages of `memory`, whose content is never
    // lent as a reference, and it writes nothing there as no operation is ever submitted.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), 22, registration.as_mut_ptr(), 1)
    };
    super::check("io_uring_register(IORING_REGISTER_PBUF_RING)", done).map(drop)
}
