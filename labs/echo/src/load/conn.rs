//! One client connection: what it has sent, and what must come back.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use kit::SysError;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use super::LoadError;
use super::stream::{Random, Stream};

/// A request under way.
#[derive(Debug)]
struct Request {
    /// Offset in the stream at which its echo is complete.
    end: u64,
    due: u64,
    sent: u64,
}

#[derive(Debug)]
pub(super) struct Conn {
    socket: TcpStream,
    who: usize,
    /// Offsets in the stream: up to where to send, sent, and received.
    wanted: u64,
    sent: u64,
    received: u64,
    requests: VecDeque<Request>,
    /// The socket takes no more: wait until it is writable.
    pub stuck: bool,
}

impl Conn {
    pub fn connect(addr: SocketAddr, who: usize) -> Result<Conn, SysError> {
        let socket = TcpStream::connect(addr).map_err(SysError::io("connect"))?;
        socket.set_nodelay(true).map_err(SysError::io("setsockopt(TCP_NODELAY)"))?;
        socket.set_nonblocking(true).map_err(SysError::io("fcntl(O_NONBLOCK)"))?;
        let requests = VecDeque::new();
        Ok(Conn { socket, who, wanted: 0, sent: 0, received: 0, requests, stuck: false })
    }

    /// Adds a request; [`Conn::send`] sends it.
    pub fn queue(&mut self, size: usize, due: u64, sent: u64) {
        self.wanted += size as u64;
        self.requests.push_back(Request { end: self.wanted, due, sent });
    }

    /// Sends as much as the socket takes. With `cut`, in pieces of random length, and whether it paused
    /// between two of them.
    pub fn send(&mut self, stream: &Stream, mut cut: Option<&mut Random>) -> Result<bool, LoadError> {
        self.stuck = false;
        while self.sent < self.wanted {
            let mut len = (self.wanted - self.sent).min(super::stream::LONGEST as u64) as usize;
            if let Some(random) = cut.as_deref_mut() {
                match random.between(0, 15) {
                    0 => return Ok(true),
                    1 => len = 1,
                    2 | 3 => len = random.between(1, len),
                    _ => {}
                }
            }
            let data = stream.slice(self.who, self.sent, len);
            match send(self.socket.as_raw_fd(), data, MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => self.sent += n as u64,
                Err(Errno::EAGAIN) => {
                    self.stuck = true;
                    return Ok(false);
                }
                Err(Errno::EINTR) => {}
                Err(e) => return Err(SysError::new("send", e as i32).into()),
            }
        }
        Ok(false)
    }

    /// Receives once and compares with what was sent; 0 if there was nothing.
    pub fn receive(&mut self, stream: &Stream, buffer: &mut [u8]) -> Result<usize, LoadError> {
        let connection = self.who;
        let n = match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(0) => return Err(LoadError::Closed { connection, missing: self.wanted - self.received }),
            Ok(n) => n,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
            Err(e) => return Err(SysError::new("recv", e as i32).into()),
        };
        let beyond = self.received + n as u64 > self.sent;
        if beyond || stream.slice(self.who, self.received, n) != &buffer[..n] {
            return Err(LoadError::Wrong { connection, offset: self.received, length: n });
        }
        self.received += n as u64;
        Ok(n)
    }

    /// The oldest request whose echo is complete: when it was due, and when it was sent.
    pub fn answered(&mut self) -> Option<(u64, u64)> {
        let request = self.requests.pop_front_if(|r| r.end <= self.received)?;
        Some((request.due, request.sent))
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
