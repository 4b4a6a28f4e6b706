//! Memory that a guest and the host share: mapped by mmap(2), reached by raw pointers only.
#![allow(
    unsafe_code,
    reason = "mmap, and raw access to memory that a guest writes behind the compiler's back"
)]

use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::ptr::NonNull;

use kit::SysError;

/// A mapping of whole pages, unmapped on drop.
///
/// Holding one proves that `len` bytes from `address()` are mapped and writable. Nobody ever makes a
/// reference into it: a guest may write it at any time.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; access through &self is by volatile or raw copies.
unsafe impl Send for Mapping {}
// SAFETY: as for Send. Two threads that copy the same bytes may see a torn copy, as with any device memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Private zeroed pages: `mmap(MAP_PRIVATE | MAP_ANONYMOUS)`.
    ///
    /// # Errors
    /// What mmap(2) says, chiefly `ENOMEM`.
    pub fn anonymous(len: usize) -> Result<Self, SysError> {
        Self::map(
            "mmap(anonymous)",
            len,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    }

    /// The file's own pages: writes reach the file.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn shared(file: &File, len: usize) -> Result<Self, SysError> {
        Self::map("mmap(MAP_SHARED)", len, libc::MAP_SHARED, file.as_raw_fd(), 0)
    }

    /// The file's pages until one is written: then this mapping gets a copy of that page.
    #[doc(alias = "copy-on-write")]
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn private(file: &File, len: usize) -> Result<Self, SysError> {
        Self::map("mmap(MAP_PRIVATE)", len, libc::MAP_PRIVATE | libc::MAP_NORESERVE, file.as_raw_fd(), 0)
    }

    /// The pages of a vCPU's file from `offset` bytes on (where KVM shows its rings).
    ///
    /// # Errors
    /// What mmap(2) says: `EINVAL` where the ring is not enabled.
    pub fn vcpu(fd: &impl std::os::fd::AsRawFd, offset: i64, len: usize) -> Result<Self, SysError> {
        Self::map("mmap(vcpu)", len, libc::MAP_SHARED, fd.as_raw_fd(), offset)
    }

    fn map(call: &'static str, len: usize, flags: i32, fd: i32, offset: i64) -> Result<Self, SysError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no MAP_FIXED, so the kernel picks a free range: no existing memory is touched.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(SysError::last(call));
        }
        Ok(Self { start: NonNull::new(start.cast()).ok_or_else(|| SysError::new(call, libc::ENOMEM))?, len })
    }

    /// Where the mapping is in this process.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a mapping is never empty: mmap refuses 0")]
    pub fn len(&self) -> usize {
        self.len
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} bytes at {offset:#x} of {:#x}",
            self.len
        );
        self.start.as_ptr().wrapping_add(offset)
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If the range is outside the mapping.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        let from = self.at(offset, to.len());
        // SAFETY: `at` checked the range; `to` is ours alone and cannot lie inside the mapping, which has no references.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// If the range is outside the mapping.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        // SAFETY: `at` checked the range; `from` cannot lie inside the mapping, which has no references.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
    }

    /// Copies everything from another mapping of the same length.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn copy_from(&self, other: &Mapping) {
        assert_eq!(self.len, other.len);
        // SAFETY: both ranges are mapped for `len` bytes, and two live mappings never overlap.
        unsafe { std::ptr::copy_nonoverlapping(other.start.as_ptr(), self.start.as_ptr(), self.len) }
    }

    /// One 32-bit word, read once and not cached by the compiler.
    ///
    /// # Panics
    /// If outside the mapping or not aligned to 4.
    pub fn read_u32(&self, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4));
        let word = self.at(offset, 4).cast::<u32>();
        // SAFETY: in range and aligned, as just checked; every bit pattern is a u32.
        unsafe { word.read_volatile() }
    }

    /// One 32-bit word, written once.
    ///
    /// # Panics
    /// If outside the mapping or not aligned to 4.
    pub fn write_u32(&self, offset: usize, value: u32) {
        assert!(offset.is_multiple_of(4));
        let word = self.at(offset, 4).cast::<u32>();
        // SAFETY: in range and aligned, as just checked.
        unsafe { word.write_volatile(value) }
    }

    /// A flag that the kernel writes with release order, as the dirty ring's.
    ///
    /// # Panics
    /// If outside the mapping or not aligned to 4.
    pub fn load_acquire_u32(&self, offset: usize) -> u32 {
        self.atomic(offset).load(std::sync::atomic::Ordering::Acquire)
    }

    /// A flag that the kernel reads with acquire order, as the dirty ring's.
    ///
    /// # Panics
    /// If outside the mapping or not aligned to 4.
    pub fn store_release_u32(&self, offset: usize, value: u32) {
        self.atomic(offset).store(value, std::sync::atomic::Ordering::Release);
    }

    fn atomic(&self, offset: usize) -> &std::sync::atomic::AtomicU32 {
        assert!(offset.is_multiple_of(4));
        let word = self.at(offset, 4).cast::<u32>();
        // SAFETY: in range and aligned; the mapping outlives &self; those who share it use atomics too.
        unsafe { std::sync::atomic::AtomicU32::from_ptr(word) }
    }

    /// Gives the pages back: a private mapping shows the file's again, an anonymous one zeroes.
    ///
    /// # Errors
    /// What madvise(2) says.
    #[doc(alias = "MADV_DONTNEED")]
    pub fn forget_writes(&self) -> Result<(), SysError> {
        // SAFETY: the whole range is ours, and nobody holds references into it.
        let done = unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTNEED) };
        if done == 0 { Ok(()) } else { Err(SysError::last("madvise(MADV_DONTNEED)")) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are what mmap gave, and nothing refers to the range any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A file that lives in memory only: memfd_create(2), Linux 3.17.
///
/// # Errors
/// What memfd_create(2) or ftruncate(2) says.
pub fn memfd(name: &std::ffi::CStr, len: u64) -> Result<File, SysError> {
    // SAFETY: `name` is a C string; the call takes no other memory.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(SysError::last("memfd_create"));
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len).map_err(SysError::io("ftruncate"))?;
    Ok(file)
}
