//! The supervisor proper: one thread, one epoll, no signal handler.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kit::SysError;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::config::{Config, Restart, Service};
use super::event::{Event, What, send};
use crate::cgroup::{self, Cgroup};
use crate::process::Child;
use crate::spawn::Spawn;
use crate::sys;

/// What a service is doing.
#[derive(Debug)]
enum State {
    /// Not started yet: the ones before it are not ready.
    Queued,
    /// To be started at this time.
    Pause(Instant),
    /// Runs, has not said that it is ready.
    Starting,
    /// Runs and is ready.
    Up,
    /// Was told to stop; forced at this time.
    Stopping(Instant),
    /// Killed; waiting for its end.
    Forced,
    /// Ended, and not to be started again.
    Down,
}

#[derive(Debug)]
struct Unit {
    config: Service,
    state: State,
    child: Option<Child>,
    ready: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    started: Instant,
    /// Failures in a row.
    failures: u32,
    /// Whether it has ever been ready.
    was_ready: bool,
}

/// The running supervisor.
#[derive(Debug)]
pub struct Supervisor {
    units: Vec<Unit>,
    events: OwnedFd,
    began: Instant,
    epoll: Epoll,
    signals: SignalFd,
    /// Whose tree all services are in; `None` where there is no writable cgroup v2.
    root: Option<PathBuf>,
    starts: u64,
    stopping: bool,
    until: Option<Instant>,
}

/// Tokens in epoll: 0 is the signalfd, 2i+1 the pidfd and 2i+2 the readiness of service i.
const SIGNALS: u64 = 0;

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

impl Supervisor {
    /// Prepares; `events` is the socket to the guard, `root` the cgroup it made.
    ///
    /// # Errors
    /// signalfd, epoll or prctl failed.
    pub fn new(config: Config, events: OwnedFd, root: Option<PathBuf>) -> Result<Self, SysError> {
        let call = |call: &'static str| move |e| SysError::new(call, e);
        sys::pidfd::become_subreaper().map_err(call("prctl(PR_SET_CHILD_SUBREAPER)"))?;
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            set.add(signal);
        }
        set.thread_block().map_err(SysError::nix("pthread_sigmask"))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(SysError::nix("signalfd"))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(SysError::nix("epoll_create1"))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS);
        epoll.add(&signals, event).map_err(SysError::nix("epoll_ctl"))?;
        let now = Instant::now();
        let until = config.run_for_ms.map(|ms| now + Duration::from_millis(ms));
        let unit = |config| Unit {
            config,
            state: State::Queued,
            child: None,
            ready: None,
            cgroup: None,
            started: now,
            failures: 0,
            was_ready: false,
        };
        let units = config.services.into_iter().map(unit).collect();
        Ok(Self { units, events, began: now, epoll, signals, root, starts: 0, stopping: false, until })
    }

    /// Supervises until told to stop, then stops everything.
    ///
    /// # Errors
    /// epoll failed; then all children are killed all the same.
    pub fn run(mut self) -> Result<(), SysError> {
        let result = self.serve();
        for unit in &mut self.units {
            unit.child = None; // ends and reaps
            unit.cgroup = None; // kills and removes
        }
        let swept = super::sweep();
        if let Some(root) = &self.root {
            cgroup::remove(root);
        }
        self.tell(None, What::Done(swept), None);
        result
    }

    fn serve(&mut self) -> Result<(), SysError> {
        let mut ready = [EpollEvent::empty(); 32];
        loop {
            self.advance();
            if self.stopping && self.units.iter().all(|u| matches!(u.state, State::Down)) {
                return Ok(());
            }
            let n = match self.epoll.wait(&mut ready, self.timeout()) {
                Err(nix::errno::Errno::EINTR) => 0,
                done => done.map_err(SysError::nix("epoll_wait"))?,
            };
            for event in ready.iter().take(n) {
                match event.data() {
                    SIGNALS => self.take_signals(),
                    token if token % 2 == 1 => self.ended((token as usize - 1) / 2),
                    token => self.got_ready((token as usize - 2) / 2),
                }
            }
        }
    }

    /// Everything that time or order makes due.
    fn advance(&mut self) {
        let now = Instant::now();
        if self.until.is_some_and(|t| t <= now) {
            self.stopping = true;
        }
        if self.stopping {
            self.stop_next(now);
            return;
        }
        let mut all_ready = true;
        for i in 0..self.units.len() {
            match self.units[i].state {
                State::Queued if all_ready => self.start(i),
                State::Pause(at) if at <= now => self.start(i),
                _ => {}
            }
            // The first start waits for the ones before; a restart does not.
            let unit = &self.units[i];
            all_ready &= unit.was_ready || matches!(unit.state, State::Down);
        }
    }

    /// From the last to the first, one at a time.
    fn stop_next(&mut self, now: Instant) {
        let Some(i) = self.units.iter().rposition(|u| !matches!(u.state, State::Down)) else { return };
        let unit = &mut self.units[i];
        let Some(child) = &unit.child else {
            unit.state = State::Down;
            return self.stop_next(now);
        };
        match unit.state {
            State::Stopping(at) if at <= now => {
                // Without a cgroup, or one that cannot kill, at least the process group.
                let by_group =
                    || child.pidfd().signal_group(Signal::SIGKILL).or_else(|_| child.signal(Signal::SIGKILL));
                let _ = match &unit.cgroup {
                    Some(group) => group.kill().or_else(|_| by_group()),
                    None => by_group(),
                };
                unit.state = State::Forced;
                self.tell(Some(i), What::Forced, None);
            }
            State::Stopping(_) | State::Forced => {}
            _ => {
                let _ = child.signal(Signal::SIGTERM);
                unit.state = State::Stopping(now + Duration::from_millis(unit.config.stop_timeout_ms));
                self.tell(Some(i), What::Stopping, None);
            }
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let deadlines = self.units.iter().filter_map(|u| match u.state {
            State::Pause(at) if !self.stopping => Some(at),
            State::Stopping(at) => Some(at),
            _ => None,
        });
        let next = deadlines.chain(self.until.filter(|_| !self.stopping)).min();
        next.map_or(EpollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            EpollTimeout::try_from(left).unwrap_or(EpollTimeout::from(u16::MAX))
        })
    }

    fn start(&mut self, i: usize) {
        if let Err(why) = self.try_start(i) {
            self.units[i].cgroup = None;
            self.units[i].ready = None;
            self.tell(Some(i), What::NotStarted(why), None);
            self.again(i, false);
        }
    }

    fn try_start(&mut self, i: usize) -> Result<(), String> {
        self.starts += 1;
        let unit = &mut self.units[i];
        // A new group for each start: the old one may have been killed, and kills what clone3 puts in it.
        let name = format!("{}-{}", unit.config.name, self.starts);
        unit.cgroup = match &self.root {
            Some(root) => Some(Cgroup::create(root, &name).map_err(|e| e.to_string())?),
            None => None,
        };
        let (read, write) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|e| e.to_string())?;
        let (program, args) = unit.config.run.split_first().ok_or("run is empty")?;
        let mut spawn = Spawn::new(program).args(args).group(0).parent_death(Signal::SIGKILL);
        for (name, value) in &unit.config.env {
            spawn = spawn.env(name, value);
        }
        if let Some(dir) = &unit.config.cwd {
            spawn = spawn.cwd(dir);
        }
        if let Some(fd) = unit.config.ready_fd {
            spawn = spawn.fd(fd, &write);
        }
        if let Some(group) = &unit.cgroup {
            spawn = spawn.cgroup(group);
        }
        let child = spawn.spawn().map_err(|e| e.to_string())?;
        drop(spawn);
        drop(write);
        let event = |n: u64| EpollEvent::new(EpollFlags::EPOLLIN, 2 * i as u64 + n);
        self.epoll.add(&child, event(1)).map_err(|e| e.to_string())?;
        if unit.config.ready_fd.is_some() {
            self.epoll.add(&read, event(2)).map_err(|e| e.to_string())?;
            unit.ready = Some(read);
            unit.state = State::Starting;
        } else {
            unit.state = State::Up;
            unit.was_ready = true;
        }
        unit.started = Instant::now();
        let handle = child.pidfd().try_clone().ok();
        let (pid, up) = (child.pid(), matches!(unit.state, State::Up));
        unit.child = Some(child);
        self.tell(Some(i), What::Started { pid }, handle.as_ref());
        if up {
            self.tell(Some(i), What::Ready, None);
        }
        Ok(())
    }

    /// The service wrote to its descriptor: ready. Closed without a word, it is not: it may be dying, and a
    /// descriptor closes before the process has ended.
    fn got_ready(&mut self, i: usize) {
        let unit = &mut self.units[i];
        let Some(fd) = unit.ready.take() else { return };
        let _ = self.epoll.delete(&fd);
        let wrote = matches!(File::from(fd).read(&mut [0]), Ok(1));
        if wrote && matches!(unit.state, State::Starting) {
            unit.state = State::Up;
            unit.was_ready = true;
            self.tell(Some(i), What::Ready, None);
        }
    }

    /// A service's process has ended: reap it, clear what it left, decide what next.
    fn ended(&mut self, i: usize) {
        let unit = &mut self.units[i];
        let Some(child) = &mut unit.child else { return };
        let Ok(Some(exit)) = child.try_wait() else { return };
        let _ = self.epoll.delete(&*child);
        unit.child = None;
        if let Some(fd) = unit.ready.take() {
            let _ = self.epoll.delete(&fd);
        }
        let left = unit.cgroup.as_ref().map_or(0, |g| g.members().len());
        unit.cgroup = None; // kills what is left, and removes the group
        self.tell(Some(i), What::Ended(exit.end.to_string()), None);
        if left > 0 {
            self.tell(Some(i), What::LeftOver(left), None);
        }
        self.again(i, exit.end.success());
    }

    /// Whether and when to start it again.
    fn again(&mut self, i: usize, success: bool) {
        let unit = &mut self.units[i];
        let wanted = match unit.config.restart {
            Restart::Always => true,
            Restart::OnFailure => !success,
            Restart::Never => false,
        };
        if self.stopping || !wanted {
            unit.state = State::Down;
            return self.tell(Some(i), What::Down, None);
        }
        // One that ran well for longer than the longest pause has earned a fresh start.
        if unit.started.elapsed() > Duration::from_millis(unit.config.backoff_max_ms.max(1)) {
            unit.failures = 0;
        }
        let pause = unit.config.backoff(unit.failures);
        unit.failures = unit.failures.saturating_add(1);
        unit.state = State::Pause(Instant::now() + pause);
        self.tell(Some(i), What::Backoff(pause.as_millis() as u64), None);
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo == libc::SIGCHLD as u32 {
                self.reap_orphans();
            } else {
                self.stopping = true;
            }
        }
    }

    /// SIGCHLD merges: look at who has ended, without reaping, until nobody has. A service is handled
    /// as such; whoever else it is was adopted.
    fn reap_orphans(&mut self) {
        let peek = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        while let Ok(Some(waited)) = sys::pidfd::waitid(libc::P_ALL, 0, peek) {
            let owner = self.by_pid().get(&waited.pid).copied();
            match owner {
                Some(i) => self.ended(i),
                None => {
                    let reap = libc::WEXITED | libc::WNOHANG;
                    let _ = sys::pidfd::waitid(libc::P_PID, waited.pid, reap);
                    self.tell(None, What::Adopted(waited.pid), None);
                }
            }
        }
    }

    fn by_pid(&self) -> BTreeMap<i32, usize> {
        self.units.iter().enumerate().filter_map(|(i, u)| Some((u.child.as_ref()?.pid(), i))).collect()
    }

    fn tell(&self, unit: Option<usize>, what: What, pidfd: Option<&crate::pidfd::PidFd>) {
        use std::os::fd::AsFd as _;
        let service = unit.map_or_else(String::new, |i| self.units[i].config.name.clone());
        let at_us = self.began.elapsed().as_micros() as u64;
        send(self.events.as_fd(), &Event { at_us, service, what }, pidfd);
    }
}
