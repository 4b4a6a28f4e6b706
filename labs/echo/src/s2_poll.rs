//! Stage 2: one thread, poll(2). Who is ready?
//!
//! One thread serves all clients, because the kernel tells which of them can be served without
//! waiting. But the whole list is handed over and walked through at every call, so a call costs as
//! much as there are connections, not as there are messages.

use std::os::fd::AsFd as _;
use std::time::Instant;

use kit::SysError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockFlag;

use crate::conn::{CHUNK, Conn, Turn};
use crate::counts::Counts;
use crate::listen::{Gate, Listener, out_of_descriptors, timeout_ms};
use crate::server::{Ready, Shared};

/// Serves until the stop event, then drains.
pub(crate) fn serve(listener: Listener, shared: &Shared, ready: &Ready) -> Result<(), SysError> {
    let mut listener = Some(listener);
    let mut conns: Vec<Conn> = Vec::new();
    let mut buffer = vec![0; CHUNK];
    let mut gate = Gate::default();
    let mut counts = Counts::default();
    let mut deadline: Option<Instant> = None;
    let _ = ready.send(Ok(Vec::new()));
    while listener.is_some() || !conns.is_empty() {
        shared.counts.store(&counts);
        let results = wait(listener.as_ref(), shared, &conns, &gate, deadline, &mut counts)?;
        let (stop, acceptable, conn_ready) = (results[0], results[1], &results[2..]);

        // Backwards, since a closed connection's place is taken by the last one.
        for i in (0..conns.len()).rev().filter(|&i| conn_ready[i]) {
            if conns[i].turn(&mut buffer, &mut counts) == Turn::Done {
                conns.swap_remove(i);
                counts.closed += 1;
                gate.open();
            }
        }
        if gate.over() {
            gate.open();
        }
        if let Some(l) = listener.as_ref().filter(|_| acceptable || stop) {
            accept_all(l, &mut conns, &mut gate, &mut counts);
        }
        if stop && listener.take().is_some() {
            deadline = Some(Instant::now() + shared.grace);
            conns.iter().for_each(|c| c.no_more(&mut counts));
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            counts.cut += conns.len() as u64;
            counts.closed += conns.len() as u64;
            conns.clear();
        }
    }
    shared.counts.store(&counts);
    Ok(())
}

/// poll(2) over everything; who has something: the stop event, the listener, then the connections.
fn wait(
    listener: Option<&Listener>,
    shared: &Shared,
    conns: &[Conn],
    gate: &Gate,
    deadline: Option<Instant>,
    counts: &mut Counts,
) -> Result<Vec<bool>, SysError> {
    let on = |on: bool| if on { PollFlags::POLLIN } else { PollFlags::empty() };
    let mut fds = Vec::with_capacity(conns.len() + 2);
    fds.push(PollFd::new(shared.stop.as_fd(), on(listener.is_some())));
    // While it drains there is no listener: ask for nothing of the stop event in its place.
    let second = listener.map_or(shared.stop.as_fd(), |l| l.as_fd());
    fds.push(PollFd::new(second, on(listener.is_some() && !gate.paused())));
    fds.extend(conns.iter().map(|c| {
        // Not reading from a client that does not read is all there is to backpressure.
        PollFd::new(c.as_fd(), if c.blocked() { PollFlags::POLLOUT } else { PollFlags::POLLIN })
    }));
    counts.wait += 1;
    let timeout = PollTimeout::try_from(timeout_ms(gate.until(), deadline)).unwrap_or(PollTimeout::NONE);
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(fds.iter().map(|f| f.any().unwrap_or(false)).collect()),
        Err(Errno::EINTR) => Ok(vec![false; fds.len()]),
        Err(e) => Err(SysError::new("poll", e as i32)),
    }
}

fn accept_all(listener: &Listener, conns: &mut Vec<Conn>, gate: &mut Gate, counts: &mut Counts) {
    while !gate.paused() {
        match listener.accept(SockFlag::SOCK_NONBLOCK, counts) {
            Ok(fd) => conns.push(Conn::new(fd)),
            Err(e) if out_of_descriptors(e) => gate.pause(counts),
            Err(Errno::EAGAIN) => return,
            Err(_) => {}
        }
    }
}
