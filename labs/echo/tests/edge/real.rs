//! The same calls, made: an epoll, a listening socket, and clients in threads.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Calls, Fd, Kernel, LISTENER, Ready, Wait};

/// The kernel of this machine.
pub struct Real {
    epoll: Epoll,
    listener: TcpListener,
    stop: Arc<EventFd>,
    open: HashMap<Fd, TcpStream>,
    pub calls: Calls,
}

/// User data of the stop event; a socket's is its number.
const STOP: u64 = u64::MAX;

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}

impl Real {
    pub fn new() -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll_create1");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        listener.set_nonblocking(true).expect("O_NONBLOCK");
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).expect("eventfd"));
        epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP)).expect("epoll_ctl");
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&listener, EpollEvent::new(edge, LISTENER as u64)).expect("epoll_ctl");
        Self { epoll, listener, stop, open: HashMap::new(), calls: Calls::default() }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("getsockname")
    }

    /// Written to, the server is stopped.
    pub fn stop(&self) -> Arc<EventFd> {
        Arc::clone(&self.stop)
    }

    pub fn left_open(&self) -> usize {
        self.open.len()
    }

    fn socket(&mut self, fd: Fd) -> Result<&mut TcpStream, Errno> {
        self.open.get_mut(&fd).ok_or(Errno::EBADF)
    }
}

impl Kernel for Real {
    fn wait(&mut self, wait: Wait) -> Option<Vec<Ready>> {
        self.calls.wait += 1;
        let mut events = [EpollEvent::empty(); 64];
        let timeout = if wait == Wait::Poll { EpollTimeout::ZERO } else { EpollTimeout::NONE };
        let n = match self.epoll.wait(&mut events, timeout) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(e) => panic!("epoll_wait: {e}"),
        };
        if events[..n].iter().any(|e| e.data() == STOP) {
            return None;
        }
        let over = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let ready = |e: &EpollEvent| Ready {
            fd: e.data() as Fd,
            readable: e.events().contains(EpollFlags::EPOLLIN),
            writable: e.events().contains(EpollFlags::EPOLLOUT),
            hung_up: e.events().intersects(over),
        };
        Some(events[..n].iter().map(ready).collect())
    }

    fn accept(&mut self) -> Result<Fd, Errno> {
        let (socket, _) = self.listener.accept().map_err(|e| errno(&e))?;
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        let fd = socket.as_raw_fd();
        self.open.insert(fd, socket);
        Ok(fd)
    }

    fn watch(&mut self, fd: Fd) -> Result<(), Errno> {
        let all = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let socket = self.open.get(&fd).ok_or(Errno::EBADF)?;
        self.epoll.add(socket, EpollEvent::new(all, fd as u64))
    }

    fn recv(&mut self, fd: Fd, to: &mut [u8]) -> Result<usize, Errno> {
        self.calls.recv += 1;
        self.socket(fd)?.read(to).map_err(|e| errno(&e))
    }

    fn send(&mut self, fd: Fd, from: &[u8]) -> Result<usize, Errno> {
        self.calls.send += 1;
        self.socket(fd)?.write(from).map_err(|e| errno(&e))
    }

    fn close(&mut self, fd: Fd) {
        self.open.remove(&fd);
    }
}

/// A client that sends small requests, each after the answer to the last; whether all answers were right.
pub fn ping(addr: SocketAddr, requests: u32) -> bool {
    let mut socket = TcpStream::connect(addr).expect("connect");
    socket.set_nodelay(true).expect("TCP_NODELAY");
    (0..requests).all(|number| {
        let request = [number as u8; 64];
        let mut answer = [0; 64];
        socket.write_all(&request).is_ok() && socket.read_exact(&mut answer).is_ok() && answer == request
    })
}

/// A client that sends much, and at the same time reads it back in small pieces; whether it was the same.
pub fn pour(addr: SocketAddr, bytes: usize) -> bool {
    let mut socket = TcpStream::connect(addr).expect("connect");
    let sent: Vec<u8> = (0..bytes).map(|i| (i / 251) as u8).collect();
    let (mut writer, out) = (socket.try_clone().expect("dup"), sent.clone());
    let thread = std::thread::spawn(move || {
        writer.write_all(&out).is_ok() && writer.shutdown(std::net::Shutdown::Write).is_ok()
    });
    let (mut seen, mut piece) = (Vec::new(), [0; 1024]);
    while let Ok(n @ 1..) = socket.read(&mut piece) {
        seen.extend_from_slice(&piece[..n]);
    }
    thread.join().unwrap_or(false) && seen == sent
}
