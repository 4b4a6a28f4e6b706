//! Fails `echoes_come_back`: operation and timeout have one tag: the timeout's ECANCELED is taken for the operation's.

use std::collections::BTreeMap;

use super::links::{Done, Fd, Op, Ring, Sqe};

/// A connection. It has one operation under way: a send while there is something to be sent, otherwise a receive.
struct Conn {
    fd: Fd,
    /// Received, and not yet taken by the client.
    held: Vec<u8>,
}

/// Tags. A connection's is a number that is never used again, unlike its descriptor: so no completion that comes late
/// is taken for another's.
const ACCEPT: u64 = 0;
const NO_MATTER: u64 = 1;
const FIRST: u64 = 2;

struct Server<'r, R: Ring> {
    ring: &'r mut R,
    idle: u64,
    conns: BTreeMap<u64, Conn>,
    next: u64,
}

/// Serves until it is to stop.
pub fn serve(ring: &mut impl Ring, idle: u64) {
    let mut server = Server { ring, idle, conns: BTreeMap::new(), next: FIRST };
    server.push(Op::Accept, false, ACCEPT);
    // All completions are dealt with before the kernel is entered again: so connections share the calls.
    while let Some(completions) = server.ring.enter(1) {
        for done in completions {
            match done.tag {
                ACCEPT => server.accepted(&done),
                // Of a timeout: whether it fired or was cancelled, its operation has a completion too, and that one
                // counts. It may say that there was data after all.
                NO_MATTER => {}
                tag => server.completed(tag, done),
            }
        }
    }
}

impl<R: Ring> Server<'_, R> {
    fn push(&mut self, op: Op, link: bool, tag: u64) {
        self.ring.push(Sqe { op, link, tag });
    }

    fn accepted(&mut self, done: &Done) {
        // A client that has gone before it was accepted is no reason to accept nobody any more.
        self.push(Op::Accept, false, ACCEPT);
        if done.res >= 0 {
            let tag = self.next;
            self.next += 1;
            self.conns.insert(tag, Conn { fd: done.res, held: Vec::new() });
            self.go_on(tag);
        }
    }

    /// Starts what a connection needs next, with a timeout of its own.
    fn go_on(&mut self, tag: u64) {
        let Some(conn) = self.conns.get(&tag) else { return };
        let op = if conn.held.is_empty() { Op::Recv(conn.fd) } else { Op::Send(conn.fd, conn.held.clone()) };
        self.push(op, true, tag);
        self.push(Op::LinkTimeout(self.idle), false, tag);
    }

    fn completed(&mut self, tag: u64, done: Done) {
        let Some(conn) = self.conns.get_mut(&tag) else { return };
        let Ok(len @ 1..) = usize::try_from(done.res) else {
            // The end, an error, or too late (ECANCELED).
            let fd = conn.fd;
            self.conns.remove(&tag);
            return self.push(Op::Close(fd), false, NO_MATTER);
        };
        if conn.held.is_empty() {
            conn.held = done.bytes;
        } else {
            conn.held.drain(..len);
        }
        self.go_on(tag);
    }
}
