//! What exercise 2 builds on: the structures of include/uapi/linux/io_uring.h, and the system calls around them.

#![allow(dead_code, unused_imports, reason = "a student may need more or fewer of these names")]

pub mod sys;

pub use sys::{Kernel, Word, Word16};

/// A descriptor.
pub type Fd = i32;

/// `struct io_uring_params`
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct Params {
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub flags: u32,
    pub sq_thread_cpu: u32,
    pub sq_thread_idle: u32,
    pub features: u32,
    pub wq_fd: u32,
    pub resv: [u32; 3],
    pub sq_off: SqOffsets,
    pub cq_off: CqOffsets,
}

/// `struct io_sqring_offsets`: where things are in the mapping, in bytes.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct SqOffsets {
    /// A [`Word`], written by the kernel: entries before it have been taken.
    pub head: u32,
    /// A [`Word`], written by you: entries before it are filled.
    pub tail: u32,
    /// A `u32`: what an index is masked with, as indices run on and wrap at 2^32.
    pub ring_mask: u32,
    pub ring_entries: u32,
    pub flags: u32,
    pub dropped: u32,
    /// An array of `u32`: which entry of the third mapping lies at a place of the queue.
    pub array: u32,
    pub resv1: u32,
    pub user_addr: u64,
}

/// `struct io_cqring_offsets`
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct CqOffsets {
    /// A [`Word`], written by you: entries before it may be used again.
    pub head: u32,
    /// A [`Word`], written by the kernel: entries before it are filled.
    pub tail: u32,
    pub ring_mask: u32,
    pub ring_entries: u32,
    pub overflow: u32,
    /// An array of [`Cqe`].
    pub cqes: u32,
    pub flags: u32,
    pub resv1: u32,
    pub user_addr: u64,
}

/// `struct io_uring_sqe`, 64 bytes.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sqe {
    pub opcode: u8,
    pub flags: u8,
    pub ioprio: u16,
    pub fd: i32,
    pub off: u64,
    pub addr: u64,
    pub len: u32,
    /// For RECV and SEND, `MSG_…`.
    pub op_flags: u32,
    pub user_data: u64,
    pub buf_group: u16,
    pub personality: u16,
    pub splice_fd_in: i32,
    pub pad: [u64; 2],
}

/// `struct io_uring_cqe`, 16 bytes.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cqe {
    pub user_data: u64,
    /// A number of bytes, or a negated errno.
    pub res: i32,
    pub flags: u32,
}

/// `struct io_uring_buf`, 16 bytes: an entry of a ring of buffers. The last two bytes of the *first* entry are no
/// part of it: there is the ring's tail, a [`Word16`] that begins at 0 and wraps at 2^16.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Buf {
    pub addr: u64,
    pub len: u32,
    pub bid: u16,
    pub tail: u16,
}

/// `struct io_uring_buf_reg`
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct BufReg {
    /// Where the ring of entries is: at the beginning of a page.
    pub ring_addr: u64,
    /// A power of two.
    pub ring_entries: u32,
    pub bgid: u16,
    pub flags: u16,
    pub resv: [u64; 3],
}

/// Offsets for [`Kernel::map`]: both queues (since Linux 5.4 one mapping, as long as the longer needs), and the entries.
pub const OFF_RINGS: u64 = 0;
pub const OFF_SQES: u64 = 0x1000_0000;

pub const OP_NOP: u8 = 0;
pub const OP_SEND: u8 = 26;
pub const OP_RECV: u8 = 27;
/// [`Sqe::flags`]: the kernel picks a buffer of the group.
pub const BUFFER_SELECT: u8 = 1 << 5;
/// [`Sqe::ioprio`] of a RECV: it completes again and again. Its `len` is 0 then.
pub const RECV_MULTISHOT: u16 = 1 << 1;
/// [`Cqe::flags`]: the upper 16 bits are the number of a buffer.
pub const CQE_BUFFER: u32 = 1 << 0;
/// [`Cqe::flags`]: the same submission will complete again. Without it, it has ended.
pub const CQE_MORE: u32 = 1 << 1;
/// For [`Kernel::enter`], to wait.
pub const ENTER_GETEVENTS: u32 = 1 << 0;
