//! A kernel in which a test decides what happens before which call, and which sees every mistake.

use std::collections::BTreeMap;

use kit::spec::property;

use super::{End, Errno, Fd, Kernel, Ms, Pid, Signal};

/// Calls after which nobody believes that it will end.
const MANY: usize = 5000;

/// What a started service does.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    /// Ends by itself so long after its start.
    pub after: Option<Ms>,
    /// How, then.
    pub end: End,
    /// Ends so long after a SIGTERM; None: takes no notice.
    pub on_term: Option<Ms>,
}

/// When SIGTERM comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Never,
    /// Right before the call of this number.
    Call(usize),
    /// At this time, which passes only in `poll`.
    Time(Ms),
}

#[derive(Debug)]
struct Process {
    service: usize,
    pid: Pid,
    dies: Option<(Ms, End)>,
    on_term: Option<Ms>,
    reaped: bool,
    killed_at: Option<Ms>,
}

impl Process {
    fn is_dead(&self, now: Ms) -> bool {
        self.dies.is_some_and(|(at, _)| at <= now)
    }
}

enum Open {
    Term,
    Process(usize),
}

/// See the module.
pub struct Model {
    /// What each start of each service does; the last goes for all further ones.
    scripts: Vec<Vec<Child>>,
    pub term: Moment,
    /// The number of the `spawn` that fails, and how.
    pub spawn_fails: Option<(usize, Errno)>,
    pub term_fd_fails: bool,
    /// Each other `poll` is interrupted by some other signal's handler.
    pub interrupts: bool,
    now: Ms,
    calls: usize,
    polls: usize,
    /// The services that were started, in this order.
    pub starts: Vec<usize>,
    /// The number of the first `spawn` among the calls.
    pub first_spawn: usize,
    /// How many calls there had been when SIGTERM came.
    pub calls_before_term: usize,
    blocked: bool,
    pending: bool,
    flag: bool,
    sent: bool,
    pub term_read: bool,
    open: BTreeMap<Fd, Open>,
    next_fd: i32,
    processes: Vec<Process>,
}

impl Model {
    pub fn new(scripts: Vec<Vec<Child>>) -> Self {
        Self {
            scripts,
            term: Moment::Never,
            spawn_fails: None,
            term_fd_fails: false,
            interrupts: false,
            now: 0,
            calls: 0,
            polls: 0,
            starts: Vec::new(),
            first_spawn: usize::MAX,
            calls_before_term: 0,
            blocked: false,
            pending: false,
            flag: false,
            sent: false,
            term_read: false,
            open: BTreeMap::new(),
            next_fd: 3,
            processes: Vec::new(),
        }
    }

    /// When a service's last process got SIGKILL.
    pub fn killed_at(&self, service: usize) -> Option<Ms> {
        self.processes.iter().rev().find(|p| p.service == service)?.killed_at
    }

    /// Nothing is left: for when the supervisor has returned.
    pub fn nothing_is_left(&self) {
        let left: Vec<usize> = self.processes.iter().filter(|p| !p.reaped).map(|p| p.service).collect();
        property("every process was reaped when the supervisor returns", "who waits for it on this way out?")
            .holds(
                left.is_empty(),
                "none left",
                format!("processes of the services {left:?}, running or zombies"),
            );
        let open: Vec<&str> = self
            .open
            .values()
            .map(|open| match open {
                Open::Term => "the signalfd",
                Open::Process(_) => "a pidfd",
            })
            .collect();
        property("every descriptor was closed when the supervisor returns", "who closes it on this way out?")
            .holds(open.is_empty(), "none open", format!("{open:?}"));
    }

    /// Each call passes here: things happen between calls, not in them.
    fn enter(&mut self, call: &str) {
        if self.term == Moment::Call(self.calls) {
            self.deliver();
        }
        self.calls += 1;
        property(
            "the supervisor does not go on for ever",
            "what is ready again and again, and does it still matter?",
        )
        .holds(
            self.calls < MANY,
            format!("fewer than {MANY} calls"),
            format!("more, the last of them {call}"),
        );
    }

    fn deliver(&mut self) {
        self.sent = true;
        self.calls_before_term = self.calls;
        if self.blocked { self.pending = true } else { self.flag = true }
    }

    fn process(&mut self, fd: Fd, call: &str) -> Result<usize, Errno> {
        match self.open.get(&fd) {
            Some(Open::Process(i)) => Ok(*i),
            _ => {
                property(
                    "descriptors are used while they are open",
                    "who closed it, and who still has its number?",
                )
                .holds(false, "a pidfd", format!("{call} of {fd:?}, which is none"));
                Err(Errno::Ebadf)
            }
        }
    }

    fn signal(&mut self, i: usize, signal: Signal) {
        let (now, p) = (self.now, &mut self.processes[i]);
        if p.is_dead(now) {
            return;
        }
        let dies = match signal {
            Signal::Kill => {
                p.killed_at = Some(now);
                Some(now)
            }
            Signal::Term => p.on_term.map(|after| now + after),
        };
        if let Some(at) = dies
            && p.dies.is_none_or(|(before, _)| at < before)
        {
            p.dies = Some((at, End::Killed(signal)));
        }
    }

    fn ready(&self, fds: &[Fd]) -> Vec<Fd> {
        let is_ready = |fd: &&Fd| match self.open.get(fd) {
            Some(Open::Term) => self.pending,
            Some(Open::Process(i)) => self.processes[*i].is_dead(self.now),
            None => false,
        };
        fds.iter().filter(is_ready).copied().collect()
    }

    fn new_fd(&mut self, open: Open) -> Fd {
        let fd = Fd(self.next_fd);
        self.next_fd += 1;
        self.open.insert(fd, open);
        fd
    }
}

impl Kernel for Model {
    fn block_term(&mut self) {
        self.enter("block_term");
        self.blocked = true;
    }

    fn got_term(&mut self) -> bool {
        self.enter("got_term");
        self.term_read |= self.flag;
        self.flag
    }

    fn term_fd(&mut self) -> Result<Fd, Errno> {
        self.enter("term_fd");
        if self.term_fd_fails { Err(Errno::Emfile) } else { Ok(self.new_fd(Open::Term)) }
    }

    fn read_term(&mut self, fd: Fd) -> Result<(), Errno> {
        self.enter("read_term");
        if !matches!(self.open.get(&fd), Some(Open::Term)) {
            return Err(Errno::Ebadf);
        }
        if !std::mem::take(&mut self.pending) {
            return Err(Errno::Eagain);
        }
        self.term_read = true;
        Ok(())
    }

    fn spawn(&mut self, service: usize) -> Result<(Pid, Fd), Errno> {
        self.first_spawn = self.first_spawn.min(self.calls);
        self.enter("spawn");
        property("nothing is started once SIGTERM was read", "does a service that fails now still matter?")
            .holds(!self.term_read, "no spawn", format!("a spawn of service {service}"));
        if let Some((n, errno)) = self.spawn_fails
            && n == self.starts.len()
        {
            return Err(errno);
        }
        let before = self.starts.iter().filter(|s| **s == service).count();
        let script = &self.scripts[service];
        let child = script[before.min(script.len() - 1)];
        self.starts.push(service);
        let i = self.processes.len();
        let pid = Pid(1000 + i as i32);
        self.processes.push(Process {
            service,
            pid,
            dies: child.after.map(|after| (self.now + after, child.end)),
            on_term: child.on_term,
            reaped: false,
            killed_at: None,
        });
        Ok((pid, self.new_fd(Open::Process(i))))
    }

    fn poll(&mut self, fds: &[Fd], timeout: Option<Ms>) -> Result<Vec<Fd>, Errno> {
        self.enter("poll");
        self.polls += 1;
        property("poll is asked about open descriptors only", "which of them was closed?").holds(
            fds.iter().all(|fd| self.open.contains_key(fd)),
            "open ones",
            format!("{fds:?}"),
        );
        let until = timeout.map(|t| self.now.saturating_add(t));
        if self.interrupts && self.polls.is_multiple_of(2) {
            return Err(Errno::Eintr);
        }
        loop {
            let ready = self.ready(fds);
            if !ready.is_empty() {
                return Ok(ready);
            }
            let mut next: Vec<Ms> = self
                .processes
                .iter()
                .filter(|p| !p.reaped)
                .filter_map(|p| Some(p.dies?.0))
                .chain(until)
                .filter(|at| *at >= self.now)
                .collect();
            if let Moment::Time(at) = self.term
                && !self.sent
            {
                next.push(at.max(self.now));
            }
            if until.is_some_and(|until| until <= self.now) {
                return Ok(Vec::new());
            }
            // Dead already and not asked about: nothing more will come of it.
            next.retain(|at| *at > self.now || self.term == Moment::Time(*at) && !self.sent);
            let Some(at) = next.into_iter().min() else {
                let what = if self.sent { "SIGTERM has come" } else { "nothing more will happen" };
                property(
                    "the supervisor never sleeps while there is something to do",
                    "what if it comes after you looked, and before you sleep?",
                )
                .holds(
                    false,
                    "no poll without an end",
                    format!("it sleeps for ever, though {what}"),
                );
                return Ok(Vec::new());
            };
            self.now = at;
            if self.term == Moment::Time(at) && !self.sent {
                self.deliver();
                if self.flag {
                    return Err(Errno::Eintr);
                }
            }
        }
    }

    fn reap(&mut self, pidfd: Fd) -> Result<Option<End>, Errno> {
        self.enter("reap");
        let i = self.process(pidfd, "waitid")?;
        let (now, p) = (self.now, &mut self.processes[i]);
        if p.reaped {
            return Err(Errno::Echild);
        }
        let end = p.dies.filter(|(at, _)| *at <= now).map(|(_, end)| end);
        p.reaped = end.is_some();
        Ok(end)
    }

    fn pidfd_send_signal(&mut self, pidfd: Fd, signal: Signal) -> Result<(), Errno> {
        self.enter("pidfd_send_signal");
        let i = self.process(pidfd, "pidfd_send_signal")?;
        if self.processes[i].reaped {
            return Err(Errno::Esrch);
        }
        self.signal(i, signal);
        Ok(())
    }

    fn kill(&mut self, pid: Pid, signal: Signal) -> Result<(), Errno> {
        self.enter("kill");
        let Some(i) = self.processes.iter().position(|p| p.pid == pid) else { return Err(Errno::Esrch) };
        property("no stranger gets a signal", "whose number is it once its process was reaped?").holds(
            !self.processes[i].reaped,
            "signals to our own processes only",
            format!("{signal:?} to {pid:?}, who is somebody else by now"),
        );
        self.signal(i, signal);
        Ok(())
    }

    fn close(&mut self, fd: Fd) {
        self.enter("close");
        property("a descriptor is closed once", "who else closes it?").holds(
            self.open.remove(&fd).is_some(),
            "an open descriptor",
            format!("close of {fd:?}, which is none"),
        );
    }

    fn now(&mut self) -> Ms {
        self.now
    }
}
