//! Exercise 2: io_uring by hand. The statement is in the lab's README; `cargo xtask homework check echo ex2` says how far
//! you are.
//!
//! Structures, numbers and system calls are in `tests/uring/mod.rs`. The kernel behind them is first one made up, which
//! acts at the earliest moment at which the real one may: when you store to a [`Word`]. Then it is that of this machine.
//! io_uring(7), io_uring_setup(2) and io_uring_enter(2) have what is not said there.

use super::uring::{Cqe, Fd, Kernel, Sqe};
use nix::errno::Errno;

/// A ring: a descriptor, two mappings, two queues.
pub struct Uring<'k, K: Kernel> {
    // TODO(you): what do push, enter and pop need, and what has to be given back in the end?
    kernel: &'k K,
}

impl<'k, K: Kernel> Uring<'k, K> {
    /// A ring with room for `entries` submissions at least.
    ///
    /// # Errors
    /// A call's. Then nothing is left of those before it.
    pub fn new(_kernel: &'k K, _entries: u32) -> Result<Self, Errno> {
        unimplemented!("TODO(you): io_uring_setup, and two mappings: how long are they?")
    }

    /// Puts an entry into the submission queue, for the kernel to see at once. `false` if there is no room.
    pub fn push(&mut self, _sqe: Sqe) -> bool {
        unimplemented!("TODO(you): entry, array, tail, in an order that the kernel can rely on")
    }

    /// Has the kernel take all that was pushed, and waits until `wait_for` completions are there.
    ///
    /// # Errors
    /// io_uring_enter(2), but for `EINTR`.
    pub fn enter(&mut self, _wait_for: u32) -> Result<(), Errno> {
        unimplemented!("TODO(you): it may take fewer than you ask for")
    }

    /// Takes the oldest completion.
    pub fn pop(&mut self) -> Option<Cqe> {
        unimplemented!("TODO(you): is there one? Copy it, and then give its place back")
    }
}

impl<K: Kernel> Drop for Uring<'_, K> {
    fn drop(&mut self) {
        let _ = self.kernel;
        unimplemented!("TODO(you): unmap, close")
    }
}

/// A ring of buffers that the kernel picks from, and the buffers.
pub struct Buffers<'k, K: Kernel> {
    // TODO(you): one mapping can hold the entries and the buffers.
    kernel: &'k K,
}

impl<'k, K: Kernel> Buffers<'k, K> {
    /// Registers as many buffers of `size` bytes as group `group`, and gives them all to the kernel.
    ///
    /// # Errors
    /// A call's. Then nothing is left of those before it.
    pub fn new(_ring: &Uring<'k, K>, _entries: u16, _size: u32, _group: u16) -> Result<Self, Errno> {
        unimplemented!("TODO(you): memory, registration, and then all the buffers")
    }

    /// Gives a buffer to the kernel, which may write to it from now on.
    pub fn give(&mut self, _bid: u16) {
        unimplemented!("TODO(you): entry, tail; but what else is in entry 0?")
    }

    /// Where a buffer is.
    pub fn address(&self, _bid: u16) -> u64 {
        unimplemented!("TODO(you): the start of a buffer")
    }
}

impl<K: Kernel> Drop for Buffers<'_, K> {
    fn drop(&mut self) {
        let _ = self.kernel;
        unimplemented!("TODO(you): unmap")
    }
}

/// Echoes what comes from these sockets until all of them have ended: with one multishot receive for each, into so many
/// buffers of that size, and sends from the same buffers.
///
/// # Errors
/// A call's.
pub fn echo(_kernel: &impl Kernel, _sockets: &[Fd], _buffers: u16, _size: u32) -> Result<(), Errno> {
    unimplemented!("TODO(you): arm, and then do what each completion asks for")
}
