//! A connection of the readiness servers (poll, epoll): receive when there is something, send at once.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use crate::counts::Counts;

/// Bytes received at a time, and so the most that a connection ever holds back.
pub const CHUNK: usize = 64 * 1024;

/// A client's socket and what it has not yet taken of its echo.
#[derive(Debug)]
pub struct Conn {
    fd: OwnedFd,
    /// Empty while the client keeps up: an idle connection costs no buffer.
    pending: Vec<u8>,
    sent: usize,
}

/// What one turn at a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Everything received was sent. `full`: the buffer was filled, so there may be more.
    Echoed {
        /// Whether the whole buffer was filled.
        full: bool,
    },
    /// Nothing to receive now.
    Empty,
    /// The socket takes no more: wait until it is writable, and receive nothing until then.
    Blocked,
    /// The client is done and has its whole echo, or is gone.
    Done,
}

impl Conn {
    /// A connection over a non-blocking socket.
    pub fn new(fd: OwnedFd) -> Conn {
        Conn { fd, pending: Vec::new(), sent: 0 }
    }

    /// Whether it waits for the client to read.
    pub fn blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    /// One recv(2) and one send(2). `buffer` is the server's, shared by all connections.
    pub fn turn(&mut self, buffer: &mut [u8], counts: &mut Counts) -> Turn {
        if self.blocked() {
            return self.flush(counts);
        }
        counts.recv += 1;
        let n = match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(0) => return Turn::Done,
            Ok(n) => n,
            Err(Errno::EAGAIN | Errno::EINTR) => return Turn::Empty,
            Err(_) => return Turn::Done,
        };
        counts.bytes += n as u64;
        counts.send += 1;
        // MSG_NOSIGNAL: a client that has gone is an error of this call, not a SIGPIPE.
        let sent = match send(self.fd.as_raw_fd(), &buffer[..n], MsgFlags::MSG_NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(_) => return Turn::Done,
        };
        if sent == n {
            return Turn::Echoed { full: n == buffer.len() };
        }
        counts.blocked += 1;
        counts.held_max = counts.held_max.max((n - sent) as u64);
        self.pending.extend_from_slice(&buffer[sent..n]);
        Turn::Blocked
    }

    /// Sends what is held back.
    fn flush(&mut self, counts: &mut Counts) -> Turn {
        counts.send += 1;
        match send(self.fd.as_raw_fd(), &self.pending[self.sent..], MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => self.sent += n,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return Turn::Done,
        }
        if self.sent < self.pending.len() {
            return Turn::Blocked;
        }
        // Give the memory back too: most connections never block.
        self.pending = Vec::new();
        self.sent = 0;
        Turn::Echoed { full: true }
    }

    /// For a stop: what has arrived can still be received, and then comes the end of the stream.
    pub fn no_more(&self, counts: &mut Counts) {
        counts.other += 1;
        // ENOTCONN: the client has gone already, and the next recv says so.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Read);
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
