//! The stage for the race: init of a PID namespace of its own, where numbers can be chosen.
//!
//! It is forked from a process that may have threads, so it and its children use raw calls only, and
//! tell what they do by fixed-size records through a pipe. When it ends, the kernel ends all in there.
#![allow(unsafe_code, reason = "processes made by clone3 without exec")]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::create::CLONE_CLEAR_SIGHAND;
use super::{create, raw};

/// What happened; `Record::what`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum What {
    Created = 1,
    Reaped,
    InnocentCreated,
    Signalled,
    InnocentKilled,
    InnocentLives,
    Failed,
}

/// One record: 24 bytes, far below PIPE_BUF, so each write is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Record {
    pub at_ns: u64,
    /// 0: by PID; 1: by pidfd.
    pub story: i32,
    pub what: i32,
    pub pid: i32,
    /// An errno, or the signal that ended the innocent.
    pub value: i32,
}

pub(crate) const RECORD_SIZE: usize = size_of::<Record>();

impl Record {
    fn bytes(&self) -> [u8; RECORD_SIZE] {
        let mut out = [0; RECORD_SIZE];
        let fields = self
            .at_ns
            .to_ne_bytes()
            .into_iter()
            .chain([self.story, self.what, self.pid, self.value].into_iter().flat_map(i32::to_ne_bytes));
        for (o, b) in out.iter_mut().zip(fields) {
            *o = b;
        }
        out
    }
}

fn args(flags: u64, pidfd: &mut RawFd, number: Option<&libc::pid_t>) -> libc::clone_args {
    libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut *pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: number.map_or(0, |n| &raw const *n as u64),
        set_tid_size: number.is_some().into(),
        cgroup: 0,
    }
}

/// Starts the stage with `flags` (CLONE_NEWPID, perhaps CLONE_NEWUSER) writing records to `out`.
pub(crate) fn start(flags: u64, number: i32, out: RawFd) -> Result<OwnedFd, i32> {
    let mut pidfd = -1;
    let args = args(flags, &mut pidfd, None);
    // The stage is a copy of us: no handler of ours may run there before it has none.
    let _blocked = create::SignalsBlocked::new();
    // SAFETY: no CLONE_VM, no stack; the child runs only `stage`.
    match unsafe { raw::clone3(&args) }? {
        0 => stage(number, out),
        _ => Ok(raw::own(pidfd)),
    }
}

fn stage(number: i32, out: RawFd) -> ! {
    // If the lab is killed, the stage goes, and with it all of its namespace.
    let _ = raw::set_parent_death(libc::SIGKILL);
    let _ = raw::set_mask(0);
    let story = Story { number, out };
    let told = story.by_pid().and_then(|()| story.by_pidfd());
    if let Err(errno) = told {
        story.tell(0, What::Failed, number, errno);
    }
    raw::exit(0)
}

struct Story {
    number: i32,
    out: RawFd,
}

impl Story {
    fn tell(&self, story: i32, what: What, pid: i32, value: i32) {
        let record = Record { at_ns: raw::now_ns(), story, what: what as i32, pid, value };
        let _ = raw::write(self.out, &record.bytes());
    }

    /// A process with the chosen number, which ends at once or sleeps for good.
    fn create(&self, sleeps: bool) -> Result<(i32, OwnedFd), i32> {
        let mut pidfd = -1;
        let args = args(0, &mut pidfd, Some(&self.number));
        // SAFETY: no CLONE_VM, no stack; the child runs only what follows.
        match unsafe { raw::clone3(&args) }? {
            0 => loop {
                if !sleeps {
                    raw::exit(0);
                }
                raw::pause();
            },
            pid => Ok((pid, raw::own(pidfd))),
        }
    }

    /// Keep the number, and signal whoever has it.
    fn by_pid(&self) -> Result<(), i32> {
        let (pid, _) = self.create(false)?;
        self.tell(0, What::Created, pid, 0);
        raw::waitid(libc::P_PID, pid, libc::WEXITED)?;
        self.tell(0, What::Reaped, pid, 0);
        let (innocent, handle) = self.create(true)?;
        self.tell(0, What::InnocentCreated, innocent, 0);

        let sent = raw::kill(pid, libc::SIGTERM);
        self.tell(0, What::Signalled, pid, sent.err().unwrap_or(0));

        if sent.is_err() {
            raw::pidfd_send_signal(handle.as_raw_fd(), libc::SIGKILL)?;
        }
        let (_, signal) = raw::waitid(libc::P_PIDFD, handle.as_raw_fd(), libc::WEXITED)?;
        self.tell(0, What::InnocentKilled, innocent, signal);
        Ok(())
    }

    /// Keep the pidfd.
    fn by_pidfd(&self) -> Result<(), i32> {
        let (pid, pidfd) = self.create(false)?;
        self.tell(1, What::Created, pid, 0);
        raw::waitid(libc::P_PIDFD, pidfd.as_raw_fd(), libc::WEXITED)?;
        self.tell(1, What::Reaped, pid, 0);
        let (innocent, handle) = self.create(true)?;
        self.tell(1, What::InnocentCreated, innocent, 0);

        let sent = raw::pidfd_send_signal(pidfd.as_raw_fd(), libc::SIGTERM);
        self.tell(1, What::Signalled, pid, sent.err().unwrap_or(0));

        // A signal that was delivered would have ended it before this second one.
        raw::pidfd_send_signal(handle.as_raw_fd(), libc::SIGKILL)?;
        let (_, signal) = raw::waitid(libc::P_PIDFD, handle.as_raw_fd(), libc::WEXITED)?;
        let what = if signal == libc::SIGKILL { What::InnocentLives } else { What::InnocentKilled };
        self.tell(1, what, innocent, signal);
        Ok(())
    }
}
