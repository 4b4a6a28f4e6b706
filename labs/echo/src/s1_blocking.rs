//! Stage 1: one thread a connection, blocking calls. The program a book starts with.
//!
//! The kernel does all the waiting, so the code is a loop of two calls. The price is a thread for
//! each client: a stack, and a context switch for every message.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use kit::SysError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, recv, send, shutdown};

use crate::counts::Counts;
use crate::listen::{Gate, Listener, out_of_descriptors, timeout_ms};
use crate::server::{Ready, Shared};

/// Buffer of one connection, on its thread's stack.
const BUFFER: usize = 16 * 1024;
/// Stack of a connection's thread: the buffer and some more.
const STACK: usize = 64 * 1024;

/// The connections, for the stop to find them.
#[derive(Default)]
struct Live {
    conns: Mutex<HashMap<u64, Arc<OwnedFd>>>,
    gone: Condvar,
}

/// Echoes until the client ends its side. The whole server, really.
fn echo(fd: &OwnedFd, shared: &Shared) {
    let mut buffer = [0; BUFFER];
    loop {
        let mut counts = Counts { recv: 1, ..Counts::default() };
        let got = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty());
        let n = *got.as_ref().unwrap_or(&0);
        counts.bytes = n as u64;
        let ok = send_all(fd, &buffer[..n], &mut counts);
        shared.counts.add(&counts);
        match got {
            Err(Errno::EINTR) => {}
            Ok(n) if n > 0 && ok => {}
            _ => return,
        }
    }
}

fn send_all(fd: &OwnedFd, mut data: &[u8], counts: &mut Counts) -> bool {
    while !data.is_empty() {
        counts.send += 1;
        match send(fd.as_raw_fd(), data, MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => data = &data[n..],
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Accepts, and gives each connection a thread.
pub(crate) fn serve(listener: Listener, shared: Arc<Shared>, ready: &Ready) -> Result<(), SysError> {
    let live = Arc::new(Live::default());
    let mut gate = Gate::default();
    let mut key = 0;
    let _ = ready.send(Ok(Vec::new()));
    loop {
        let mut counts = Counts { wait: 1, ..Counts::default() };
        let wanted = if gate.paused() { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut fds =
            [PollFd::new(shared.stop.as_fd(), PollFlags::POLLIN), PollFd::new(listener.as_fd(), wanted)];
        let timeout = PollTimeout::try_from(timeout_ms(gate.until(), None)).unwrap_or(PollTimeout::NONE);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(SysError::new("poll", e as i32)),
        }
        let stop = fds[0].any().unwrap_or(false);
        if gate.over() {
            gate.open();
        }
        // At the stop also those who still wait: what they have sent has arrived.
        while !gate.paused() {
            match listener.accept(SockFlag::empty(), &mut counts) {
                Ok(fd) => {
                    key += 1;
                    spawn(key, fd, &live, &shared);
                }
                Err(e) if out_of_descriptors(e) => gate.pause(&mut counts),
                Err(Errno::EAGAIN) => break,
                Err(_) => {}
            }
            if !stop {
                break;
            }
        }
        shared.counts.add(&counts);
        if stop {
            break;
        }
    }
    drop(listener);
    drain(&live, &shared);
    Ok(())
}

fn spawn(key: u64, fd: OwnedFd, live: &Arc<Live>, shared: &Arc<Shared>) {
    let fd = Arc::new(fd);
    lock(live).insert(key, Arc::clone(&fd));
    let (thread_live, thread_shared) = (Arc::clone(live), Arc::clone(shared));
    let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
        echo(&fd, &thread_shared);
        thread_shared.counts.add(&Counts { closed: 1, ..Counts::default() });
        // Closed under the lock: who sees the list empty may count on it.
        let mut conns = lock(&thread_live);
        conns.remove(&key);
        drop(fd);
        drop(conns);
        thread_live.gone.notify_all();
    });
    if thread.is_err() {
        // No thread to be had: the client sees its connection closed.
        lock(live).remove(&key);
        shared.counts.add(&Counts { closed: 1, cut: 1, ..Counts::default() });
    }
}

/// Lets every thread see the end of its stream, waits for them, and cuts off who stays.
fn drain(live: &Live, shared: &Shared) {
    let deadline = Instant::now() + shared.grace;
    let mut conns = lock(live);
    end(&conns, Shutdown::Read, shared);
    let mut cut = false;
    while !conns.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() && !cut {
            cut = true;
            shared.counts.add(&Counts { cut: conns.len() as u64, ..Counts::default() });
            end(&conns, Shutdown::Both, shared);
        }
        conns = if cut {
            live.gone.wait(conns).unwrap_or_else(PoisonError::into_inner)
        } else {
            live.gone.wait_timeout(conns, left).unwrap_or_else(PoisonError::into_inner).0
        };
    }
}

fn end(conns: &HashMap<u64, Arc<OwnedFd>>, how: Shutdown, shared: &Shared) {
    for fd in conns.values() {
        let _ = shutdown(fd.as_raw_fd(), how);
    }
    shared.counts.add(&Counts { other: conns.len() as u64, ..Counts::default() });
}

fn lock(live: &Live) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<OwnedFd>>> {
    live.conns.lock().unwrap_or_else(PoisonError::into_inner)
}
