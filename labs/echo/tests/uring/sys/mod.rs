//! What is unsafe: memory that two sides use at once, and the system calls of this machine.
#![allow(unsafe_code, reason = "shared memory and raw system calls")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Weak;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use nix::errno::Errno;

use super::{BufReg, Fd, Params};

pub mod fake;

/// System calls.
pub trait Kernel {
    /// io_uring_setup(2).
    fn setup(&self, entries: u32, params: &mut Params) -> Result<Fd, Errno>;
    /// mmap(2) of the ring: shared, for reading and writing.
    fn map(&self, ring: Fd, len: usize, offset: u64) -> Result<NonNull<u8>, Errno>;
    /// mmap(2) of fresh memory, zeroed, whole pages.
    fn memory(&self, len: usize) -> Result<NonNull<u8>, Errno>;
    /// munmap(2).
    ///
    /// # Safety
    /// `at` and `len` are those of one call of `map` or `memory`, and nobody uses that memory any more.
    unsafe fn unmap(&self, at: NonNull<u8>, len: usize);
    /// io_uring_enter(2): how many entries were taken. May be fewer than `submit`; and a signal may end the wait early,
    /// with `EINTR` if nothing was taken.
    fn enter(&self, ring: Fd, submit: u32, wait_for: u32, flags: u32) -> Result<u32, Errno>;
    /// io_uring_register(2), `IORING_REGISTER_PBUF_RING`.
    fn register_buffers(&self, ring: Fd, buffers: &BufReg) -> Result<(), Errno>;
    /// close(2).
    fn close(&self, ring: Fd);
}

/// Somebody who sees each access to a [`Word`] of this thread: a kernel that acts at the earliest moment at which it may.
pub trait Watch {
    fn loads(&self, at: usize, order: Ordering);
    fn stored(&self, at: usize, old: u32, new: u32, order: Ordering);
}

thread_local! {
    static WATCH: RefCell<Option<Weak<dyn Watch>>> = const { RefCell::new(None) };
}

/// From now on, `watch` sees the accesses of this thread.
pub fn watch(by: Weak<dyn Watch>) {
    WATCH.set(Some(by));
}

fn seen(tell: impl FnOnce(&dyn Watch)) {
    let watch = WATCH.with_borrow(|watch| watch.as_ref().and_then(Weak::upgrade));
    if let Some(watch) = watch {
        tell(&*watch);
    }
}

/// An index that you and the kernel share.
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(AtomicU32);

impl Word {
    pub fn load(&self, order: Ordering) -> u32 {
        seen(|by| by.loads(&raw const *self as usize, order));
        self.0.load(order)
    }

    pub fn store(&self, value: u32, order: Ordering) {
        let old = self.0.load(Ordering::Relaxed);
        self.0.store(value, order);
        seen(|by| by.stored(&raw const *self as usize, old, value, order));
    }
}

/// The same, of 16 bits: the tail of a ring of buffers.
#[repr(transparent)]
#[derive(Debug)]
pub struct Word16(AtomicU16);

impl Word16 {
    pub fn load(&self, order: Ordering) -> u16 {
        seen(|by| by.loads(&raw const *self as usize, order));
        self.0.load(order)
    }

    pub fn store(&self, value: u16, order: Ordering) {
        let old = self.0.load(Ordering::Relaxed);
        self.0.store(value, order);
        seen(|by| by.stored(&raw const *self as usize, old.into(), value.into(), order));
    }
}

/// Whole pages that are shared with whoever is told the address. Reached by raw copies only.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    pub fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1).next_multiple_of(4096), 4096).expect("a layout");
        // SAFETY: the size is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
        Self { start, layout }
    }

    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Whether `len` bytes at an address are all in here.
    pub fn has(&self, address: usize, len: usize) -> bool {
        let end = self.address() + self.layout.size();
        address >= self.address() && address.checked_add(len).is_some_and(|e| e <= end)
    }

    pub fn read(&self, address: usize, to: &mut [u8]) {
        assert!(self.has(address, to.len()));
        let from = self.start.as_ptr().wrapping_add(address - self.address());
        // SAFETY: in range, as just checked; `to` is a reference, so it is not in here, where there are none that last.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) }
    }

    pub fn write(&self, address: usize, from: &[u8]) {
        assert!(self.has(address, from.len()));
        let to = self.start.as_ptr().wrapping_add(address - self.address());
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `start` was allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// The kernel of this machine.
#[derive(Debug, Default)]
pub struct Real {
    pub enters: Cell<u64>,
}

fn number(result: i64) -> Result<i64, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

fn mmap(len: usize, flags: i32, fd: Fd, offset: u64) -> Result<NonNull<u8>, Errno> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: no MAP_FIXED, so the kernel picks a free range: no existing memory is touched.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset as i64) };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { NonNull::new(at.cast()).ok_or(Errno::ENOMEM) }
}

impl Kernel for Real {
    fn setup(&self, entries: u32, params: &mut Params) -> Result<Fd, Errno> {
        // SAFETY: `params` is a struct io_uring_params, which the call fills in.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut *params) };
        number(fd).map(|fd| fd as Fd)
    }

    fn map(&self, ring: Fd, len: usize, offset: u64) -> Result<NonNull<u8>, Errno> {
        mmap(len, libc::MAP_SHARED | libc::MAP_POPULATE, ring, offset)
    }

    fn memory(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        mmap(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: a mapping that nobody uses, as the caller promises.
        unsafe { libc::munmap(at.as_ptr().cast(), len) };
    }

    fn enter(&self, ring: Fd, submit: u32, wait_for: u32, flags: u32) -> Result<u32, Errno> {
        self.enters.set(self.enters.get() + 1);
        let (none, nothing) = (std::ptr::null::<u8>(), 0_usize);
        // SAFETY: no signal set is passed. What the submissions point to is their author's promise.
        let taken =
            unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, submit, wait_for, flags, none, nothing) };
        number(taken).map(|taken| taken as u32)
    }

    fn register_buffers(&self, ring: Fd, buffers: &BufReg) -> Result<(), Errno> {
        let (opcode, one) = (22_u32, 1_u32);
        // SAFETY: `buffers` is a struct io_uring_buf_reg. The memory that it names is its author's promise.
        let done =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring, opcode, &raw const *buffers, one) };
        number(done).map(drop)
    }

    fn close(&self, ring: Fd) {
        // SAFETY: whoever calls this owns the descriptor, and does not use it again.
        unsafe { libc::close(ring) };
    }
}
