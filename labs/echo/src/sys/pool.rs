//! A ring of buffers that the kernel takes from (`IORING_REGISTER_PBUF_RING`, Linux 5.19).
#![allow(unsafe_code, reason = "memory that the kernel reads and writes on its own")]

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use kit::SysError;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Bytes in a buffer.
pub const BUFFER: usize = 32 * 1024;
/// Buffers given to the kernel at first. It takes them in turn, so those that are never needed must not
/// take part: a few buffers stay in the CPU's cache, hundreds do not.
const AT_FIRST: u16 = 16;
/// Bytes from one buffer to the next. A cache line more than a page: buffers that all began at the same
/// offset of a page would compete for the same few sets of the L1 cache.
const STRIDE: usize = BUFFER + 64;

/// An entry as the kernel reads it: `struct io_uring_buf` in include/uapi/linux/io_uring.h. Atomics, since
/// the kernel reads while we write others; Relaxed, since only the tail orders anything.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Entry {
    addr: AtomicU64,
    len: AtomicU32,
    bid: AtomicU16,
    /// Reserved; in the first entry, the tail of the ring: how many entries were ever given, modulo 2^16.
    pub tail: AtomicU16,
}

impl Entry {
    /// Names a buffer. The kernel sees it once the tail has passed it.
    pub fn set(&self, buffer: *mut u8, len: u32, bid: u16) {
        self.addr.store(buffer as u64, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.bid.store(bid, Ordering::Relaxed);
    }
}

/// Received bytes in a buffer of the pool. Whoever has it must give it back with
/// [`Ring::give_back`](super::Ring::give_back); it is not `Copy` so that this happens once.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    pub(super) bid: u16,
    /// Bytes received into it, counted from its start.
    pub len: u32,
}

/// The ring of entries and the buffers they name, in one mapping.
#[derive(Debug)]
pub(super) struct Pool {
    map: NonNull<std::ffi::c_void>,
    len: NonZeroUsize,
    buffers_at: usize,
    entries: u16,
    /// Buffers that take part: those below this number.
    used: u16,
    tail: u16,
    /// Which buffer lies at which place of the ring: a bundle names only its first.
    order: Vec<u16>,
    /// The place at which a buffer was given to the kernel last.
    place: Vec<u16>,
}

impl Pool {
    pub fn new(entries: u16) -> Result<Pool, SysError> {
        let page = 4096;
        let buffers_at = (usize::from(entries) * size_of::<Entry>()).next_multiple_of(page);
        let len = NonZeroUsize::MIN.saturating_add(buffers_at + usize::from(entries) * STRIDE - 1);
        let (prot, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice replaces nothing.
        let map = unsafe { mmap_anonymous(None, len, prot, flags) }.map_err(SysError::nix("mmap"))?;
        let places = usize::from(entries);
        let mut pool = Pool {
            map,
            len,
            buffers_at,
            entries,
            used: 0,
            tail: 0,
            order: vec![0; places],
            place: vec![0; places],
        };
        pool.grow();
        Ok(pool)
    }

    /// A receive found no buffer: twice as many take part from now on, if there are so many.
    pub fn grow(&mut self) {
        let more = self.used.max(AT_FIRST).min(self.entries - self.used);
        (self.used..self.used + more).for_each(|bid| self.give(bid));
        self.used += more;
        self.publish();
    }

    pub fn address(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Where a buffer begins.
    pub fn buffer(&self, bid: u16) -> *mut u8 {
        assert!(bid < self.entries);
        let offset = self.buffers_at + usize::from(bid) * STRIDE;
        // SAFETY: `bid` is below `entries`, so the offset is inside the mapping of `len` bytes.
        unsafe { self.map.as_ptr().cast::<u8>().add(offset) }
    }

    fn ring(&self) -> &[Entry] {
        let first = self.map.as_ptr().cast::<Entry>();
        // SAFETY: the mapping begins with that many entries, page-aligned and zeroed, which is a valid value
        // of atomics; it lives as long as `self`, and is never accessed but through these atomics.
        unsafe { std::slice::from_raw_parts(first, usize::from(self.entries)) }
    }

    /// Writes a buffer into the next entry. The kernel sees it after [`Pool::publish`].
    pub fn give(&mut self, bid: u16) {
        let place = self.tail & (self.entries - 1);
        self.ring()[usize::from(place)].set(self.buffer(bid), BUFFER as u32, bid);
        self.order[usize::from(place)] = bid;
        self.place[usize::from(bid)] = place;
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel have what was given.
    pub fn publish(&self) {
        // Release: pairs with smp_load_acquire in io_ring_buffer_select (io_uring/kbuf.c), so that the
        // kernel sees the entries before the tail.
        self.ring()[0].tail.store(self.tail, Ordering::Release);
    }

    /// The buffers that a completion of `total` bytes filled, of which the kernel names the first: the
    /// others follow it in the ring.
    pub fn pieces(&self, first: u16, total: u32) -> impl Iterator<Item = Piece> + '_ {
        let start = self.place[usize::from(first)];
        let count = total.div_ceil(BUFFER as u32).max(1);
        (0..count).map(move |i| {
            let place = start.wrapping_add(i as u16) & (self.entries - 1);
            let done = i * BUFFER as u32;
            Piece { bid: self.order[usize::from(place)], len: (total - done).min(BUFFER as u32) }
        })
    }

    /// Appends a piece, from `skip` bytes on, to ordinary memory.
    pub fn copy(&self, piece: &Piece, skip: usize, to: &mut Vec<u8>) {
        let len = (piece.len as usize).min(BUFFER).saturating_sub(skip);
        to.reserve(len);
        // SAFETY: `skip + len` is at most BUFFER wherever `len` is not 0; for 0 nothing is read.
        let from = unsafe { self.buffer(piece.bid).add(skip.min(BUFFER)) };
        let end = to.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: `from` has `len` readable bytes that the kernel has finished writing and does not touch
        // until the piece is given back; `end` has room for `len`, reserved above; they are different
        // allocations.
        unsafe { std::ptr::copy_nonoverlapping(from, end, len) };
        // SAFETY: capacity was reserved, and the bytes were written just now.
        unsafe { to.set_len(to.len() + len) };
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, whole. Ring drops a pool only when no operation is under way.
        let _ = unsafe { munmap(self.map, self.len.get()) };
    }
}
