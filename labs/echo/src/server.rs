//! One interface to every server: start it, read its counters, stop it.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use kit::SysError;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::counts::{Counts, Published};
use crate::listen::Listener;
use crate::spec::{Kind, Spec};
use crate::{s1_blocking, s2_poll, s3_epoll, s4_epoll_edge, s5_oneshot, s6_multishot};

/// What a server thread shares with whom started it.
#[derive(Debug)]
pub struct Shared {
    /// The latest counters.
    pub counts: Published,
    /// Becomes readable when the server is to stop.
    pub stop: EventFd,
    /// How long connections may take to drain at a stop.
    pub grace: Duration,
}

/// Says, once, that the server is up: with remarks on what the kernel refused and what replaced it.
pub type Ready = mpsc::SyncSender<Result<Vec<String>, SysError>>;

/// A server that serves.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What the kernel refused, and what the server does instead.
    pub notes: Vec<String>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), SysError>>>,
}

/// Where a server is started.
pub const HERE: kit::Place = kit::here!();

/// Starts a server in a thread of its own, on `addr` (port 0: any free one).
///
/// What a connection may hold in the server, besides the socket's own buffers: 16 KiB with [`s1_blocking`]
/// and [`s5_oneshot`], 64 KiB with [`s2_poll`], [`s3_epoll`] and [`s4_epoll_edge`]. With [`s6_multishot`]
/// it is what was received before its receive could be cancelled: at most the ring of buffers, which all
/// connections share (4 MiB by default), or twice that where the kernel may receive while it submits. With
/// SQPOLL it may be more, as the kernel's thread decides when to cancel. [`Counts::held_max`] is what it was.
///
/// # Errors
/// The call that failed: bind(2), listen(2), io_uring_setup(2) (`ENOSYS`: no io_uring; `EPERM`:
/// forbidden by `kernel.io_uring_disabled` or a seccomp filter), and so on.
pub fn start(spec: Spec, addr: SocketAddr) -> Result<Running, SysError> {
    start_with_grace(spec, addr, Duration::from_secs(2))
}

/// [`start`], with the time that connections get to drain when the server stops.
///
/// # Errors
/// As [`start`].
pub fn start_with_grace(spec: Spec, addr: SocketAddr, grace: Duration) -> Result<Running, SysError> {
    let listener = Listener::bind(addr)?;
    let addr = listener.addr;
    let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(SysError::nix("eventfd"))?;
    let shared = Arc::new(Shared { counts: Published::default(), stop, grace });
    let (ready, up) = mpsc::sync_channel(1);
    let inner = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name(spec.kind.name().to_owned())
        .spawn(move || match spec.kind {
            Kind::Blocking => s1_blocking::serve(listener, inner, &ready),
            Kind::Poll => s2_poll::serve(listener, &inner, &ready),
            Kind::Epoll => s3_epoll::serve(listener, &inner, &ready),
            Kind::EpollEdge => s4_epoll_edge::serve(listener, &inner, &ready),
            Kind::Oneshot => s5_oneshot::serve(listener, &inner, &ready, &spec.knobs),
            Kind::Multishot => s6_multishot::serve(listener, &inner, &ready, &spec.knobs),
        })
        .map_err(SysError::io("clone"))?;
    match up.recv() {
        Ok(Ok(notes)) => Ok(Running { addr, notes, shared, thread: Some(thread) }),
        Ok(Err(e)) => {
            let _ = thread.join();
            Err(e)
        }
        // It ended without a word: then its result is an error.
        Err(_) => Err(join(thread).err().unwrap_or_else(|| SysError::new("server thread", 0))),
    }
}

fn join(thread: JoinHandle<Result<(), SysError>>) -> Result<(), SysError> {
    thread.join().unwrap_or_else(|_| Err(SysError::new("server thread", 0).with_detail("it panicked")))
}

impl Running {
    /// The counters up to the server's last wait.
    pub fn counts(&self) -> Counts {
        self.shared.counts.read()
    }

    /// Stops the server: who has connected is accepted still, and nobody after; what has arrived is echoed; then connections
    /// are closed. One that has not taken its echo after the grace period is cut off, and counted.
    ///
    /// # Errors
    /// The system call that ended the server, if one had.
    pub fn stop(mut self) -> Result<Counts, SysError> {
        self.end()?;
        Ok(self.counts())
    }

    fn end(&mut self) -> Result<(), SysError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        nix::unistd::write(self.shared.stop.as_fd(), &1u64.to_ne_bytes())
            .map_err(SysError::nix("write(eventfd)"))?;
        join(thread)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Whether io_uring can be used here, found out by making a ring.
///
/// # Errors
/// io_uring_setup(2): `ENOSYS` where the kernel has none, `EPERM` where it is forbidden.
pub fn uring_usable() -> Result<(), SysError> {
    io_uring::IoUring::new(4).map(drop).map_err(SysError::io("io_uring_setup"))
}
