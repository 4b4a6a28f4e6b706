//! The command or process that is traced, and the wait for what comes first: its end, an event, a moment, Ctrl-C.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kit::SysError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What is under the tracer: a command that it started, or a process that was there before.
///
/// A command is killed and waited for when dropped before its end; another process is left alone.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    pidfd: OwnedFd,
    ended: bool,
    /// Of a command that has ended.
    status: Option<ExitStatus>,
    /// Ends a command where nothing is dropped: when the reader of the output went away.
    _end: Option<kit::cleanup::Deferred>,
}

/// How often to look for events that nobody has announced: waking the reader costs a program more than an event.
const LOOK: Duration = Duration::from_millis(20);

impl Running {
    /// Starts the command, its output thrown away if `hidden`. Programs that follow must be attached already: the
    /// kernel marks it when its exec succeeds.
    ///
    /// # Errors
    ///
    /// ENOENT: no such program; EACCES: not executable; and those of pidfd_open(2), Linux 5.3.
    pub fn start(words: &[OsString], hidden: bool) -> Result<Self, SysError> {
        let (program, arguments) = words.split_first().ok_or(SysError::new("no command", libc::EINVAL))?;
        let mut command = Command::new(program);
        command.args(arguments);
        if hidden {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        let child = command.spawn().map_err(|e| {
            let e = SysError::io(format!("exec({:?})", program.display().to_string()))(e);
            match e.errno {
                libc::ENOENT => e.with_detail("no such program there, or in a folder of PATH"),
                libc::EACCES | libc::ENOEXEC => e.with_detail("no program, or not one for you: see chmod(1)"),
                _ => e,
            }
        })?;
        // Nobody else waits for this child, so its PID is still its own.
        let pidfd = pidfd(Pid::from_child(&child))?;
        let same = pidfd.try_clone().map_err(SysError::io("fcntl(F_DUPFD_CLOEXEC)"))?;
        let end = kit::cleanup::defer("end the traced command", move || {
            // ESRCH: it has ended.
            let _ = rustix::process::pidfd_send_signal(same, rustix::process::Signal::KILL);
        });
        Ok(Self { child: Some(child), pidfd, ended: false, status: None, _end: Some(end) })
    }

    /// A process that runs already: its end is noticed.
    ///
    /// # Errors
    ///
    /// ESRCH: no such process (any more); EINVAL or ENOENT: a thread that does not lead its process.
    pub fn watch(pid: u32) -> Result<Self, SysError> {
        let none = SysError::new("pidfd_open", libc::ESRCH);
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(none)?;
        Ok(Self { child: None, pidfd: pidfd(pid)?, ended: false, status: None, _end: None })
    }

    fn end(&mut self) -> Result<(), SysError> {
        self.ended = true;
        if let Some(child) = &mut self.child {
            self.status = Some(child.wait().map_err(SysError::io("wait4"))?);
        }
        Ok(())
    }

    /// How it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// How it ended, in words.
    pub fn ending(&self) -> String {
        match self.status.map(|s| (s.code(), s.signal())) {
            None if self.ended => "ended".into(),
            Some((Some(code), _)) => format!("exited with {code}"),
            Some((_, Some(signal))) => match Signal::try_from(signal) {
                Ok(signal) => format!("killed by {signal}"),
                Err(_) => format!("killed by signal {signal}"),
            },
            _ => "still runs".into(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child
            && !self.ended
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn pidfd(pid: Pid) -> Result<OwnedFd, SysError> {
    pidfd_open(pid, PidfdFlags::empty()).map_err(|e| SysError::new("pidfd_open", e.raw_os_error()))
}

/// What the wait came back for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The interval is over.
    Interval,
    /// There are events.
    Events,
    /// The command has ended.
    Ended,
    /// The time is up.
    Time,
    /// SIGINT, SIGTERM or SIGHUP.
    Interrupted,
}

/// Waits, and knows when it is over. From its making on, the three signals above only wake it.
#[derive(Debug)]
pub struct Wait {
    signals: SignalFd,
    until: Option<Instant>,
    interval: Duration,
    next: Instant,
}

impl Wait {
    /// Waits at most for `duration` (without one: for ever), and wakes up each `interval`.
    pub fn new(duration: Option<Duration>, interval: Duration) -> Result<Self, SysError> {
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        set.thread_block().map_err(SysError::nix("sigprocmask"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags).map_err(SysError::nix("signalfd"))?;
        let now = Instant::now();
        Ok(Self { signals, until: duration.map(|d| now + d), interval, next: now + interval })
    }

    /// Has the first interval end after `time` at the latest.
    pub fn first(mut self, time: Duration) -> Self {
        self.next = self.next.min(Instant::now() + time);
        self
    }

    /// Blocks until something is to be done. Of several, what ends the trace comes last, so that nothing is left unread.
    pub fn next(
        &mut self,
        events: Option<BorrowedFd<'_>>,
        mut command: Option<&mut Running>,
    ) -> Result<Wake, SysError> {
        loop {
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            fds.extend(events.map(|e| PollFd::new(e, PollFlags::POLLIN)));
            let running = command.as_deref().filter(|c| !c.ended);
            fds.extend(running.map(|c| PollFd::new(c.pidfd.as_fd(), PollFlags::POLLIN)));
            let has_command = running.is_some();
            let wake = self.until.map_or(self.next, |u| u.min(self.next));
            let mut left = wake.saturating_duration_since(Instant::now());
            if events.is_some() {
                left = left.min(LOOK);
            }
            // Rounded up: a timeout of 0 would spin through the last millisecond.
            let timeout = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(SysError::nix("poll")(e)),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            drop(fds);
            if ready[0] && self.signals.read_signal().map_err(SysError::nix("read(signalfd)"))?.is_some() {
                return Ok(Wake::Interrupted);
            }
            if has_command
                && ready.last() == Some(&true)
                && let Some(command) = command.as_deref_mut()
            {
                command.end()?;
                return Ok(Wake::Ended);
            }
            let now = Instant::now();
            if self.until.is_some_and(|u| u <= now) {
                return Ok(Wake::Time);
            }
            if self.next <= now {
                // Late is late: intervals that were missed are not made up for.
                self.next = now + self.interval;
                return Ok(Wake::Interval);
            }
            if events.is_some() && ready[1] {
                return Ok(Wake::Events);
            }
        }
    }
}
