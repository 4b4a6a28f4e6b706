//! Waiting for many children at once, by every mechanism that the kernel has for it.
//!
//! A pidfd becomes readable when its process has ended, so everything that waits for descriptors
//! waits for processes too: one loop serves sockets, timers and children.

use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use io_uring::{IoUring, opcode, types};
use kit::SysError;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::pidfd::{End, Exit};
use crate::process::Child;
use crate::sys::pidfd as sys;

/// A mechanism that waits for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// `waitid(P_PIDFD)`, one after the other: the caller sleeps on one child at a time.
    Waitid,
    /// `poll` on all pidfds, then waitid: looks at all descriptors each time.
    Poll,
    /// `epoll`, then waitid.
    Epoll,
    /// io_uring POLL_ADD, then waitid. Linux 5.1.
    UringPoll,
    /// io_uring WAITID: waits and reaps in one operation. Linux 6.7.
    UringWaitid,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Mechanism; 5] =
        [Self::Waitid, Self::Poll, Self::Epoll, Self::UringPoll, Self::UringWaitid];

    /// As shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waitid => "waitid(P_PIDFD)",
            Self::Poll => "poll",
            Self::Epoll => "epoll",
            Self::UringPoll => "io_uring POLL_ADD",
            Self::UringWaitid => "io_uring WAITID",
        }
    }

    /// In metrics.
    pub fn key(self) -> &'static str {
        match self {
            Self::Waitid => "waitid",
            Self::Poll => "poll",
            Self::Epoll => "epoll",
            Self::UringPoll => "uring_poll",
            Self::UringWaitid => "uring_waitid",
        }
    }

    /// Waits until all `children` have ended, and reaps them.
    ///
    /// # Errors
    /// The mechanism's own call; ENOSYS or EPERM where io_uring is missing or forbidden.
    pub fn wait_all(self, children: &mut [Child]) -> Result<Tally, SysError> {
        match self {
            Self::Waitid => waitid(children),
            Self::Poll => poll(children),
            Self::Epoll => epoll(children),
            Self::UringPoll => uring_poll(children),
            Self::UringWaitid => uring_waitid(children),
        }
    }
}

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

/// What it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Children reaped.
    pub reaped: usize,
    /// System calls made to set up, to wait and to reap.
    pub calls: usize,
    /// Times the loop woke up.
    pub wakeups: usize,
}

fn waitid(children: &mut [Child]) -> Result<Tally, SysError> {
    let mut tally = Tally::default();
    for child in children {
        child.wait()?;
        tally = Tally { reaped: tally.reaped + 1, calls: tally.calls + 1, wakeups: tally.wakeups + 1 };
    }
    Ok(tally)
}

fn poll(children: &mut [Child]) -> Result<Tally, SysError> {
    let mut tally = Tally::default();
    let mut left: Vec<&mut Child> = children.iter_mut().collect();
    while !left.is_empty() {
        let mut fds: Vec<PollFd<'_>> =
            left.iter().map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN)).collect();
        match nix::poll::poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            done => done.map_err(SysError::nix("poll"))?,
        };
        tally.calls += 1;
        tally.wakeups += 1;
        let ready: Vec<bool> = fds.iter().map(|f| f.any() == Some(true)).collect();
        let mut still = Vec::new();
        for (child, ready) in left.into_iter().zip(ready) {
            if ready {
                child.wait()?;
                tally.calls += 1;
                tally.reaped += 1;
            } else {
                still.push(child);
            }
        }
        left = still;
    }
    Ok(tally)
}

fn epoll(children: &mut [Child]) -> Result<Tally, SysError> {
    let mut tally = Tally { calls: 1, ..Tally::default() };
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(SysError::nix("epoll_create1"))?;
    for (i, child) in children.iter().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, i as u64);
        epoll.add(child, event).map_err(SysError::nix("epoll_ctl"))?;
        tally.calls += 1;
    }
    let mut events = [EpollEvent::empty(); 64];
    while tally.reaped < children.len() {
        let n = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            done => done.map_err(SysError::nix("epoll_wait"))?,
        };
        tally.calls += 1;
        tally.wakeups += 1;
        for event in events.iter().take(n) {
            let child = &mut children[event.data() as usize];
            child.wait()?;
            // It stays readable: out of the set with it.
            epoll.delete(&*child).map_err(SysError::nix("epoll_ctl"))?;
            tally.calls += 2;
            tally.reaped += 1;
        }
    }
    Ok(tally)
}

/// Entries in flight at once: rings are locked memory, which a plain user has little of.
const DEPTH: usize = 256;

fn uring_poll(children: &mut [Child]) -> Result<Tally, SysError> {
    let mut ring = ring()?;
    let mut tally = Tally { calls: 1, ..Tally::default() };
    for chunk in children.chunks_mut(DEPTH) {
        for (i, child) in chunk.iter().enumerate() {
            let fd = types::Fd(child.as_fd().as_raw_fd());
            let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32);
            sys::push_plain(&mut ring, poll, i as u64).ok_or_else(full)?;
        }
        let mut open = chunk.len();
        while open > 0 {
            submit(&ring, &mut tally)?;
            for done in ring.completion() {
                open -= 1;
                if done.result() < 0 {
                    return Err(SysError::new("IORING_OP_POLL_ADD", -done.result()));
                }
                chunk[done.user_data() as usize].wait()?;
                tally.calls += 1;
                tally.reaped += 1;
            }
        }
    }
    Ok(tally)
}

fn uring_waitid(children: &mut [Child]) -> Result<Tally, SysError> {
    let mut ring = ring()?;
    let mut tally = Tally { calls: 1, ..Tally::default() };
    for chunk in children.chunks_mut(DEPTH) {
        let fds: Vec<RawFd> = chunk.iter().map(|c| c.as_fd().as_raw_fd()).collect();
        sys::ring_waitid(
            &mut ring,
            &fds,
            |ring| submit(ring, &mut tally),
            |i, pid_code_status| {
                let (_, code, status) = pid_code_status;
                let end = End::from_siginfo(code, status);
                let none = std::time::Duration::ZERO;
                chunk[i].reaped(Exit { end, user: none, system: none, max_rss_kib: 0 });
            },
        )?;
        tally.reaped += chunk.len();
    }
    Ok(tally)
}

fn ring() -> Result<IoUring, SysError> {
    IoUring::new(DEPTH as u32).map_err(SysError::io("io_uring_setup"))
}

fn full() -> SysError {
    SysError::new("io_uring submission queue", libc::EBUSY)
}

fn submit(ring: &IoUring, tally: &mut Tally) -> Result<(), SysError> {
    tally.calls += 1;
    tally.wakeups += 1;
    match ring.submit_and_wait(1) {
        Err(e) if e.raw_os_error() == Some(libc::EINTR) => Ok(()),
        done => done.map(drop).map_err(SysError::io("io_uring_enter")),
    }
}
