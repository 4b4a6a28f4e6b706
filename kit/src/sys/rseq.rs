//! rseq(2), membarrier(2) and the rseq prctl; and where the C library keeps its registration.
#![allow(unsafe_code, reason = "rseq and membarrier have no wrapper, and the thread pointer needs assembly")]

use std::cell::UnsafeCell;
use std::ffi::CStr;

use crate::SysError;

/// What the kernel must find before an abort handler: glibc's value for x86, as good as any for a probe.
const SIGNATURE: u32 = 0x5305_3053;

/// The original `struct rseq`: 32 bytes, 32-aligned, written by the kernel.
#[repr(C, align(32))]
struct Area(UnsafeCell<[u32; 8]>);

/// Registers an area for this thread and takes it back. EINVAL or EBUSY: the C library was first.
pub fn register_once() -> Result<(), SysError> {
    let area = Area(UnsafeCell::new([0; 8]));
    let call = |flags: i32| {
        // SAFETY: the area has the size and alignment of the ABI, is reached only through the cell, and is
        // unregistered before this function ends (the second call cannot fail after the first succeeded).
        unsafe { libc::syscall(libc::SYS_rseq, area.0.get(), size_of::<Area>(), flags, SIGNATURE) }
    };
    super::check("rseq", call(0))?;
    super::check("rseq(RSEQ_FLAG_UNREGISTER)", call(1)).map(drop)
}

/// The C library's registration: (`__rseq_offset`, `__rseq_size`), if it has one.
pub fn libc_registration() -> Option<(isize, u32)> {
    let offset = symbol(c"__rseq_offset")?.cast::<isize>();
    let size = symbol(c"__rseq_size")?.cast::<u32>();
    // SAFETY: the C library exports it as `const ptrdiff_t`.
    let offset = unsafe { offset.read() };
    // SAFETY: the C library exports it as `const unsigned int`.
    let size = unsafe { size.read() };
    (size > 0).then_some((offset, size))
}

fn symbol(name: &CStr) -> Option<*const libc::c_void> {
    // SAFETY: RTLD_DEFAULT and a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address.cast_const())
}

/// Field `word` (in units of 4 bytes) of the calling thread's `struct rseq` at `offset` from the thread pointer.
pub fn field(offset: isize, word: usize) -> Option<u32> {
    let field = thread_pointer()?.wrapping_offset(offset).cast::<u32>().wrapping_add(word);
    // SAFETY: the C library keeps a struct rseq at that offset for every thread's life; the callers pass
    // words inside its 32 bytes; volatile as the kernel writes it whenever it likes.
    Some(unsafe { field.read_volatile() })
}

#[cfg(target_arch = "x86_64")]
fn thread_pointer() -> Option<*const u8> {
    let pointer: *const u8;
    // SAFETY: on x86-64 Linux the first word at fs is the thread control block's own address.
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags)) };
    Some(pointer)
}

#[cfg(target_arch = "aarch64")]
fn thread_pointer() -> Option<*const u8> {
    let pointer: *const u8;
    // SAFETY: reading the thread pointer register has no effect.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, nomem, preserves_flags))
    };
    Some(pointer)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn thread_pointer() -> Option<*const u8> {
    None
}

/// getauxval(AT_RSEQ_FEATURE_SIZE): how many bytes of struct rseq the kernel fills; 0 before Linux 6.3.
pub fn feature_size() -> u64 {
    const AT_RSEQ_FEATURE_SIZE: libc::c_ulong = 27;
    // SAFETY: takes a plain integer.
    unsafe { libc::getauxval(AT_RSEQ_FEATURE_SIZE) }
}

/// prctl(PR_RSEQ_SLICE_EXTENSION, PR_RSEQ_SLICE_EXTENSION_GET): asks, and sets nothing (Linux 7.0).
pub fn slice_extension() -> Result<(), SysError> {
    // SAFETY: plain integers.
    let returned = unsafe { libc::prctl(79, 1, 0, 0, 0) };
    super::check("prctl(PR_RSEQ_SLICE_EXTENSION)", libc::c_long::from(returned)).map(drop)
}

/// MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, then MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ (Linux 5.10).
pub fn membarrier_rseq() -> Result<(), SysError> {
    for (call, command) in [
        ("membarrier(REGISTER_PRIVATE_EXPEDITED_RSEQ)", 1 << 8),
        ("membarrier(PRIVATE_EXPEDITED_RSEQ)", 1 << 7),
    ] {
        // SAFETY: plain integers.
        super::check(call, unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) })?;
    }
    Ok(())
}
