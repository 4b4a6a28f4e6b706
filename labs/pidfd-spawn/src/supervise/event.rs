//! What the supervisor tells the guard: one message an event, with the pidfd where one begins.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};

use kit::SysError;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use crate::pidfd::PidFd;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since the supervisor began.
    pub at_us: u64,
    /// The service concerned; empty for the supervisor itself.
    pub service: String,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A process began; its pidfd comes along.
    Started {
        /// Its number, for people.
        pid: i32,
    },
    /// It may be relied on.
    Ready,
    /// It could not be started.
    NotStarted(String),
    /// Its process ended.
    Ended(String),
    /// Processes of its were left, and have been killed.
    LeftOver(usize),
    /// The next start comes after so many milliseconds.
    Backoff(u64),
    /// SIGTERM was sent.
    Stopping,
    /// It did not stop in time: cgroup.kill (or SIGKILL without a cgroup).
    Forced,
    /// It is down and stays down.
    Down,
    /// An orphan fell to the supervisor, and has been reaped.
    Adopted(i32),
    /// All is stopped; so many leftovers were swept up last.
    Done(usize),
}

/// Sends one; a guard that is gone is no error.
pub(crate) fn send(socket: BorrowedFd<'_>, event: &Event, pidfd: Option<&PidFd>) {
    let Ok(text) = serde_json::to_vec(event) else { return };
    let fds: Vec<RawFd> = pidfd.iter().map(|p| p.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let data = [IoSlice::new(&text)];
    while let Err(Errno::EINTR) =
        sendmsg::<()>(socket.as_raw_fd(), &data, rights, MsgFlags::MSG_NOSIGNAL, None)
    {}
}

/// Receives one; `None` at the end.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Option<(Event, Option<PidFd>)>, SysError> {
    let mut text = vec![0u8; 4096];
    let mut control = nix::cmsg_space!(RawFd);
    let (n, fd) = {
        let mut data = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let msg = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut control), flags) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                done => break done.map_err(SysError::nix("recvmsg"))?,
            }
        };
        let fd = msg.cmsgs().into_iter().flatten().find_map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        (msg.bytes, fd)
    };
    let pidfd = fd.map(|fd| PidFd::from(crate::sys::raw::own(fd)));
    if n == 0 {
        return Ok(None);
    }
    let event = serde_json::from_slice(&text[..n])
        .map_err(|e| SysError::new("an event of the supervisor", 0).with_detail(e.to_string()))?;
    Ok(Some((event, pidfd)))
}
