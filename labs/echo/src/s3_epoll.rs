//! Stage 3: epoll(7), level-triggered. The kernel keeps the list.
//!
//! Connections are named once; every epoll_wait(2) returns only those that are ready, and returns
//! them again as long as they are. So a server may receive once and come back: no data is forgotten.
//! Two system calls a request remain, recv(2) and send(2); the wait is shared by all that were ready.

use std::os::fd::AsFd;
use std::time::Instant;

use kit::SysError;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::SockFlag;

use crate::conn::{CHUNK, Conn, Turn};
use crate::counts::Counts;
use crate::listen::{Gate, Listener, out_of_descriptors, timeout_ms};
use crate::server::{Ready, Shared};
use crate::slab::Slab;

/// User data of the listening socket and of the stop event; a connection's is its place in the slab.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// The loop around epoll_wait(2).
pub const HERE: kit::Place = kit::here!();

/// Serves until the stop event, then drains.
pub(crate) fn serve(listener: Listener, shared: &Shared, ready: &Ready) -> Result<(), SysError> {
    let mut s = Server::new(listener, shared, EpollFlags::EPOLLIN)?;
    let mut buffer = vec![0; CHUNK];
    let mut events = [EpollEvent::empty(); 256];
    let _ = ready.send(Ok(Vec::new()));
    while s.running() {
        let n = s.wait(&mut events, false)?;
        for event in &events[..n] {
            let Some(at) = s.connection(event)? else { continue };
            let Some(conn) = s.conns.get_mut(at) else { continue };
            let was_blocked = conn.blocked();
            let turn = conn.turn(&mut buffer, &mut s.counts);
            if turn == Turn::Done {
                s.close(at)?;
            } else if was_blocked != (turn == Turn::Blocked) {
                // Ask for what we wait for, and for nothing else: that is the backpressure.
                let on = if was_blocked { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLOUT };
                s.rearm(at, on)?;
            }
        }
        s.housekeeping()?;
    }
    s.publish();
    Ok(())
}

/// What both epoll servers have: the set, the connections, accepting, stopping.
pub(crate) struct Server<'a> {
    epoll: Epoll,
    listener: Option<Listener>,
    gate: Gate,
    deadline: Option<Instant>,
    shared: &'a Shared,
    /// How connections are watched at first.
    interest: EpollFlags,
    pub conns: Slab<Conn>,
    pub counts: Counts,
}

impl<'a> Server<'a> {
    pub fn new(listener: Listener, shared: &'a Shared, interest: EpollFlags) -> Result<Self, SysError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(SysError::nix("epoll_create1"))?;
        let mut s = Server {
            epoll,
            listener: None,
            gate: Gate::default(),
            deadline: None,
            shared,
            interest,
            conns: Slab::default(),
            counts: Counts::default(),
        };
        add(&s.epoll, &mut s.counts, &shared.stop, EpollFlags::EPOLLIN, STOP)?;
        add(&s.epoll, &mut s.counts, &listener, EpollFlags::EPOLLIN, LISTENER)?;
        s.listener = Some(listener);
        Ok(s)
    }

    /// Until the stop, and after it until the last connection is gone.
    pub fn running(&self) -> bool {
        self.listener.is_some() || !self.conns.is_empty()
    }

    pub fn publish(&self) {
        self.shared.counts.store(&self.counts);
    }

    /// epoll_wait(2); does not wait if `busy`.
    pub fn wait(&mut self, events: &mut [EpollEvent], busy: bool) -> Result<usize, SysError> {
        self.publish();
        self.counts.wait += 1;
        let ms = if busy { 0 } else { timeout_ms(self.gate.until(), self.deadline) };
        match self.epoll.wait(events, EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::NONE)) {
            Ok(n) => Ok(n),
            Err(Errno::EINTR) => Ok(0),
            Err(e) => Err(SysError::new("epoll_wait", e as i32)),
        }
    }

    /// The connection that an event is about; deals with it itself if it is about something else.
    pub fn connection(&mut self, event: &EpollEvent) -> Result<Option<usize>, SysError> {
        match event.data() {
            STOP => self.stop()?,
            LISTENER => self.accept_all()?,
            at => return Ok(Some(at as usize)),
        }
        Ok(None)
    }

    fn accept_all(&mut self) -> Result<(), SysError> {
        while let Some(listener) = self.listener.as_ref().filter(|_| !self.gate.paused()) {
            match listener.accept(SockFlag::SOCK_NONBLOCK, &mut self.counts) {
                Ok(fd) => {
                    let at = self.conns.insert(Conn::new(fd));
                    if let Some(conn) = self.conns.get_mut(at) {
                        add(&self.epoll, &mut self.counts, conn, self.interest, at as u64)?;
                    }
                }
                Err(e) if out_of_descriptors(e) => {
                    self.gate.pause(&mut self.counts);
                    self.watch_listener(EpollFlags::empty())?;
                }
                Err(Errno::EAGAIN) => return Ok(()),
                // ECONNABORTED and the like: that client has gone, the next may be fine.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), SysError> {
        self.accept_all()?;
        self.listener = None;
        self.counts.ctl += 1;
        self.epoll.delete(&self.shared.stop).map_err(SysError::nix("epoll_ctl(DEL)"))?;
        self.deadline = Some(Instant::now() + self.shared.grace);
        self.conns.iter_mut().for_each(|(_, c)| c.no_more(&mut self.counts));
        Ok(())
    }

    /// Closing the descriptor takes it out of the set: nobody else has it.
    pub fn close(&mut self, at: usize) -> Result<(), SysError> {
        if self.conns.remove(at).is_some() {
            self.counts.closed += 1;
            self.resume()?;
        }
        Ok(())
    }

    pub fn rearm(&mut self, at: usize, on: EpollFlags) -> Result<(), SysError> {
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        self.counts.ctl += 1;
        self.epoll
            .modify(&*conn, &mut EpollEvent::new(on, at as u64))
            .map_err(SysError::nix("epoll_ctl(MOD)"))
    }

    /// Ends what has lasted long enough: a pause in accepting, the draining.
    pub fn housekeeping(&mut self) -> Result<(), SysError> {
        if self.gate.over() {
            self.resume()?;
        }
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            self.counts.cut += self.conns.len() as u64;
            self.counts.closed += self.conns.len() as u64;
            self.conns = Slab::default();
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), SysError> {
        if self.gate.open() { self.watch_listener(EpollFlags::EPOLLIN) } else { Ok(()) }
    }

    fn watch_listener(&mut self, on: EpollFlags) -> Result<(), SysError> {
        let Some(listener) = &self.listener else { return Ok(()) };
        self.counts.ctl += 1;
        self.epoll
            .modify(listener, &mut EpollEvent::new(on, LISTENER))
            .map_err(SysError::nix("epoll_ctl(MOD)"))
    }
}

fn add(epoll: &Epoll, n: &mut Counts, fd: impl AsFd, on: EpollFlags, data: u64) -> Result<(), SysError> {
    n.ctl += 1;
    epoll.add(fd, EpollEvent::new(on, data)).map_err(SysError::nix("epoll_ctl(ADD)"))
}
