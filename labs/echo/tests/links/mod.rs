//! What exercise 3 serves with: a ring of operations that can be linked, and one made up, with a clock of its own.

use std::collections::{BTreeMap, VecDeque};

use kit::spec::property;

pub mod sys;

/// A descriptor.
pub type Fd = i32;

/// Most bytes that one receive brings.
pub const BUFFER: usize = 4096;

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Completes once, with a connection's descriptor.
    Accept,
    /// Completes with a number of bytes, which are in [`Done::bytes`]; 0 is the end.
    Recv(Fd),
    /// Completes with a number of bytes, which may be fewer than there are.
    Send(Fd, Vec<u8>),
    /// `IORING_OP_LINK_TIMEOUT`: if the operation that is linked to it has not completed after so many milliseconds, that
    /// is cancelled. Both complete, in either order:
    ///
    /// | | the operation | the timeout |
    /// | --- | --- | --- |
    /// | it was in time | its result | `-ECANCELED` |
    /// | it was not | `-ECANCELED` | `-ETIME` |
    /// | both at once | its result | `-EALREADY` or `-ENOENT` |
    /// | nothing was linked | | `-EINVAL`, at once |
    LinkTimeout(u64),
    /// Completes with 0.
    Close(Fd),
}

/// A submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sqe {
    pub op: Op,
    /// `IOSQE_IO_LINK`: linked to the one pushed next, if both are submitted by the same enter.
    pub link: bool,
    /// Comes back with the completion.
    pub tag: u64,
}

/// A completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub tag: u64,
    /// A number, or a negated errno.
    pub res: i32,
    /// What a [`Op::Recv`] has received.
    pub bytes: Vec<u8>,
}

/// A ring with room for everything.
pub trait Ring {
    /// Puts a submission into the queue.
    fn push(&mut self, sqe: Sqe);
    /// io_uring_enter(2): submits all that was pushed, waits for so many completions, and takes all there are.
    /// `None`: the server is to stop.
    fn enter(&mut self, wait_for: usize) -> Option<Vec<Done>>;
}

/// What a client does next.
#[derive(Debug, Clone)]
pub enum Act {
    Send(Vec<u8>),
    /// Waits until all that was sent has come back.
    Await,
    /// Milliseconds.
    Sleep(u64),
    /// Reads nothing any more.
    Deaf,
    /// Ends its side.
    Fin,
    /// Is gone: what is sent to it fails.
    Vanish,
    /// Goes away before it is accepted: only as the first act.
    Abort,
    /// Connects after so many milliseconds, and not at once: only as the first act.
    Later(u64),
    /// Waits until the server has closed.
    AwaitClose,
}

/// An operation that is under way.
#[derive(Debug)]
struct Pending {
    tag: u64,
    /// What is to be sent; a receive has nothing.
    bytes: Option<Vec<u8>>,
    /// The timeout's tag, and when it fires.
    timeout: Option<(u64, u64)>,
}

/// A client and its connection.
#[derive(Debug, Default)]
pub struct Client {
    plan: VecDeque<Act>,
    pub sent: Vec<u8>,
    pub received: Vec<u8>,
    unread: VecDeque<u8>,
    untaken: usize,
    deaf: bool,
    fin: bool,
    gone: bool,
    came: bool,
    wakes: u64,
    under_way: Option<Pending>,
    /// When the server closed it, in milliseconds.
    pub closed_at: Option<u64>,
}

/// How the ring behaves where it has a choice.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Bytes that a send takes at once.
    pub sends: usize,
    /// Bytes that a socket takes from the server while its client does not read.
    pub room: usize,
    /// The timeout's completion comes before its operation's.
    pub timeout_first: bool,
    /// The timeout's completion comes with a later enter.
    pub timeout_late: bool,
}

pub const PLAIN: Habits =
    Habits { sends: usize::MAX, room: 1 << 20, timeout_first: false, timeout_late: false };

/// A ring made up.
#[derive(Debug)]
pub struct Fake {
    pub clients: Vec<Client>,
    habits: Habits,
    now: u64,
    backlog: VecDeque<usize>,
    open: BTreeMap<Fd, usize>,
    pushed: Vec<Sqe>,
    accept: Option<u64>,
    ready: Vec<Done>,
    /// Completions that come late: with which enter.
    late: Vec<(u64, Done)>,
    pub enters: u64,
}

#[track_caller]
fn must(holds: bool, name: &str, next: &str, expected: &str, seen: impl Into<String>) {
    if !holds {
        property(name, next).holds(false, expected, seen.into());
    }
}

impl Fake {
    /// A ring, and clients with their plans.
    pub fn new(habits: Habits, plans: Vec<Vec<Act>>) -> Self {
        let client = |plan: Vec<Act>| {
            let wakes = if let Some(Act::Later(ms)) = plan.first() { *ms } else { 0 };
            Client { plan: plan.into(), wakes, ..Client::default() }
        };
        let clients: Vec<_> = plans.into_iter().map(client).collect();
        Self {
            habits,
            now: 0,
            backlog: VecDeque::new(),
            clients,
            open: BTreeMap::new(),
            pushed: Vec::new(),
            accept: None,
            ready: Vec::new(),
            late: Vec::new(),
            enters: 0,
        }
    }

    /// Connections that were not closed.
    pub fn left_open(&self) -> Vec<Fd> {
        self.open.keys().copied().collect()
    }

    fn submit(&mut self) {
        let mut pushed = std::mem::take(&mut self.pushed).into_iter().peekable();
        while let Some(sqe) = pushed.next() {
            let follows = pushed.next_if(|next| sqe.link && matches!(next.op, Op::LinkTimeout(_)));
            let unlinked = !sqe.link || follows.is_some() || pushed.peek().is_none();
            must(
                unlinked,
                "only timeouts are linked here",
                "what does a link say of the next one?",
                "a timeout",
                "another operation",
            );
            let timeout = follows.map(|sqe| match sqe.op {
                Op::LinkTimeout(after) => (sqe.tag, self.now + after),
                _ => (sqe.tag, self.now),
            });
            self.start(sqe, timeout);
        }
    }

    fn start(&mut self, sqe: Sqe, timeout: Option<(u64, u64)>) {
        let (fd, bytes) = match sqe.op {
            Op::Accept => {
                let second = self.accept.replace(sqe.tag).is_some();
                return must(
                    !second,
                    "one accept is under way at a time",
                    "when has it completed?",
                    "one",
                    "two",
                );
            }
            Op::LinkTimeout(_) => return self.done(sqe.tag, -libc::EINVAL, vec![]),
            Op::Close(fd) => {
                let now = self.now;
                let client = self.client(fd, "close");
                let next =
                    "what is still under way on it, and what happens to that when its number is used again?";
                must(
                    client.under_way.is_none(),
                    "a connection is closed when nothing is under way on it",
                    next,
                    "nothing",
                    "an operation",
                );
                client.closed_at = Some(now);
                self.open.remove(&fd);
                return self.done(sqe.tag, 0, vec![]);
            }
            Op::Recv(fd) => (fd, None),
            Op::Send(fd, bytes) => (fd, Some(bytes)),
        };
        let client = self.client(fd, if bytes.is_some() { "send" } else { "recv" });
        let next = "where would the bytes of a client that does not read be kept?";
        must(client.under_way.is_none(), "a connection has one operation at a time", next, "one", "two");
        client.under_way = Some(Pending { tag: sqe.tag, bytes, timeout });
    }

    fn client(&mut self, fd: Fd, call: &str) -> &mut Client {
        let next = "who closed it, and which completion came after that?";
        must(
            self.open.contains_key(&fd),
            "nothing is done to a descriptor that is not open",
            next,
            "an open one",
            format!("{call}({fd})"),
        );
        &mut self.clients[self.open[&fd]]
    }

    fn done(&mut self, tag: u64, res: i32, bytes: Vec<u8>) {
        self.ready.push(Done { tag, res, bytes });
    }

    /// Completes an operation, and its timeout.
    fn complete(&mut self, at: usize, res: i32, bytes: Vec<u8>, timeout_res: i32) {
        let Some(pending) = self.clients[at].under_way.take() else { return };
        let timeout = pending.timeout.map(|(tag, _)| Done { tag, res: timeout_res, bytes: vec![] });
        match timeout {
            // The enters in between are enough to close, and to accept somebody else.
            Some(done) if self.habits.timeout_late => self.late.push((self.enters + 3, done)),
            Some(done) if self.habits.timeout_first => self.ready.push(done),
            Some(done) => {
                self.done(pending.tag, res, bytes);
                return self.ready.push(done);
            }
            None => {}
        }
        self.done(pending.tag, res, bytes);
    }

    /// All that can happen now.
    fn happen(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if !client.came && self.now >= client.wakes {
                client.came = true;
                client.plan.pop_front_if(|act| matches!(act, Act::Later(_)));
                self.backlog.push_back(at);
            }
            self.clients[at].act(self.now);
            self.progress(at);
            self.clients[at].act(self.now);
        }
        if let (Some(tag), Some(&at)) = (self.accept, self.backlog.front()) {
            self.backlog.pop_front();
            self.accept = None;
            if let Some(Act::Abort) = self.clients[at].plan.front() {
                self.clients[at].plan.clear();
                self.clients[at].closed_at = Some(self.now);
                return self.done(tag, -libc::ECONNABORTED, vec![]);
            }
            let fd = (4..).find(|fd| !self.open.contains_key(fd)).unwrap_or_default();
            self.open.insert(fd, at);
            self.done(tag, fd, vec![]);
        }
    }

    fn progress(&mut self, at: usize) {
        let (now, habits) = (self.now, self.habits);
        let client = &mut self.clients[at];
        let Some(pending) = &client.under_way else { return };
        let fires = pending.timeout.is_some_and(|(_, when)| when <= now);
        // At the very moment at which the timeout fires, the operation may be done already.
        let timeout_res = if fires { -libc::EALREADY } else { -libc::ECANCELED };
        match &pending.bytes {
            None if !client.unread.is_empty() => {
                let len = client.unread.len().min(BUFFER);
                let bytes: Vec<u8> = client.unread.drain(..len).collect();
                self.complete(at, len as i32, bytes, timeout_res);
            }
            None if client.gone => self.complete(at, -libc::ECONNRESET, vec![], timeout_res),
            None if client.fin => self.complete(at, 0, vec![], timeout_res),
            Some(_) if client.gone => self.complete(at, -libc::EPIPE, vec![], timeout_res),
            Some(bytes) if client.untaken < habits.room => {
                let len = bytes.len().min(habits.sends).min(habits.room - client.untaken);
                client.received.extend_from_slice(&bytes[..len]);
                if client.deaf {
                    client.untaken += len;
                }
                self.complete(at, len as i32, vec![], timeout_res);
            }
            _ if fires => self.complete(at, -libc::ECANCELED, vec![], -libc::ETIME),
            _ => {}
        }
    }

    /// When something will happen by itself.
    fn next_moment(&self) -> Option<u64> {
        let timeouts =
            self.clients.iter().filter_map(|c| c.under_way.as_ref()?.timeout.map(|(_, when)| when));
        let sleepers = self.clients.iter().filter(|c| c.closed_at.is_none()).map(|c| c.wakes);
        timeouts.chain(sleepers).filter(|when| *when > self.now).min()
    }
}

impl Client {
    fn act(&mut self, now: u64) {
        while self.came && now >= self.wakes {
            match self.plan.front() {
                Some(Act::Send(bytes)) => {
                    self.sent.extend_from_slice(bytes);
                    self.unread.extend(bytes);
                }
                Some(Act::Sleep(ms)) => self.wakes = now + ms,
                Some(Act::Deaf) => self.deaf = true,
                Some(Act::Fin) => self.fin = true,
                Some(Act::Vanish) => self.gone = true,
                Some(Act::Await) if self.received.len() >= self.sent.len() => {}
                Some(Act::AwaitClose) if self.closed_at.is_some() => {}
                _ => return,
            }
            self.plan.pop_front();
        }
    }
}

impl Ring for Fake {
    fn push(&mut self, sqe: Sqe) {
        self.pushed.push(sqe);
    }

    fn enter(&mut self, wait_for: usize) -> Option<Vec<Done>> {
        self.enters += 1;
        must(
            self.enters < 100_000,
            "it comes to its end",
            "what do you ask for, again and again?",
            "an end",
            "100000 enters",
        );
        self.submit();
        let enters = self.enters;
        self.ready.extend(self.late.extract_if(.., |(with, _)| *with <= enters).map(|(_, done)| done));
        loop {
            self.happen();
            if self.clients.iter().all(|c| c.closed_at.is_some()) {
                return None;
            }
            if self.ready.len() >= wait_for {
                return Some(std::mem::take(&mut self.ready));
            }
            match self.next_moment() {
                Some(when) => self.now = when,
                None if !self.late.is_empty() => self.ready.extend(self.late.drain(..).map(|(_, done)| done)),
                None => {
                    let idle = self.open.iter().find(|(_, at)| self.clients[**at].under_way.is_some());
                    let seen = match idle {
                        Some((fd, _)) => {
                            format!("an operation on {fd} without a timeout, and a client that does nothing")
                        }
                        None if self.accept.is_none() && !self.backlog.is_empty() => {
                            "no accept, and clients that wait".to_owned()
                        }
                        None => format!("nothing under way on the connections {:?}", self.left_open()),
                    };
                    let next = "which operation is missing, or which timeout was linked to nothing?";
                    must(false, "it waits only for what will come", next, "a completion, some day", seen);
                }
            }
        }
    }
}
