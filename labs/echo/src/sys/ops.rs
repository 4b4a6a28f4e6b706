//! What the ring can be asked to do. Every operation owns its memory until it has completed.
#![allow(unsafe_code, reason = "submissions are pointers that the kernel follows later")]

use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use kit::SysError;

use super::pool::Piece;
use super::ring::{Done, GROUP, Held, Ring, Sock};

impl Ring {
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
        part: Range<usize>,
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

    /// A receive found no buffer (ENOBUFS): lets more of the pool take part.
    pub fn starved(&mut self) {
        if let Some(pool) = self.pool.as_mut() {
            pool.grow();
        }
    }

    /// Lets the kernel receive into a buffer again, from the next [`Ring::enter`] on.
    pub fn give_back(&mut self, piece: Piece) {
        if let Some(pool) = self.pool.as_mut() {
            pool.give(piece.bid);
        }
    }
}
