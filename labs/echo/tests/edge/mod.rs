//! What exercise 1 serves: a kernel with an edge-triggered epoll, and one made up here, with clients that follow a plan.

use std::collections::{BTreeMap, VecDeque};

use kit::spec::property;
use nix::errno::Errno;

pub mod real;

/// A descriptor.
pub type Fd = i32;

/// The listening socket, watched already.
pub const LISTENER: Fd = 3;

/// Most bytes that are received at once.
pub const BUFFER: usize = 4096;

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until something happens.
    Forever,
    /// Not at all.
    Poll,
}

/// An event: what happened, told once (`EPOLLET`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Of which descriptor.
    pub fd: Fd,
    /// `EPOLLIN`: bytes, or the end, or somebody to accept.
    pub readable: bool,
    /// `EPOLLOUT`: the socket takes bytes.
    pub writable: bool,
    /// `EPOLLRDHUP`, `EPOLLHUP` or `EPOLLERR`: no more will come.
    pub hung_up: bool,
}

/// System calls, all without waiting but one.
pub trait Kernel {
    /// epoll_wait(2). `None`: the server is to stop.
    fn wait(&mut self, wait: Wait) -> Option<Vec<Ready>>;
    /// accept4(2) on [`LISTENER`]: `EAGAIN` if nobody waits, `ECONNABORTED` if that one has gone.
    fn accept(&mut self) -> Result<Fd, Errno>;
    /// epoll_ctl(2): `EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET`. The state at this moment counts as an event.
    fn watch(&mut self, fd: Fd) -> Result<(), Errno>;
    /// recv(2): 0 at the end, `EAGAIN` if there is nothing.
    fn recv(&mut self, fd: Fd, to: &mut [u8]) -> Result<usize, Errno>;
    /// send(2): may take less than it is given; `EAGAIN` if nothing.
    fn send(&mut self, fd: Fd, from: &[u8]) -> Result<usize, Errno>;
    /// close(2).
    fn close(&mut self, fd: Fd);
}

/// What a client does next.
#[derive(Debug, Clone)]
pub enum Act {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits until all that was sent has come back.
    Await,
    /// Keeps more than a buffer unread at the server, until so many bytes are sent.
    Flood(usize),
    /// Reads nothing for so many moments.
    Deaf(u32),
    /// Does nothing but read for so many moments.
    Rest(u32),
    /// Ends its side.
    Fin,
    /// Is gone: what is sent to it now fails.
    Vanish,
    /// Goes away before it is accepted: only as the first act.
    Abort,
    /// Waits until the server has closed.
    AwaitEnd,
}

/// A client and its socket at the server.
#[derive(Debug, Default)]
pub struct Client {
    plan: VecDeque<Act>,
    pub sent: Vec<u8>,
    pub received: Vec<u8>,
    /// How far the server has received and sent.
    unread: VecDeque<u8>,
    owed: usize,
    untaken: Vec<u8>,
    /// Bytes that the socket takes while the client reads nothing.
    room: usize,
    flood: usize,
    deaf: u32,
    short: bool,
    fin: bool,
    gone: bool,
    edge: bool,
    watched: bool,
    pub fd: Option<Fd>,
    ended: bool,
    /// Receives of others since it sent its request.
    asked_at: Option<u64>,
}

/// Calls, counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    pub wait: u64,
    pub recv: u64,
    pub send: u64,
}

/// A kernel made up.
#[derive(Debug)]
pub struct Fake {
    pub clients: Vec<Client>,
    backlog: VecDeque<usize>,
    listener_edge: bool,
    open: BTreeMap<Fd, usize>,
    pub calls: Calls,
    /// Most receives of others that a request had to wait for.
    pub waited: u64,
    /// Waits that did not wait although there was nothing to do.
    pub idle: u64,
    /// The client whose socket cannot be watched.
    pub unwatchable: Option<usize>,
    /// Stops the server after so many waits.
    pub stop_at: Option<u64>,
}

#[track_caller]
fn broken(name: &str, next: &str, expected: &str, seen: impl Into<String>) -> ! {
    property(name, next).holds(false, expected, seen.into());
    unreachable!("a property that does not hold panics")
}

impl Fake {
    /// Clients with their plans, each with room for so many bytes in its socket. All connect at once.
    pub fn new(room: usize, plans: Vec<Vec<Act>>) -> Self {
        let clients: Vec<Client> =
            plans.into_iter().map(|plan| Client { plan: plan.into(), room, ..Client::default() }).collect();
        Self {
            backlog: (0..clients.len()).collect(),
            clients,
            listener_edge: true,
            open: BTreeMap::new(),
            calls: Calls::default(),
            waited: 0,
            idle: 0,
            unwatchable: None,
            stop_at: None,
        }
    }

    fn client(&mut self, fd: Fd, call: &str) -> &mut Client {
        let Some(&at) = self.open.get(&fd) else {
            let next = "who else may still have its number: a queue, a list of events?";
            broken("no descriptor is used that is not open", next, "an open one", format!("{call}({fd})"))
        };
        &mut self.clients[at]
    }

    /// Descriptors that are still open.
    pub fn left_open(&self) -> Vec<Fd> {
        self.open.keys().copied().collect()
    }

    /// A moment goes by: every client does what it can.
    fn step(&mut self) {
        let receives = self.calls.recv;
        for client in &mut self.clients {
            client.read();
            while client.act(receives) {}
        }
    }

    fn events(&mut self) -> Vec<Ready> {
        let mut events = Vec::new();
        if std::mem::take(&mut self.listener_edge) {
            events.push(Ready { fd: LISTENER, readable: true, writable: false, hung_up: false });
        }
        for (&fd, &at) in &self.open {
            let client = &mut self.clients[at];
            if client.watched && std::mem::take(&mut client.edge) {
                let hung_up = client.fin || client.gone;
                let readable = hung_up || !client.unread.is_empty();
                events.push(Ready { fd, readable, writable: client.untaken.len() < client.room, hung_up });
            }
        }
        events
    }

    /// What the server has not done, though there will be no event for it.
    fn forgotten(&self) -> String {
        if !self.backlog.is_empty() {
            return format!("{} clients wait to be accepted", self.backlog.len());
        }
        for (at, client) in self.clients.iter().enumerate() {
            let fd = client.fd.unwrap_or(-1);
            if client.ended {
                continue;
            } else if client.owed > 0 {
                return format!(
                    "client {at} (fd {fd}) reads, but gets no more: {} bytes are kept",
                    client.owed
                );
            } else if !client.unread.is_empty() {
                return format!(
                    "client {at} (fd {fd}) has sent {} bytes that are unread",
                    client.unread.len()
                );
            } else if client.fd.is_some() && !client.watched {
                return format!("client {at} (fd {fd}) is not watched");
            } else if client.fin || client.gone {
                return format!("the end of client {at} (fd {fd}) is unread");
            }
        }
        "clients wait".to_owned()
    }
}

impl Client {
    fn read(&mut self) {
        if self.deaf > 0 {
            self.deaf -= 1;
        } else if !self.untaken.is_empty() {
            self.received.append(&mut self.untaken);
            // As tcp(7): an edge to writable comes only if a send has found the socket full.
            self.edge |= std::mem::take(&mut self.short);
        }
    }

    /// Whether the server could do something for it now.
    fn wants_something(&self) -> bool {
        let has_room = self.untaken.len() < self.room;
        !self.ended
            && (if self.owed > 0 { has_room } else { self.fin || self.gone || !self.unread.is_empty() })
    }

    /// Does the next act, if it can.
    fn act(&mut self, receives: u64) -> bool {
        match self.plan.front_mut() {
            None => return false,
            Some(Act::Send(bytes)) => {
                self.sent.extend_from_slice(bytes);
                self.unread.extend(bytes.iter());
                self.edge = true;
                self.asked_at = Some(receives);
            }
            Some(Act::Await) if self.flood > 0 || self.received.len() < self.sent.len() => return false,
            Some(Act::Flood(bytes)) => {
                self.flood = *bytes;
                self.edge = true;
                self.pour();
            }
            Some(Act::Deaf(moments)) => self.deaf = *moments,
            Some(Act::Fin) => (self.fin, self.edge) = (true, true),
            Some(Act::Vanish) => (self.gone, self.edge) = (true, true),
            Some(Act::AwaitEnd) if !self.ended => return false,
            Some(Act::Rest(moments @ 1..)) => {
                *moments -= 1;
                return false;
            }
            Some(Act::Await | Act::AwaitEnd | Act::Rest(0)) => {}
            Some(Act::Abort) => return false,
        }
        self.plan.pop_front();
        true
    }

    fn pour(&mut self) {
        while self.flood > 0 && self.unread.len() < 2 * BUFFER {
            let byte = self.sent.len() as u8;
            self.sent.push(byte);
            self.unread.push_back(byte);
            self.flood -= 1;
        }
    }
}

impl Kernel for Fake {
    fn wait(&mut self, wait: Wait) -> Option<Vec<Ready>> {
        self.calls.wait += 1;
        for _ in 0..200 {
            self.step();
            let events = self.events();
            let done = self.clients.iter().all(|c| c.plan.is_empty());
            if done || self.stop_at.is_some_and(|at| self.calls.wait >= at) {
                return None;
            }
            if wait == Wait::Poll && events.is_empty() {
                self.idle += u64::from(!self.clients.iter().any(Client::wants_something));
                if self.idle > 100 {
                    broken(
                        "a server with nothing to do sleeps",
                        "when is there something left?",
                        "sleep",
                        "100 polls",
                    );
                }
            }
            if wait == Wait::Poll || !events.is_empty() {
                return Some(events);
            }
        }
        let next = "what is still to be done when you go to sleep, and which event would tell you of it?";
        broken(
            "a server sleeps only if all that it was told of is done",
            next,
            "nothing left",
            self.forgotten(),
        )
    }

    fn accept(&mut self) -> Result<Fd, Errno> {
        let at = self.backlog.pop_front().ok_or(Errno::EAGAIN)?;
        let client = &mut self.clients[at];
        if let Some(Act::Abort) = client.plan.front() {
            client.plan.clear();
            client.ended = true;
            return Err(Errno::ECONNABORTED);
        }
        // The lowest that is free, as always.
        let fd = (LISTENER + 1..).find(|fd| !self.open.contains_key(fd)).unwrap_or_default();
        client.fd = Some(fd);
        self.open.insert(fd, at);
        Ok(fd)
    }

    fn watch(&mut self, fd: Fd) -> Result<(), Errno> {
        let unwatchable = self.unwatchable.is_some_and(|at| self.open.get(&fd) == Some(&at));
        let client = self.client(fd, "watch");
        if unwatchable {
            return Err(Errno::ENOSPC);
        }
        (client.watched, client.edge) = (true, true);
        Ok(())
    }

    fn recv(&mut self, fd: Fd, to: &mut [u8]) -> Result<usize, Errno> {
        self.calls.recv += 1;
        let client = self.client(fd, "recv");
        if client.owed > 0 {
            let next = "where would those bytes be kept, if the client never reads?";
            let name = "nothing is received from a client that has not taken its echo yet";
            broken(name, next, "no recv", format!("recv({fd}) with {} bytes to be sent first", client.owed));
        }
        let len = to.len().min(BUFFER).min(client.unread.len());
        if len == 0 {
            return if client.gone {
                Err(Errno::ECONNRESET)
            } else if client.fin {
                Ok(0)
            } else {
                Err(Errno::EAGAIN)
            };
        }
        to.iter_mut().zip(client.unread.drain(..len)).for_each(|(to, byte)| *to = byte);
        client.owed += len;
        client.pour();
        Ok(len)
    }

    fn send(&mut self, fd: Fd, from: &[u8]) -> Result<usize, Errno> {
        self.calls.send += 1;
        let receives = self.calls.recv;
        let client = self.client(fd, "send");
        if client.gone {
            return Err(Errno::EPIPE);
        }
        let taken = from.len().min(client.room - client.untaken.len());
        client.short |= taken < from.len();
        client.untaken.extend_from_slice(&from[..taken]);
        client.owed = client.owed.saturating_sub(taken);
        // Its own receive is one of them.
        let waited = client.asked_at.take().map_or(0, |at| receives.saturating_sub(at + 1));
        self.waited = self.waited.max(waited);
        if taken == 0 && !from.is_empty() { Err(Errno::EAGAIN) } else { Ok(taken) }
    }

    fn close(&mut self, fd: Fd) {
        let client = self.client(fd, "close");
        client.ended = true;
        client.received.append(&mut client.untaken);
        self.open.remove(&fd);
    }
}
