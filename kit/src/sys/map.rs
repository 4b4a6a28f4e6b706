//! A mapping that the kernel or a guest may write, so it is only ever copied in and out.
#![allow(unsafe_code, reason = "mmap, and volatile access to memory shared with the kernel")]

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::SysError;

/// Shared memory; unmapped on drop.
#[derive(Debug)]
pub struct Map {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

impl Map {
    /// `len` bytes of zeroes.
    ///
    /// # Panics
    /// If `len` is 0.
    pub fn anonymous(len: usize) -> Result<Self, SysError> {
        let len = NonZeroUsize::new(len).expect("a mapping has a length");
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap_anonymous(None, len, READ_WRITE, MapFlags::MAP_PRIVATE) };
        Ok(Self { start: start.map_err(SysError::nix("mmap"))?, len })
    }

    /// `len` bytes of `fd`, shared.
    ///
    /// # Panics
    /// If `len` is 0.
    pub fn of(fd: BorrowedFd<'_>, len: usize) -> Result<Self, SysError> {
        let len = NonZeroUsize::new(len).expect("a mapping has a length");
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(None, len, READ_WRITE, MapFlags::MAP_SHARED, fd, 0) };
        Ok(Self { start: start.map_err(SysError::nix("mmap"))?, len })
    }

    /// Where it starts, for the kernel.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Copies `bytes` in at `offset`.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len());
        for (i, byte) in bytes.iter().enumerate() {
            let to = self.start.as_ptr().cast::<u8>().wrapping_add(offset + i);
            // SAFETY: `to` is inside the mapping by the assertion; u8 has no alignment; volatile as others may look.
            unsafe { to.write_volatile(*byte) };
        }
    }

    /// The u32 at `offset`.
    ///
    /// # Panics
    /// If it is outside, or `offset` is not a multiple of 4.
    pub fn read_u32(&self, offset: usize) -> u32 {
        assert!(offset + 4 <= self.len() && offset.is_multiple_of(4));
        let from = self.start.as_ptr().cast::<u8>().wrapping_add(offset).cast::<u32>();
        // SAFETY: `from` is inside the mapping and aligned by the assertion (the mapping is page-aligned);
        // volatile as the kernel writes there.
        unsafe { from.read_volatile() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped, and no reference into it was ever given out.
        let _ = unsafe { munmap(self.start, self.len()) };
    }
}
