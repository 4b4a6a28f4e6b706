//! What both io_uring servers have: the ring, accepting, the stop.

use std::os::fd::AsFd as _;
use std::time::Instant;

use kit::SysError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::counts::Counts;
use crate::listen::{Gate, Listener, earlier, out_of_descriptors};
use crate::server::Shared;
use crate::spec::Knobs;
use crate::sys::{Done, Ring, Sock};

/// What a completion is about: bits 32 and up of the tag; below them is the connection's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Accept,
    Stop,
    Recv,
    Send,
    /// shutdown, of a connection.
    Shutdown,
    /// close and cancel, whose results tell nothing.
    Other,
}

impl Op {
    pub fn tag(self, place: usize) -> u64 {
        (self as u64) << 32 | place as u64
    }

    fn of(tag: u64) -> (Op, usize) {
        let ops = [Op::Accept, Op::Stop, Op::Recv, Op::Send, Op::Shutdown];
        let op = ops.into_iter().find(|&op| op as u64 == tag >> 32).unwrap_or(Op::Other);
        (op, (tag & 0xffff_ffff) as usize)
    }
}

/// What is left for the server to do about a completion.
pub(crate) enum Event {
    Connection(Sock),
    Recv(usize, Done),
    Send(usize, Done),
    Shutdown(usize),
    /// The stop event: every connection is to see the end of its stream.
    Drain,
    /// The grace period is over: cut off every connection.
    Cut,
}

pub(crate) struct Hub<'a> {
    pub ring: Ring,
    pub counts: Counts,
    listener: Option<Listener>,
    /// Whether one submission accepts again and again. Not into the ring's own table: with that full, the
    /// kernel still accepts, finds no place, and closes the connection; so there it is asked one by one.
    multi: bool,
    accepting: bool,
    /// Connections that are open.
    open: usize,
    gate: Gate,
    deadline: Option<Instant>,
    cut: bool,
    /// Calls of poll(2).
    polls: u64,
    shared: &'a Shared,
}

impl<'a> Hub<'a> {
    pub fn new(
        listener: Listener,
        shared: &'a Shared,
        knobs: &Knobs,
        multi: bool,
    ) -> Result<(Self, Vec<String>), SysError> {
        let (mut ring, notes) = Ring::new(knobs, multi)?;
        ring.poll_readable(shared.stop.as_fd(), Op::Stop.tag(0))?;
        let multi = multi && ring.table().is_none();
        let hub = Hub {
            ring,
            counts: Counts::default(),
            listener: Some(listener),
            multi,
            accepting: false,
            open: 0,
            gate: Gate::default(),
            deadline: None,
            cut: false,
            polls: 0,
            shared,
        };
        Ok((hub, notes))
    }

    /// Until the stop; and then, whatever the connections do, until no operation is under way.
    pub fn running(&self) -> bool {
        self.listener.is_some() || self.ring.under_way() > 0
    }

    /// Whether connections are to be ended as they come.
    pub fn draining(&self) -> bool {
        self.deadline.is_some()
    }

    pub fn publish(&mut self) {
        self.counts.wait = self.ring.enters + self.polls;
        self.counts.other = self.ring.registers;
        self.counts.submissions = self.ring.submitted;
        self.shared.counts.store(&self.counts);
    }

    /// Submits what is queued; waits for a completion unless `busy`.
    pub fn enter(&mut self, busy: bool) -> Result<(), SysError> {
        if self.gate.over() {
            self.gate.open();
        }
        if !self.gate.paused() && self.ring.table() == Some(self.open) {
            self.gate.pause(&mut self.counts);
        }
        if let Some(listener) = self.listener.as_ref().filter(|_| !self.accepting && !self.gate.paused()) {
            let multi = self.multi && self.deadline.is_none();
            self.ring.accept(listener.as_fd(), Op::Accept.tag(0), multi)?;
            self.accepting = true;
        }
        self.publish();
        let deadline = self.deadline.filter(|_| !self.cut);
        self.ring.enter(!busy, earlier(self.gate.until(), deadline))
    }

    /// The next thing to do; none when all that has completed is done, also what did not fit the queue.
    pub fn next(&mut self) -> Result<Option<Event>, SysError> {
        if !self.cut && self.deadline.is_some_and(|d| Instant::now() >= d) {
            self.cut = true;
            self.cancel_accept()?;
            self.listener = None;
            return Ok(Some(Event::Cut));
        }
        loop {
            let Some(done) = self.ring.next_done() else {
                if !self.ring.overflowed() {
                    self.shut_the_door()?;
                    return Ok(None);
                }
                self.counts.overflowed += 1;
                self.ring.enter(false, None)?;
                continue;
            };
            self.counts.completions += 1;
            let event = match Op::of(done.tag) {
                (Op::Recv, at) => Event::Recv(at, done),
                (Op::Send, at) => Event::Send(at, done),
                (Op::Shutdown, at) => Event::Shutdown(at),
                (Op::Accept, _) => match self.accepted(&done)? {
                    Some(sock) => Event::Connection(sock),
                    None => continue,
                },
                (Op::Stop, _) => {
                    self.deadline = Some(Instant::now() + self.shared.grace);
                    self.cancel_accept()?;
                    Event::Drain
                }
                (Op::Other, _) => continue,
            };
            return Ok(Some(event));
        }
    }

    fn cancel_accept(&mut self) -> Result<(), SysError> {
        if self.accepting { self.ring.cancel(Op::Accept.tag(0), Op::Other.tag(0)) } else { Ok(()) }
    }

    /// After the stop: closes the listening socket when nobody waits at it any more. Who does has connected,
    /// and what it has sent has arrived. Out of descriptors, those who wait are turned away.
    fn shut_the_door(&mut self) -> Result<(), SysError> {
        let Some(listener) = self.listener.as_ref().filter(|_| self.deadline.is_some() && !self.accepting)
        else {
            return Ok(());
        };
        self.polls += 1;
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let waiting = poll(&mut fds, PollTimeout::ZERO).map_err(SysError::nix("poll"))? > 0;
        if self.gate.paused() || !waiting {
            self.listener = None;
        }
        Ok(())
    }

    fn accepted(&mut self, done: &Done) -> Result<Option<Sock>, SysError> {
        self.accepting &= done.more;
        match done.result() {
            Ok(fd) => {
                self.counts.accepted += 1;
                self.open += 1;
                Ok(Some(self.ring.sock(fd)))
            }
            Err(e) if out_of_descriptors(e) => {
                self.gate.pause(&mut self.counts);
                Ok(None)
            }
            Err(e @ (Errno::EINVAL | Errno::EBADF | Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP)) => {
                Err(SysError::new("IORING_OP_ACCEPT", e as i32))
            }
            // Cancelled by the stop, or that client has gone; the next may be fine.
            Err(_) => Ok(None),
        }
    }

    pub fn close(&mut self, sock: Sock) -> Result<(), SysError> {
        self.counts.closed += 1;
        self.open -= 1;
        self.gate.open();
        self.ring.close(sock, Op::Other.tag(0))
    }
}
