//! The race: a number is kept, its process ends, another gets the number, and a signal finds it.
//!
//! On a busy machine this takes a wrap-around of `kernel.pid_max` at a bad moment. Here it happens on
//! demand: in a PID namespace of our own, `clone3(set_tid)` (Linux 5.5) gives out the number we want.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use kit::SysError;
use nix::fcntl::OFlag;

use crate::pidfd::PidFd;
use crate::sys::race::{self as sys, RECORD_SIZE, What};

/// The number that both processes get.
pub const NUMBER: i32 = 4242;

/// What was kept: the number or the handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// `kill(pid)`.
    Pid,
    /// `pidfd_send_signal(pidfd)`.
    PidFd,
}

/// What happened on the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// The process we look after was created.
    Created,
    /// It ended and was reaped: its number is free.
    Reaped,
    /// A stranger was created, with that number.
    InnocentCreated,
    /// We sent SIGTERM to what we had kept; the errno, 0 for success.
    Signalled(i32),
    /// The stranger died of this signal, which was meant for another.
    InnocentKilled(i32),
    /// The stranger was still there afterwards.
    InnocentLives,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Since the first event.
    pub at: Duration,
    /// In which story.
    pub story: Story,
    /// What.
    pub happened: Happened,
    /// The number of the process concerned.
    pub pid: i32,
}

/// Both stories, told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Race {
    /// How the number was arranged: for the reader.
    pub how: &'static str,
    /// In order.
    pub events: Vec<Event>,
}

impl Race {
    fn any(&self, story: Story, test: impl Fn(Happened) -> bool) -> bool {
        self.events.iter().any(|e| e.story == story && test(e.happened))
    }

    /// Whether `kill(pid)` succeeded, and ended the stranger.
    pub fn pid_kill_hit_innocent(&self) -> bool {
        self.any(Story::Pid, |h| h == Happened::Signalled(0))
            && self.any(Story::Pid, |h| h == Happened::InnocentKilled(libc::SIGTERM))
    }

    /// Whether `pidfd_send_signal` said ESRCH, and the stranger lived.
    pub fn pidfd_kill_refused(&self) -> bool {
        self.any(Story::PidFd, |h| h == Happened::Signalled(libc::ESRCH))
            && self.any(Story::PidFd, |h| h == Happened::InnocentLives)
    }
}

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

/// Plays both stories, with privilege or else in a user namespace. Takes milliseconds.
///
/// # Errors
/// Why it cannot be shown here: `clone3` refuses namespaces (EPERM, ENOSPC) or set_tid (EINVAL, ENOSYS).
pub fn run() -> Result<Race, SysError> {
    let pid_ns = libc::CLONE_NEWPID as u64;
    match play(pid_ns, "clone3(set_tid) in a PID namespace") {
        Err(e) if e.errno == libc::EPERM => {
            play(pid_ns | libc::CLONE_NEWUSER as u64, "clone3(set_tid) in a user and PID namespace")
        }
        done => done,
    }
}

fn play(flags: u64, how: &'static str) -> Result<Race, SysError> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(SysError::nix("pipe2"))?;
    let stage = sys::start(flags, NUMBER, write.as_raw_fd())
        .map_err(|e| SysError::new("clone3(CLONE_NEWPID)", e).with_detail(how))?;
    let stage = PidFd::from(stage);
    drop(write);
    let mut bytes = Vec::new();
    let told = File::from(read).read_to_end(&mut bytes).map_err(SysError::io("read"));
    stage.wait()?;
    told?;
    let events = decode(&bytes)?;
    Ok(Race { how, events })
}

/// From records to events; times from the first on.
fn decode(bytes: &[u8]) -> Result<Vec<Event>, SysError> {
    let int = |r: &[u8], at: usize| i32::from_ne_bytes([r[at], r[at + 1], r[at + 2], r[at + 3]]);
    let mut start = None;
    let mut events = Vec::new();
    for r in bytes.chunks_exact(RECORD_SIZE) {
        let at_ns = u64::from_ne_bytes([r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]]);
        let (story, what, pid, value) = (int(r, 8), int(r, 12), int(r, 16), int(r, 20));
        let is = |w: What| what == w as i32;
        if is(What::Failed) {
            return Err(SysError::new(format!("clone3(set_tid={pid}) on the stage"), value));
        }
        let happened = if is(What::Created) {
            Happened::Created
        } else if is(What::Reaped) {
            Happened::Reaped
        } else if is(What::InnocentCreated) {
            Happened::InnocentCreated
        } else if is(What::Signalled) {
            Happened::Signalled(value)
        } else if is(What::InnocentKilled) {
            Happened::InnocentKilled(value)
        } else {
            Happened::InnocentLives
        };
        events.push(Event {
            at: Duration::from_nanos(at_ns - *start.get_or_insert(at_ns)),
            story: if story == 0 { Story::Pid } else { Story::PidFd },
            happened,
            pid,
        });
    }
    if events.is_empty() {
        return Err(SysError::new("the stage ended without a word", libc::EPIPE));
    }
    Ok(events)
}
