//! An io_uring whose operations own the memory they use, so that using it is safe.
#![allow(unsafe_code, reason = "submissions are pointers that the kernel follows later")]

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, cqueue, opcode, types};
use kit::SysError;
use nix::errno::Errno;

use super::pool::{Piece, Pool};
use crate::spec::{Knobs, Taskrun};

/// Group of the one ring of buffers.
const GROUP: u16 = 0;
/// Marks operations that complete only if they fail.
const QUIET: u64 = 1 << 63;
/// Entries of the submission queue.
const ENTRIES: u32 = 1024;

/// A connection as the ring knows it: a descriptor of the process, or a place in the ring's own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sock {
    number: u32,
    fixed: bool,
}

/// A completion.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// What the submission was marked with.
    pub tag: u64,
    /// The result: a number of bytes, or a negated errno.
    pub result: i32,
    /// Whether the same submission will complete again (`IORING_CQE_F_MORE`).
    pub more: bool,
    quiet: bool,
    /// The first buffer used, if one was chosen by the kernel.
    buffer: Option<u16>,
}

impl Done {
    /// The result as a number, or the errno.
    pub fn result(&self) -> Result<u32, Errno> {
        u32::try_from(self.result).map_err(|_| Errno::from_raw(self.result.wrapping_neg()))
    }
}

/// Memory that an operation under way uses.
#[derive(Debug)]
enum Held {
    Bytes(Vec<u8>),
    /// For SENDMSG: the header points to the vector, and the vector into the pool.
    Gather { _iov: Vec<libc::iovec>, _header: Box<libc::msghdr> },
}

/// A ring, its pool of buffers, and the memory of all operations under way.
pub struct Ring {
    io: ManuallyDrop<IoUring>,
    pool: ManuallyDrop<Option<Pool>>,
    /// By the place of the connection; each has at most one operation with memory at a time.
    held: ManuallyDrop<Vec<Option<Held>>>,
    /// Completions taken early to make room.
    early: VecDeque<Done>,
    /// Operations that have not completed for good. Quiet ones are done when `enter` returns.
    under_way: usize,
    /// Size of the ring's own table of files, if connections go there.
    table: Option<usize>,
    sqpoll: bool,
    /// Calls of io_uring_enter(2).
    pub enters: u64,
    /// Submissions made.
    pub submitted: u64,
}

impl Ring {
    /// A ring with the knobs that the kernel grants, and what it refused.
    ///
    /// # Errors
    /// io_uring_setup(2): `ENOSYS`, `EPERM`, `ENOMEM`; io_uring_register(2): `EINVAL` before Linux 5.19.
    pub fn new(knobs: &Knobs, with_pool: bool) -> Result<(Ring, Vec<String>), SysError> {
        let mut notes = Vec::new();
        let io = setup(knobs, &mut notes)?;
        let mut table = knobs.fixed_files.then_some(0);
        if table.is_some() {
            let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
            let size = limit.map_or(1024, |(soft, _)| soft).min(1 << 15) as u32;
            table = match io.submitter().register_files_sparse(size) {
                Ok(()) => Some(size as usize),
                Err(e) => {
                    notes.push(format!("registered files refused ({e}): ordinary descriptors instead"));
                    None
                }
            };
        }
        let pool = with_pool.then(|| Pool::new(knobs.buffers)).transpose()?;
        if let Some(pool) = &pool {
            // SAFETY: the pool's entries are page-aligned, as many as said, and live until `Ring` is dropped,
            // which closes the ring first.
            unsafe { io.submitter().register_buf_ring_with_flags(pool.address(), pool.entries(), GROUP, 0) }
                .map_err(SysError::io("io_uring_register(PBUF_RING)"))?;
        }
        let ring = Ring {
            io: ManuallyDrop::new(io),
            pool: ManuallyDrop::new(pool),
            held: ManuallyDrop::new(Vec::new()),
            early: VecDeque::new(),
            under_way: 0,
            table,
            sqpoll: knobs.sqpoll,
            enters: 0,
            submitted: 0,
        };
        Ok((ring, notes))
    }

    /// Operations that have not completed for good.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether bundles work (`IORING_FEAT_RECVSEND_BUNDLE`, Linux 6.10).
    pub fn has_bundles(&self) -> bool {
        self.io.params().is_feature_recvsend_bundle()
    }

    /// Whether a send that succeeds can be silent (`IORING_FEAT_CQE_SKIP`, Linux 5.17), and is done when
    /// io_uring_enter(2) returns: not so where another thread submits.
    pub fn can_be_quiet(&self) -> bool {
        self.io.params().is_feature_skip_cqe_on_success() && !self.sqpoll
    }

    /// How many connections its own table has room for; none if they are ordinary descriptors.
    pub fn table(&self) -> Option<usize> {
        self.table
    }

    /// The connection that an accept returned.
    pub fn sock(&self, accepted: u32) -> Sock {
        Sock { number: accepted, fixed: self.table.is_some() }
    }

    /// Submits all that is queued and waits until there is a completion or the time is over.
    ///
    /// # Errors
    /// io_uring_enter(2), other than for lack of completions or room.
    pub fn enter(&mut self, wait: bool, limit: Option<Duration>) -> Result<(), SysError> {
        if let Some(pool) = self.pool.as_ref() {
            pool.publish();
        }
        let mut want = usize::from(wait && self.early.is_empty());
        loop {
            self.enters += 1;
            let result = match limit.filter(|_| want > 0) {
                None => self.io.submit_and_wait(want),
                Some(limit) => {
                    let ts = types::Timespec::from(limit);
                    self.io.submitter().submit_with_args(want, &types::SubmitArgs::new().timespec(&ts))
                }
            };
            match result.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0))) {
                Ok(_) | Err(Errno::ETIME) => {}
                Err(Errno::EINTR) => {}
                // The completion queue is full, or memory is short: take completions, then go on.
                Err(Errno::EBUSY | Errno::EAGAIN) => self.take_early(),
                Err(e) => return Err(SysError::new("io_uring_enter", e as i32)),
            }
            // The kernel may take fewer submissions than there are; quiet sends count on all being taken.
            if self.sqpoll || self.io.submission().is_empty() {
                return Ok(());
            }
            want = 0;
        }
    }

    /// The next completion, if there is one.
    pub fn next_done(&mut self) -> Option<Done> {
        let done = self.early.pop_front().or_else(|| self.io.completion().next().map(|c| done(&c)))?;
        if !done.more && !done.quiet {
            self.under_way = self.under_way.saturating_sub(1);
        }
        Some(done)
    }

    /// Whether completions wait in the kernel because the queue was full.
    pub fn overflowed(&mut self) -> bool {
        self.io.submission().cq_overflow()
    }

    fn take_early(&mut self) {
        let (io, early) = (&mut self.io, &mut self.early);
        early.extend(io.completion().map(|c| done(&c)));
    }

    /// Queues an entry.
    ///
    /// # Safety
    /// What the entry points to is valid until its last completion: owned by `held` or `pool`.
    unsafe fn push(&mut self, sock: Option<Sock>, tag: u64, entry: Entry, quiet: bool) -> Result<(), SysError> {
        let mut flags = Flags::empty();
        // The entry's `fd` holds a descriptor or a place; the flag says which.
        flags.set(Flags::FIXED_FILE, sock.is_some_and(|s| s.fixed));
        flags.set(Flags::SKIP_SUCCESS, quiet);
        let entry = entry.flags(flags).user_data(if quiet { tag | QUIET } else { tag });
        while self.io.submission().is_full() {
            self.enter(false, None)?;
        }
        // SAFETY: the caller keeps the memory; there is room, so the push cannot fail.
        let _ = unsafe { self.io.submission().push(&entry) };
        self.submitted += 1;
        self.under_way += usize::from(!quiet);
        Ok(())
    }

    /// Queues an entry that points to no memory.
    fn push_plain(&mut self, sock: Option<Sock>, tag: u64, entry: Entry) -> Result<(), SysError> {
        // SAFETY: nothing to keep.
        unsafe { self.push(sock, tag, entry, false) }
    }

    /// Accepts one connection, or (`multi`) one after the other.
    ///
    /// # Errors
    /// io_uring_enter(2), if the queue is full; so for all operations below.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, tag: u64, multi: bool) -> Result<(), SysError> {
        let fd = types::Fd(listener.as_raw_fd());
        let flags = libc::SOCK_CLOEXEC;
        let entry = match (multi, self.table.is_some()) {
            (true, true) => opcode::AcceptMulti::new(fd).allocate_file_index(true).build(),
            (true, false) => opcode::AcceptMulti::new(fd).flags(flags).build(),
            (false, fixed) => {
                let accept = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut());
                let slot = types::DestinationSlot::auto_target();
                if fixed { accept.file_index(Some(slot)).build() } else { accept.flags(flags).build() }
            }
        };
        self.push_plain(None, tag, entry)
    }

    /// Completes once the descriptor is readable.
    pub fn poll_readable(&mut self, fd: BorrowedFd<'_>, tag: u64) -> Result<(), SysError> {
        let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32).build();
        self.push_plain(None, tag, entry)
    }

    /// Receives again and again, into buffers of the pool; `bundle`: several at a time.
    pub fn recv_multi(&mut self, sock: Sock, tag: u64, bundle: bool) -> Result<(), SysError> {
        let entry = if bundle {
            opcode::RecvMultiBundle::new(sock.target(), GROUP).build()
        } else {
            opcode::RecvMulti::new(sock.target(), GROUP).build()
        };
        // The pool is not pointed to: the kernel knows it by its group, until the ring is closed.
        self.push_plain(Some(sock), tag, entry)
    }

    /// Receives once into `bytes` (all of its length), which [`Ring::take_bytes`] returns afterwards.
    pub fn recv(&mut self, sock: Sock, tag: u64, place: usize, mut bytes: Vec<u8>) -> Result<(), SysError> {
        let entry = opcode::Recv::new(sock.target(), bytes.as_mut_ptr(), bytes.len() as u32).build();
        self.hold(place, Held::Bytes(bytes));
        // SAFETY: `held` has the bytes, at the same address, until they are taken after the completion.
        unsafe { self.push(Some(sock), tag, entry, false) }
    }

    /// Sends a part of `bytes`, waiting for room (`MSG_WAITALL`: for room for all of it).
    pub fn send_bytes(
        &mut self,
        sock: Sock,
        tag: u64,
        place: usize,
        bytes: Vec<u8>,
        part: std::ops::Range<usize>,
    ) -> Result<(), SysError> {
        let data = &bytes[part];
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::Send::new(sock.target(), data.as_ptr(), data.len() as u32).flags(flags).build();
        self.hold(place, Held::Bytes(bytes));
        // SAFETY: as in `recv`.
        unsafe { self.push(Some(sock), tag, entry, false) }
    }

    /// Sends pieces of the pool, in order, without waiting for room: it completes while it is submitted,
    /// possibly having sent less. `quiet`: no completion if all was sent.
    ///
    /// Until then the pieces must not be given back; [`Ring::release`] the place when it is done.
    pub fn send_pieces(
        &mut self,
        sock: Sock,
        tag: u64,
        place: usize,
        pieces: &[Piece],
        quiet: bool,
    ) -> Result<(), SysError> {
        let Some(pool) = self.pool.as_ref() else { return Ok(()) };
        // WAITALL makes a short send count as a failure, which is never silent.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
        let entry = if let [one] = pieces {
            opcode::Send::new(sock.target(), pool.buffer(one.bid), one.len).flags(flags).build()
        } else {
            let mut iov: Vec<libc::iovec> = pieces
                .iter()
                .map(|p| libc::iovec { iov_base: pool.buffer(p.bid).cast(), iov_len: p.len as usize })
                .collect();
            // SAFETY: a msghdr of zeroes is one without address, data and control data.
            let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
            header.msg_iov = iov.as_mut_ptr();
            header.msg_iovlen = iov.len();
            let entry = opcode::SendMsg::new(sock.target(), &raw const *header).flags(flags as u32).build();
            self.hold(place, Held::Gather { _iov: iov, _header: header });
            entry
        };
        // SAFETY: the data is in the pool, which lives as long as the ring; header and vector are in `held`
        // until `release`, which the caller calls after the completion or, if quiet, after `enter`.
        unsafe { self.push(Some(sock), tag, entry, quiet) }
    }

    /// shutdown(2) by the ring.
    pub fn shutdown(&mut self, sock: Sock, tag: u64, how: i32) -> Result<(), SysError> {
        self.push_plain(Some(sock), tag, opcode::Shutdown::new(sock.target(), how).build())
    }

    /// close(2) by the ring. Nothing may be under way on the connection.
    pub fn close(&mut self, sock: Sock, tag: u64) -> Result<(), SysError> {
        let entry = match sock.fixed {
            true => opcode::Close::new(types::Fixed(sock.number)).build(),
            false => opcode::Close::new(sock.target()).build(),
        };
        self.push_plain(None, tag, entry)
    }

    /// Asks for the operation marked `target` to end, with `ECANCELED`.
    pub fn cancel(&mut self, target: u64, tag: u64) -> Result<(), SysError> {
        self.push_plain(None, tag, opcode::AsyncCancel::new(target).build())
    }

    fn hold(&mut self, place: usize, memory: Held) {
        if self.held.len() <= place {
            self.held.resize_with(place + 1, || None);
        }
        assert!(self.held[place].is_none(), "one operation with memory a connection");
        self.held[place] = Some(memory);
    }

    /// After the completion: the bytes that were received into or sent from.
    pub fn take_bytes(&mut self, place: usize) -> Vec<u8> {
        match self.held.get_mut(place).and_then(Option::take) {
            Some(Held::Bytes(bytes)) => bytes,
            _ => Vec::new(),
        }
    }

    /// After the completion: drops what a send of several pieces needed.
    pub fn release(&mut self, place: usize) {
        if let Some(held) = self.held.get_mut(place) {
            *held = None;
        }
    }

    /// The pieces that a completed receive filled, appended to `to`.
    pub fn pieces(&self, done: &Done, to: &mut Vec<Piece>) {
        if let (Some(pool), Some(first), Ok(total)) = (self.pool.as_ref(), done.buffer, done.result()) {
            to.extend(pool.pieces(first, total));
        }
    }

    /// Appends the bytes of a piece, from `skip` on, to ordinary memory.
    pub fn copy(&self, piece: &Piece, skip: usize, to: &mut Vec<u8>) {
        if let Some(pool) = self.pool.as_ref() {
            pool.copy(piece, skip, to);
        }
    }

    /// Lets the kernel receive into a buffer again, from the next [`Ring::enter`] on.
    pub fn give_back(&mut self, piece: Piece) {
        if let Some(pool) = self.pool.as_mut() {
            pool.give(piece.bid);
        }
    }
}

impl Sock {
    fn target(self) -> types::Fd {
        types::Fd(self.number as i32)
    }
}

fn done(c: &cqueue::Entry) -> Done {
    let flags = c.flags();
    let quiet = c.user_data() & QUIET != 0;
    Done {
        tag: c.user_data() & !QUIET,
        result: c.result(),
        more: cqueue::more(flags),
        quiet,
        buffer: cqueue::buffer_select(flags),
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: nothing uses the ring any more. It goes first: the kernel then forgets pool and files.
        unsafe { ManuallyDrop::drop(&mut self.io) };
        if self.under_way > 0 {
            // An error ended the server early. The kernel may still write to what it was given, so that
            // memory is never freed.
            return;
        }
        // SAFETY: no operation is under way, so nobody but us knows the memory.
        unsafe { ManuallyDrop::drop(&mut self.pool) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.held) };
    }
}

/// io_uring_setup(2), with the deferral wished for or the next best one.
fn setup(knobs: &Knobs, notes: &mut Vec<String>) -> Result<IoUring, SysError> {
    let mut wish = if knobs.sqpoll { Taskrun::Interrupt } else { knobs.taskrun };
    loop {
        let mut builder = IoUring::builder();
        builder.setup_clamp();
        if knobs.sqpoll {
            builder.setup_sqpoll(50);
        } else {
            builder.setup_submit_all();
        }
        match wish {
            Taskrun::Interrupt => {}
            Taskrun::Coop => {
                builder.setup_coop_taskrun();
            }
            Taskrun::Defer => {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
        }
        builder.setup_cqsize(if knobs.cq_entries == 0 { 8 * ENTRIES } else { knobs.cq_entries });
        let entries = if knobs.cq_entries == 0 { ENTRIES } else { knobs.cq_entries.min(ENTRIES) };
        let (lower, name) = match wish {
            Taskrun::Defer => (Taskrun::Coop, "DEFER_TASKRUN"),
            Taskrun::Coop => (Taskrun::Interrupt, "COOP_TASKRUN"),
            Taskrun::Interrupt => return builder.build(entries).map_err(SysError::io("io_uring_setup")),
        };
        match builder.build(entries) {
            Ok(io) => return Ok(io),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                notes.push(format!("{name} refused (EINVAL): trying with less"));
                wish = lower;
            }
            Err(e) => return Err(SysError::io("io_uring_setup")(e)),
        }
    }
}
