//! Send bundles (`IORING_RECVSEND_BUNDLE`, Linux 6.10): a ring of buffers for each connection, from which
//! one submission sends all that is in it.
#![allow(unsafe_code, reason = "the kernel reads the ring on its own")]

use std::sync::atomic::Ordering;

use io_uring::opcode;
use kit::SysError;

use super::pool::{Entry, Piece, Pool};
use super::ring::{GROUP, Ring, Sock};

/// Entries of a ring, one page of them. The kernel takes as many for one bundle at most
/// (`PEEK_MAX_IMPORT` in io_uring/kbuf.c), so all that is queued goes in one piece, in order.
pub const ENTRIES: u16 = 256;

/// The entries. The kernel only reads them.
#[repr(C, align(4096))]
#[derive(Debug, Default)]
struct Page([[Entry; 16]; 16]);

/// A connection's ring of buffers to send from; they are pieces of the pool, only named here.
#[derive(Debug, Default)]
pub(super) struct SendRing {
    page: Box<Page>,
    tail: u16,
}

impl SendRing {
    fn queue(&mut self, pieces: &[Piece], pool: &Pool) {
        let entries = self.page.0.as_flattened();
        for piece in pieces {
            let entry = &entries[usize::from(self.tail % ENTRIES)];
            entry.set(pool.buffer(piece.bid), piece.len, piece.bid);
            self.tail = self.tail.wrapping_add(1);
        }
        // Release: the kernel sees the entries before the tail, as in `Pool::publish`.
        entries[0].tail.store(self.tail, Ordering::Release);
    }
}

impl Ring {
    /// Sends at most [`ENTRIES`] pieces of the pool by one bundle, without waiting for room. Returns false
    /// if there can be no ring for this connection: then nothing was queued.
    ///
    /// Until it has completed, the pieces must not be given back; [`Ring::forget_sends`] unless all was sent.
    ///
    /// # Errors
    /// io_uring_enter(2), if the queue is full.
    pub fn send_bundle(
        &mut self,
        sock: Sock,
        tag: u64,
        place: usize,
        pieces: &[Piece],
    ) -> Result<bool, SysError> {
        let Some(group) = group(place).filter(|_| self.has_send_ring(place)) else { return Ok(false) };
        let (Some(ring), Some(pool)) = (self.sends[place].as_mut(), self.pool.as_ref()) else {
            return Ok(false);
        };
        ring.queue(pieces, pool);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let entry = opcode::SendBundle::new(sock.target(), group).flags(flags).build();
        // SAFETY: the entry points to nothing itself; the ring that its group names is in `sends`, and the
        // data in the pool: both stay until the kernel has closed the ring or unregistered the group.
        unsafe { self.push(Some(sock), tag, entry, false) }?;
        Ok(true)
    }

    /// After a bundle that fell short or failed: which entries the kernel took is uncertain, so the next
    /// bundle of this connection gets a new ring. No send may be under way on it.
    pub fn forget_sends(&mut self, place: usize) {
        let Some(ring) = self.sends.get_mut(place).and_then(Option::take) else { return };
        let unregistered = group(place).map(|group| self.io.submitter().unregister_buf_ring(group));
        self.registers += 1;
        if !matches!(unregistered, Some(Ok(()))) {
            // The kernel still knows the page, so it must never be used for anything else.
            std::mem::forget(ring);
        }
    }

    /// Makes a ring for the connection at this place if it has none.
    fn has_send_ring(&mut self, place: usize) -> bool {
        if self.sends.len() <= place {
            self.sends.resize_with(place + 1, || None);
        }
        if self.sends[place].is_some() {
            return true;
        }
        let Some(group) = group(place) else { return false };
        let ring = SendRing::default();
        let address = (&raw const *ring.page) as u64;
        self.registers += 1;
        // SAFETY: a page of `ENTRIES` entries, page-aligned, which stays at its address in the box until the
        // group is unregistered (`forget_sends`) or the ring is closed (`Ring::drop`, which does that first).
        let done = unsafe { self.io.submitter().register_buf_ring_with_flags(address, ENTRIES, group, 0) };
        if done.is_ok() {
            self.sends[place] = Some(ring);
        }
        done.is_ok()
    }
}

/// The group of a connection's ring: numbers of 16 bits, of which the pool has one.
fn group(place: usize) -> Option<u16> {
    u16::try_from(place + 1 + usize::from(GROUP)).ok()
}
