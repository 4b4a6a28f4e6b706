//! Stage 6: io_uring(7) with multishot accept and receive and a ring of buffers.
//!
//! ```text
//!             armed once                    a completion each time
//!   recv  ---------------------> kernel ---------------------------> (connection, buffer, length)
//!                                  ^  takes a buffer only when                |
//!                                  |  there is something to receive           v
//!                ring of buffers --+ <---- give back ---- send, submitted with the next wait
//! ```
//!
//! One submission receives for the whole life of a connection, so a request costs one submission (its
//! send), and idle connections hold no memory. Sends do not wait (`MSG_DONTWAIT`): they are done, or have
//! fallen short, when io_uring_enter(2) returns. So the buffers come back at once, whatever clients do, and
//! a send that went well needs no completion at all (`quiet`). What arrived in several buffers leaves by
//! one vectored send; or (`send_bundles`) by one bundle, for which each connection that needs it gets a
//! ring of buffers of its own, to send from. Bundles always complete.
//!
//! A client that does not read: what its socket did not take is copied out of the ring, its receive is
//! cancelled, and armed again when all is sent. Buffers received before the cancellation took effect
//! are kept too, so what a connection holds is bounded by the ring of buffers (4 MiB by default), and
//! by twice that where the kernel may receive while it submits; with SQPOLL only by how soon the kernel's
//! thread takes the cancellation.

use kit::SysError;
use nix::errno::Errno;

use crate::listen::Listener;
use crate::server::{Ready, Shared};
use crate::slab::Slab;
use crate::spec::Knobs;
use crate::sys::{BUNDLE, Done, Piece, Sock};
use crate::uring::{Event, Hub, Op};

/// Pieces in one send: enough for a full socket buffer, below IOV_MAX, and what one bundle can take.
const GATHER: usize = BUNDLE as usize;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recv {
    Off,
    Armed,
    Cancelling,
}

struct Conn {
    sock: Sock,
    recv: Recv,
    /// Received, for the next send.
    fresh: Vec<Piece>,
    /// In the send under way.
    sending: Vec<Piece>,
    /// Whether that send completes only if it falls short.
    quiet: bool,
    /// Whether it is a bundle, and what of it has been reported so far.
    bundle: Option<usize>,
    /// Copied out of the ring because the client does not read.
    spill: Vec<u8>,
    /// The part of an earlier `spill` whose send is under way.
    spilling: Option<std::ops::Range<usize>>,
    /// The client has ended its side.
    ended: bool,
    /// The connection has failed.
    dead: bool,
    shut: bool,
    /// Operations under way, without quiet ones.
    ops: u32,
    /// Is in `Server::todo`.
    marked: bool,
}

struct Server<'a> {
    hub: Hub<'a>,
    conns: Slab<Conn>,
    /// Connections to look after when all completions are taken.
    todo: Vec<usize>,
    /// Connections that found no buffer: looked after in the next round, when some have come back.
    starved: Vec<usize>,
    /// Connections with a quiet send in this round.
    quiet_batch: Vec<usize>,
    quiet: bool,
    bundles: bool,
    send_bundles: bool,
}

/// The loop around io_uring_enter(2).
pub const HERE: kit::Place = kit::here!();

/// Serves until the stop event, then drains.
pub(crate) fn serve(
    listener: Listener,
    shared: &Shared,
    ready: &Ready,
    knobs: &Knobs,
) -> Result<(), SysError> {
    let (hub, mut notes) = match Hub::new(listener, shared, knobs, true) {
        Ok(up) => up,
        Err(e) => {
            let _ = ready.send(Err(e));
            return Ok(());
        }
    };
    let quiet = knobs.quiet_sends && hub.ring.can_be_quiet();
    if knobs.quiet_sends && !quiet {
        notes.push("no silent sends here (SQPOLL, or before Linux 5.17): every send completes".into());
    }
    let bundles = knobs.bundles && hub.ring.has_bundles();
    let send_bundles = knobs.send_bundles && hub.ring.has_bundles();
    if (knobs.bundles || knobs.send_bundles) && !hub.ring.has_bundles() {
        notes.push("no bundles here (before Linux 6.10): a buffer a receive, vectored sends".into());
    }
    let mut s = Server {
        hub,
        conns: Slab::default(),
        todo: Vec::new(),
        starved: Vec::new(),
        quiet_batch: Vec::new(),
        quiet,
        bundles,
        send_bundles,
    };
    let _ = ready.send(Ok(notes));
    while s.hub.running() || !s.conns.is_empty() {
        s.hub.enter(!s.starved.is_empty())?;
        for at in std::mem::take(&mut s.starved) {
            s.mark(at);
        }
        while let Some(event) = s.hub.next()? {
            s.event(event)?;
        }
        // No more completions: the quiet sends that did not fail have gone well.
        while let Some(at) = s.quiet_batch.pop() {
            s.sent(at, usize::MAX);
        }
        while let Some(at) = s.todo.pop() {
            s.look_after(at)?;
        }
    }
    s.hub.publish();
    Ok(())
}

impl Server<'_> {
    fn event(&mut self, event: Event) -> Result<(), SysError> {
        match event {
            Event::Connection(sock) => {
                let conn = Conn {
                    sock,
                    recv: Recv::Off,
                    fresh: Vec::new(),
                    sending: Vec::new(),
                    quiet: false,
                    bundle: None,
                    spill: Vec::new(),
                    spilling: None,
                    ended: false,
                    dead: false,
                    shut: false,
                    ops: 0,
                    marked: false,
                };
                let at = self.conns.insert(conn);
                self.mark(at);
                if self.hub.draining() {
                    self.shutdown(at, libc::SHUT_RD)?;
                }
            }
            Event::Recv(at, done) => self.received(at, &done),
            Event::Send(at, done) => self.send_done(at, &done),
            Event::Shutdown(at) => {
                if let Some(conn) = self.conns.get_mut(at) {
                    conn.ops -= 1;
                    self.mark(at);
                }
            }
            Event::Drain => {
                for at in self.conns.keys() {
                    self.shutdown(at, libc::SHUT_RD)?;
                }
            }
            Event::Cut => {
                for at in self.conns.keys() {
                    self.hub.counts.cut += 1;
                    self.fail(at);
                }
            }
        }
        Ok(())
    }

    fn received(&mut self, at: usize, done: &Done) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        self.hub.ring.pieces(done, &mut conn.fresh);
        if !done.more {
            conn.recv = Recv::Off;
            conn.ops -= 1;
        }
        match done.result() {
            Ok(0) => conn.ended = true,
            Ok(n) => self.hub.counts.bytes += u64::from(n),
            Err(Errno::ENOBUFS) => {
                self.hub.counts.starved += 1;
                self.hub.ring.starved();
                // Arming it now would find no buffer again.
                self.starved.push(at);
                return;
            }
            Err(Errno::ECANCELED | Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return self.fail(at),
        }
        self.mark(at);
    }

    fn send_done(&mut self, at: usize, done: &Done) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        let sent = match done.result() {
            Ok(n) => n as usize,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(_) => {
                conn.dead = true;
                0
            }
        };
        if let Some(mut part) = conn.spilling.take() {
            conn.ops -= 1;
            part.start += sent;
            let bytes = self.hub.ring.take_bytes(at);
            if sent == 0 {
                conn.dead = true;
            } else if !part.is_empty() {
                // Less than asked for: something interrupted it. What is left goes before the rest.
                conn.spill.splice(0..0, bytes[part].iter().copied());
            }
            self.mark(at);
        } else if let Some(before) = conn.bundle {
            conn.bundle = Some(before + sent);
            if done.more {
                return;
            }
            conn.bundle = None;
            conn.ops -= 1;
            let sent = before + sent;
            if sent < conn.sending.iter().map(|p| p.len as usize).sum() {
                self.hub.ring.forget_sends(at);
            }
            self.sent(at, sent);
        } else {
            conn.ops -= u32::from(!conn.quiet);
            self.sent(at, sent);
        }
    }

    /// The send of `sending` is over, and `sent` bytes of it went out: give the buffers back.
    fn sent(&mut self, at: usize, sent: usize) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        let mut skip = sent;
        for piece in conn.sending.drain(..) {
            let len = piece.len as usize;
            if skip < len {
                self.hub.ring.copy(&piece, skip, &mut conn.spill);
            }
            skip = skip.saturating_sub(len);
            self.hub.ring.give_back(piece);
        }
        self.hub.ring.release(at);
        if conn.recv != Recv::Armed || !conn.fresh.is_empty() || !conn.spill.is_empty() || conn.dead {
            self.mark(at);
        }
    }

    fn mark(&mut self, at: usize) {
        if let Some(conn) = self.conns.get_mut(at).filter(|c| !c.marked) {
            conn.marked = true;
            self.todo.push(at);
        }
    }

    fn fail(&mut self, at: usize) {
        if let Some(conn) = self.conns.get_mut(at) {
            conn.dead = true;
            self.mark(at);
        }
    }

    fn shutdown(&mut self, at: usize, how: i32) -> Result<(), SysError> {
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        conn.ops += 1;
        self.hub.ring.shutdown(conn.sock, Op::Shutdown.tag(at), how)
    }

    /// Queues whatever a connection needs next.
    fn look_after(&mut self, at: usize) -> Result<(), SysError> {
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        conn.marked = false;
        if conn.dead {
            return self.bury(at);
        }
        let ring = &mut self.hub.ring;
        if !conn.spill.is_empty() || conn.spilling.is_some() {
            // The buffers are for all clients, not for one that does not read.
            for piece in conn.fresh.drain(..) {
                ring.copy(&piece, 0, &mut conn.spill);
                ring.give_back(piece);
            }
            let held = conn.spill.len() + conn.spilling.as_ref().map_or(0, ExactSizeIterator::len);
            self.hub.counts.held_max = self.hub.counts.held_max.max(held as u64);
            if conn.recv == Recv::Armed {
                conn.recv = Recv::Cancelling;
                ring.cancel(Op::Recv.tag(at), Op::Other.tag(0))?;
            }
            if conn.spilling.is_none() {
                let bytes = std::mem::take(&mut conn.spill);
                let part = 0..bytes.len();
                conn.spilling = Some(part.clone());
                conn.ops += 1;
                self.hub.counts.blocked += 1;
                ring.send_bytes(conn.sock, Op::Send.tag(at), at, bytes, part)?;
            }
            return Ok(());
        }
        if !conn.fresh.is_empty() && conn.sending.is_empty() {
            // `sending` is empty: swapped, neither of the two allocates again.
            std::mem::swap(&mut conn.fresh, &mut conn.sending);
            if conn.sending.len() > GATHER {
                conn.fresh.extend(conn.sending.drain(GATHER..));
            }
            let op = Op::Send.tag(at);
            if self.send_bundles
                && conn.sending.len() > 1
                && ring.send_bundle(conn.sock, op, at, &conn.sending)?
            {
                conn.quiet = false;
                conn.bundle = Some(0);
                conn.ops += 1;
                self.hub.counts.bundled += 1;
                return self.receive(at);
            }
            // A quiet send wakes nobody, so it is only for connections that need nothing after it.
            conn.quiet = self.quiet && conn.recv == Recv::Armed && conn.fresh.is_empty();
            if conn.quiet {
                self.quiet_batch.push(at);
            } else {
                conn.ops += 1;
            }
            ring.send_pieces(conn.sock, op, at, &conn.sending, conn.quiet)?;
        }
        self.receive(at)
    }

    /// Arms the receive, or closes a connection that has nothing to receive or send any more.
    fn receive(&mut self, at: usize) -> Result<(), SysError> {
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        if conn.recv == Recv::Off && !conn.ended {
            conn.recv = Recv::Armed;
            conn.ops += 1;
            self.hub.ring.recv_multi(conn.sock, Op::Recv.tag(at), self.bundles)?;
        }
        if conn.ended && conn.ops == 0 && conn.sending.is_empty() && conn.fresh.is_empty() {
            self.close(at)?;
        }
        Ok(())
    }

    /// A connection that has failed: makes what is under way on it end, then closes it.
    fn bury(&mut self, at: usize) -> Result<(), SysError> {
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        for piece in conn.fresh.drain(..) {
            self.hub.ring.give_back(piece);
        }
        conn.spill.clear();
        if conn.ops > 0 && !std::mem::replace(&mut conn.shut, true) {
            return self.shutdown(at, libc::SHUT_RDWR);
        }
        if conn.ops == 0 && conn.sending.is_empty() { self.close(at) } else { Ok(()) }
    }

    fn close(&mut self, at: usize) -> Result<(), SysError> {
        let Some(conn) = self.conns.remove(at) else { return Ok(()) };
        self.hub.close(conn.sock)
    }
}
