//! The listening socket, and what to do when descriptors run out.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use kit::SysError;
use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockFlag, accept4, listen, setsockopt, sockopt};

use crate::counts::Counts;

/// How long accepting rests after EMFILE if no connection of our own closes earlier.
pub const PAUSE: Duration = Duration::from_millis(20);

/// A non-blocking listening socket.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub addr: SocketAddr,
    socket: TcpListener,
}

impl Listener {
    /// Binds and listens. Accepted sockets inherit TCP_NODELAY from it, which saves a call for each.
    ///
    /// # Errors
    /// bind(2), listen(2), setsockopt(2).
    pub fn bind(addr: SocketAddr) -> Result<Listener, SysError> {
        let socket = TcpListener::bind(addr).map_err(SysError::io("bind"))?;
        let backlog = Backlog::new(4096).unwrap_or(Backlog::MAXCONN);
        listen(&socket, backlog).map_err(SysError::nix("listen"))?;
        socket.set_nonblocking(true).map_err(SysError::io("fcntl(O_NONBLOCK)"))?;
        setsockopt(&socket, sockopt::TcpNoDelay, &true).map_err(SysError::nix("setsockopt(TCP_NODELAY)"))?;
        let addr = socket.local_addr().map_err(SysError::io("getsockname"))?;
        Ok(Listener { addr, socket })
    }

    /// accept4(2).
    ///
    /// # Errors
    /// EMFILE and ENFILE want a pause ([`out_of_descriptors`]); others are the peer's and worth another try.
    pub fn accept(&self, flags: SockFlag, counts: &mut Counts) -> Result<OwnedFd, Errno> {
        counts.accept += 1;
        let fd = accept4(self.socket.as_raw_fd(), flags | SockFlag::SOCK_CLOEXEC)?;
        counts.accepted += 1;
        Ok(crate::sys::owned(fd))
    }
}

impl std::os::fd::AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether accepting failed for want of descriptors or memory: it would fail again at once.
pub fn out_of_descriptors(e: Errno) -> bool {
    matches!(e, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
}

/// Accepting, with its pauses.
///
/// Without a pause a level-triggered server out of descriptors would spin: the waiting connection keeps
/// the listening socket readable. It accepts again when one of its own connections has closed, or after
/// [`PAUSE`], since others may have closed theirs.
#[derive(Debug, Default)]
pub struct Gate {
    until: Option<Instant>,
}

impl Gate {
    /// Whether accepting rests.
    pub fn paused(&self) -> bool {
        self.until.is_some()
    }

    /// Start of a pause.
    pub fn pause(&mut self, counts: &mut Counts) {
        counts.paused += 1;
        self.until = Some(Instant::now() + PAUSE);
    }

    /// End of a pause, if there was one.
    pub fn open(&mut self) -> bool {
        self.until.take().is_some()
    }

    /// When the pause ends by itself.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the pause has lasted long enough.
    pub fn over(&self) -> bool {
        self.until.is_some_and(|t| Instant::now() >= t)
    }
}

/// Milliseconds for poll(2) and epoll_wait(2) until the earlier of two times; -1 for no limit.
pub fn timeout_ms(a: Option<Instant>, b: Option<Instant>) -> i32 {
    match earlier(a, b) {
        None => -1,
        // One more, so as not to wake a little before the time and spin.
        Some(left) => left.as_millis().min(60_000) as i32 + 1,
    }
}

/// Time left until the earlier of two times.
pub fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Duration> {
    [a, b].into_iter().flatten().min().map(|t| t.saturating_duration_since(Instant::now()))
}
