//! The only file with `unsafe`: ptrace calls that nix has no safe form of, and the crashes themselves.
#![allow(unsafe_code, reason = "ptrace into buffers, memory protection, and crashing on purpose")]

use std::ffi::c_void;
use std::ptr;

use kit::SysError;

/// `ptrace(PTRACE_GETREGSET, tid, kind, …)`, ptrace(2): a register set of a stopped thread as the note of that type has it.
///
/// # Errors
/// ESRCH where the thread is not stopped by us, EINVAL or ENODEV for a set that the CPU does not have.
pub fn register_set(tid: i32, kind: u32) -> Result<Vec<u8>, SysError> {
    // AMX's tiles make 11 KiB the largest area so far.
    let mut bytes = vec![0_u8; 64 << 10];
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: `iov` describes `bytes`, which outlives the call; the kernel writes at most iov_len bytes and stores how many.
    let result =
        unsafe { libc::ptrace(libc::PTRACE_GETREGSET, tid, kind as usize as *mut c_void, &raw mut iov) };
    if result == -1 {
        return Err(SysError::last(format!("ptrace(PTRACE_GETREGSET, {tid}, {kind:#x})")));
    }
    bytes.truncate(iov.iov_len);
    Ok(bytes)
}

/// `ptrace(PTRACE_GETSIGINFO)`: the signal that a stopped thread is about to receive, as bytes.
///
/// # Errors
/// EINVAL where the thread is not in a signal-delivery stop, ESRCH where it is not stopped by us.
pub fn siginfo(tid: i32) -> Result<[u8; 128], SysError> {
    let mut bytes = [0_u8; 128];
    // SAFETY: siginfo_t is 128 bytes in the kernel's ABI (SI_MAX_SIZE), and so is the buffer; bytes need no alignment as the
    // kernel copies by bytes.
    let result =
        unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, tid, ptr::null_mut::<c_void>(), bytes.as_mut_ptr()) };
    if result == -1 { Err(SysError::last("ptrace(PTRACE_GETSIGINFO)")) } else { Ok(bytes) }
}

/// `ptrace(request, tid, 0, data)` for the requests that take a number: SEIZE, INTERRUPT, CONT, DETACH.
///
/// # Errors
/// EPERM where the process may not be traced, ESRCH where it is gone or not stopped.
pub fn ptrace(call: &'static str, request: libc::c_uint, tid: i32, data: usize) -> Result<(), SysError> {
    // SAFETY: none of the four requests reads or writes memory of ours; `data` is a number to them.
    let result = unsafe { libc::ptrace(request, tid, ptr::null_mut::<c_void>(), data as *mut c_void) };
    if result == -1 { Err(SysError::last(format!("ptrace({call}, {tid})"))) } else { Ok(()) }
}

/// `waitpid(pid, &status, flags | __WALL)`: which of our children or tracees changed (0 for none), and its raw status.
/// nix has no word for real-time signals in a status.
///
/// # Errors
/// ECHILD where there is nothing to wait for.
pub fn wait(pid: i32, flags: i32) -> Result<(i32, i32), SysError> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for an int.
        let result = unsafe { libc::waitpid(pid, &raw mut status, flags | libc::__WALL) };
        if result >= 0 {
            return Ok((result, status));
        }
        if nix::errno::Errno::last() != nix::errno::Errno::EINTR {
            return Err(SysError::last(format!("waitpid({pid})")));
        }
    }
}

/// The calling thread's id.
pub fn gettid() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// Reads a byte at `address`: the crash of `segv` and `uaf`.
#[inline(always)]
pub fn read_byte(address: usize) -> u8 {
    // SAFETY: none: the caller wants the fault. A volatile read is one load instruction, which the CPU refuses; nothing
    // is computed from its value.
    unsafe { ptr::read_volatile(ptr::with_exposed_provenance::<u8>(address)) }
}

/// Divides by zero in hardware: Rust's `/` would panic first.
#[inline(always)]
pub fn divide(dividend: u32, divisor: u32) -> u32 {
    let quotient: u32;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `div` reads edx:eax and one register, writes eax and edx, which are named; it touches no memory or stack.
    unsafe {
        std::arch::asm!("div {0:e}", in(reg) divisor, inout("eax") dividend => quotient, inout("edx") 0 => _, options(nomem, nostack));
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        quotient = dividend / divisor;
    }
    quotient
}

/// A page of its own, that can be taken away: `uaf`'s allocation.
#[derive(Debug)]
pub struct Page(*mut c_void);

impl Page {
    /// `mmap` of one anonymous page.
    ///
    /// # Errors
    /// mmap(2)'s.
    pub fn new() -> Result<Self, SysError> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let at = unsafe { libc::mmap(ptr::null_mut(), 4096, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED { Err(SysError::last("mmap")) } else { Ok(Self(at)) }
    }

    /// Its address.
    pub fn address(&self) -> usize {
        self.0.expose_provenance()
    }

    /// Frees it as a debugging allocator does: nobody may touch the page any more, and nobody else gets its address.
    ///
    /// # Errors
    /// mprotect(2)'s.
    pub fn free(self) -> Result<(), SysError> {
        // SAFETY: the page is ours, no reference to it exists, and `self` is consumed.
        let result = unsafe { libc::mprotect(self.0, 4096, libc::PROT_NONE) };
        if result == -1 { Err(SysError::last("mprotect")) } else { Ok(()) }
    }
}
