//! Fails `echoes_come_back`: a send that takes a part is taken for a whole one.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::uring::{
    BUFFER_SELECT, Buf, BufReg, CQE_BUFFER, CQE_MORE, Cqe, ENTER_GETEVENTS, Fd, Kernel, OFF_RINGS, OFF_SQES,
    OP_RECV, OP_SEND, Params, RECV_MULTISHOT, Sqe, Word, Word16,
};
use nix::errno::Errno;

/// A mapping, given back when it is dropped.
struct Map<'k, K: Kernel> {
    kernel: &'k K,
    start: NonNull<u8>,
    len: usize,
}

impl<K: Kernel> Map<'_, K> {
    /// The `index`th `T` of those that begin at `offset`.
    fn at<T>(&self, offset: u32, index: u32) -> *mut T {
        let offset = offset as usize + index as usize * size_of::<T>();
        assert!(offset + size_of::<T>() <= self.len);
        self.start.as_ptr().wrapping_add(offset).cast()
    }

    fn word(&self, offset: u32) -> &Word {
        let at: *mut Word = self.at(offset, 0);
        // SAFETY: in the mapping, which lives as long as self; aligned, as the kernel has put it there; and an atomic for
        // both sides.
        unsafe { &*at }
    }

    fn number(&self, offset: u32) -> u32 {
        let at: *mut u32 = self.at(offset, 0);
        // SAFETY: in the mapping and aligned, as above; the kernel writes it once, before the ring is ours.
        unsafe { at.read() }
    }
}

impl<K: Kernel> Drop for Map<'_, K> {
    fn drop(&mut self) {
        // SAFETY: what `map` or `memory` gave; its owner is going, and lends nothing that outlives it.
        unsafe { self.kernel.unmap(self.start, self.len) }
    }
}

/// The ring's descriptor, closed when it is dropped: also on the way out of a `new` that fails half-way.
struct Descriptor<'k, K: Kernel> {
    kernel: &'k K,
    fd: Fd,
}

impl<K: Kernel> Drop for Descriptor<'_, K> {
    fn drop(&mut self) {
        self.kernel.close(self.fd);
    }
}

/// A ring: a descriptor, two mappings, two queues.
pub struct Uring<'k, K: Kernel> {
    ring: Descriptor<'k, K>,
    queues: Map<'k, K>,
    sqes: Map<'k, K>,
    params: Params,
    sq_mask: u32,
    cq_mask: u32,
}

impl<'k, K: Kernel> Uring<'k, K> {
    /// A ring with room for `entries` submissions at least.
    ///
    /// # Errors
    /// A call's.
    pub fn new(kernel: &'k K, entries: u32) -> Result<Self, Errno> {
        let mut params = Params::default();
        let fd = kernel.setup(entries, &mut params)?;
        let ring = Descriptor { kernel, fd };
        // The kernel has rounded up: its numbers count, not ours.
        let (sq, cq) = (&params.sq_off, &params.cq_off);
        let sq_len = sq.array as usize + params.sq_entries as usize * size_of::<u32>();
        let cq_len = cq.cqes as usize + params.cq_entries as usize * size_of::<Cqe>();
        let map = |len, offset| kernel.map(fd, len, offset).map(|start| Map { kernel, start, len });
        let queues = map(sq_len.max(cq_len), OFF_RINGS)?;
        let sqes = map(params.sq_entries as usize * size_of::<Sqe>(), OFF_SQES)?;
        let (sq_mask, cq_mask) = (queues.number(sq.ring_mask), queues.number(cq.ring_mask));
        Ok(Self { ring, queues, sqes, params, sq_mask, cq_mask })
    }

    /// Entries that the kernel has not taken yet.
    fn waiting(&self) -> u32 {
        let (head, tail) = (self.params.sq_off.head, self.params.sq_off.tail);
        // Acquire: pairs with the kernel's release after it has read the entries, which may be used again.
        let head = self.queues.word(head).load(Ordering::Acquire);
        self.queues.word(tail).load(Ordering::Relaxed).wrapping_sub(head)
    }

    /// Puts an entry into the submission queue. `false` if there is no room.
    pub fn push(&mut self, sqe: Sqe) -> bool {
        if self.waiting() == self.params.sq_entries {
            return false;
        }
        let tail = self.queues.word(self.params.sq_off.tail);
        // Only we write it.
        let at = tail.load(Ordering::Relaxed);
        let place = at & self.sq_mask;
        let entry: *mut Sqe = self.sqes.at(0, place);
        // SAFETY: in the mapping and aligned; not the kernel's until the tail has passed it.
        unsafe { entry.write(sqe) };
        let array: *mut u32 = self.queues.at(self.params.sq_off.array, place);
        // SAFETY: as above.
        unsafe { array.write(place) };
        // Release: the kernel sees the entry before the tail that has passed it.
        tail.store(at.wrapping_add(1), Ordering::Release);
        true
    }

    /// Has the kernel take all that was pushed, and waits.
    ///
    /// # Errors
    /// io_uring_enter(2), but for `EINTR`.
    pub fn enter(&mut self, wait_for: u32) -> Result<(), Errno> {
        loop {
            let waiting = self.waiting();
            if waiting == 0 && self.ready() >= wait_for {
                return Ok(());
            }
            match self.ring.kernel.enter(self.ring.fd, waiting, wait_for, ENTER_GETEVENTS) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Completions that are there.
    fn ready(&self) -> u32 {
        let (head, tail) = (self.params.cq_off.head, self.params.cq_off.tail);
        // Acquire: pairs with the kernel's release after it has written the entries.
        let tail = self.queues.word(tail).load(Ordering::Acquire);
        tail.wrapping_sub(self.queues.word(head).load(Ordering::Relaxed))
    }

    /// Takes the oldest completion.
    pub fn pop(&mut self) -> Option<Cqe> {
        if self.ready() == 0 {
            return None;
        }
        let head = self.queues.word(self.params.cq_off.head);
        let at = head.load(Ordering::Relaxed);
        let entry: *mut Cqe = self.queues.at(self.params.cq_off.cqes, at & self.cq_mask);
        // SAFETY: in the mapping and aligned; the tail has passed it, and the kernel leaves it alone until the head does.
        let cqe = unsafe { entry.read() };
        // Release: we have read the entry before the kernel sees that it may be used again.
        head.store(at.wrapping_add(1), Ordering::Release);
        Some(cqe)
    }
}

/// A ring of buffers that the kernel picks from, and the buffers, in one mapping.
pub struct Buffers<'k, K: Kernel> {
    map: Map<'k, K>,
    entries: u16,
    size: u32,
    /// Buffers ever given, modulo 2^16.
    tail: u16,
}

impl<'k, K: Kernel> Buffers<'k, K> {
    /// Registers buffers, and gives them all to the kernel.
    ///
    /// # Errors
    /// A call's.
    pub fn new(ring: &Uring<'k, K>, entries: u16, size: u32, group: u16) -> Result<Self, Errno> {
        let kernel = ring.ring.kernel;
        let len = usize::from(entries) * (size_of::<Buf>() + size as usize);
        let map = Map { kernel, start: kernel.memory(len)?, len };
        let registration = BufReg {
            ring_addr: map.start.as_ptr() as u64,
            ring_entries: entries.into(),
            bgid: group,
            ..BufReg::default()
        };
        kernel.register_buffers(ring.ring.fd, &registration)?;
        let mut buffers = Self { map, entries, size, tail: 0 };
        (0..entries).for_each(|bid| buffers.give(bid));
        Ok(buffers)
    }

    /// Gives a buffer to the kernel.
    pub fn give(&mut self, bid: u16) {
        let entry: *mut Buf = self.map.at(0, u32::from(self.tail & (self.entries - 1)));
        // Field by field: where the fourth would be, entry 0 has the tail.
        // SAFETY: in the mapping and aligned; not the kernel's until the tail has passed it.
        unsafe { (&raw mut (*entry).addr).write(self.address(bid)) };
        // SAFETY: as above.
        unsafe { (&raw mut (*entry).len).write(self.size) };
        // SAFETY: as above.
        unsafe { (&raw mut (*entry).bid).write(bid) };
        self.tail = self.tail.wrapping_add(1);
        let tail: *mut Word16 = self.map.at(std::mem::offset_of!(Buf, tail) as u32, 0);
        // SAFETY: in the mapping, and an atomic for both sides.
        let tail = unsafe { &*tail };
        // Release: the kernel sees the entry before the tail that has passed it.
        tail.store(self.tail, Ordering::Release);
    }

    /// Where a buffer is: behind the entries.
    pub fn address(&self, bid: u16) -> u64 {
        let offset = usize::from(self.entries) * size_of::<Buf>() + usize::from(bid) * self.size as usize;
        self.map.start.as_ptr() as u64 + offset as u64
    }
}

/// A part of a buffer that is to be sent.
struct Piece {
    bid: u16,
    from: u32,
    to: u32,
}

/// What has to be remembered of a socket.
#[derive(Default)]
struct Conn {
    /// Received, not yet sent; the first of them is being sent.
    pieces: VecDeque<Piece>,
    /// A receive is under way.
    receiving: bool,
    ended: bool,
}

const GROUP: u16 = 0;
/// In `user_data`: the operation is a send. Below it is the number of the socket.
const SEND: u64 = 1 << 32;

struct Server<'k, K: Kernel> {
    ring: Uring<'k, K>,
    buffers: Buffers<'k, K>,
    sockets: &'k [Fd],
    conns: Vec<Conn>,
}

/// Echoes what comes from these sockets until all of them have ended.
///
/// # Errors
/// A call's.
pub fn echo(kernel: &impl Kernel, sockets: &[Fd], buffers: u16, size: u32) -> Result<(), Errno> {
    let ring = Uring::new(kernel, 64)?;
    let buffers = Buffers::new(&ring, buffers, size, GROUP)?;
    let conns = sockets.iter().map(|_| Conn::default()).collect();
    let mut server = Server { ring, buffers, sockets, conns };
    let served = server.serve();
    if served.is_err() {
        // Receives are under way, and may write to the buffers until after the ring is closed.
        std::mem::forget(server.buffers);
    }
    served
}

impl<K: Kernel> Server<'_, K> {
    fn serve(&mut self) -> Result<(), Errno> {
        loop {
            // Whose receive has ended is armed again here, if there are buffers: without, it would end again at once.
            let used: usize = self.conns.iter().map(|conn| conn.pieces.len()).sum();
            for at in 0..self.conns.len() {
                let conn = &self.conns[at];
                if !conn.receiving && !conn.ended && used < self.buffers.entries.into() {
                    self.receive(at)?;
                }
            }
            if self.conns.iter().all(|conn| conn.ended && conn.pieces.is_empty()) {
                return Ok(());
            }
            // All that is there is dealt with before the kernel is asked again: that is what saves calls.
            self.ring.enter(1)?;
            while let Some(cqe) = self.ring.pop() {
                let at = (cqe.user_data & (SEND - 1)) as usize;
                if cqe.user_data & SEND == 0 { self.received(at, &cqe)? } else { self.sent(at, &cqe)? }
            }
        }
    }

    fn push(&mut self, sqe: Sqe) -> Result<(), Errno> {
        while !self.ring.push(sqe) {
            self.ring.enter(0)?;
        }
        Ok(())
    }

    fn receive(&mut self, at: usize) -> Result<(), Errno> {
        self.conns[at].receiving = true;
        self.push(Sqe {
            opcode: OP_RECV,
            flags: BUFFER_SELECT,
            ioprio: RECV_MULTISHOT,
            fd: self.sockets[at],
            buf_group: GROUP,
            user_data: at as u64,
            ..Sqe::default()
        })
    }

    /// Sends the first piece, or what is left of it.
    fn send(&mut self, at: usize) -> Result<(), Errno> {
        let Some(piece) = self.conns[at].pieces.front() else { return Ok(()) };
        self.push(Sqe {
            opcode: OP_SEND,
            fd: self.sockets[at],
            addr: self.buffers.address(piece.bid) + u64::from(piece.from),
            len: piece.to - piece.from,
            op_flags: libc::MSG_NOSIGNAL as u32,
            user_data: SEND | at as u64,
            ..Sqe::default()
        })
    }

    fn received(&mut self, at: usize, cqe: &Cqe) -> Result<(), Errno> {
        let conn = &mut self.conns[at];
        conn.receiving = cqe.flags & CQE_MORE != 0;
        let bid = (cqe.flags & CQE_BUFFER != 0).then_some((cqe.flags >> 16) as u16);
        match (cqe.res, bid) {
            (1.., Some(bid)) => {
                conn.pieces.push_back(Piece { bid, from: 0, to: cqe.res as u32 });
                // One send at a time: two could overtake each other.
                if conn.pieces.len() == 1 { self.send(at) } else { Ok(()) }
            }
            (res, bid) => {
                // Out of buffers: they come back as sends complete.
                conn.ended = res != -libc::ENOBUFS && !conn.receiving;
                bid.into_iter().for_each(|bid| self.buffers.give(bid));
                Ok(())
            }
        }
    }

    fn sent(&mut self, at: usize, cqe: &Cqe) -> Result<(), Errno> {
        let conn = &mut self.conns[at];
        let Some(piece) = conn.pieces.front_mut() else { return Ok(()) };
        if cqe.res < 0 {
            // The client is gone: nothing of this is wanted any more. Its receive ends by itself.
            conn.pieces.drain(..).for_each(|piece| self.buffers.give(piece.bid));
            return Ok(());
        }
        piece.from = piece.to;
        if piece.from == piece.to {
            // Not earlier: until now the kernel may have been reading.
            self.buffers.give(piece.bid);
            conn.pieces.pop_front();
        }
        self.send(at)
    }
}
