//! Fails `a_request_is_two_calls`: after each request another receive, to be told that there is no more.

use std::collections::{BTreeMap, VecDeque};

use super::edge::{BUFFER, Fd, Kernel, LISTENER, Wait};
use nix::errno::Errno;

/// What has to be remembered of a connection.
#[derive(Default)]
struct Conn {
    /// Received, and not yet taken by the client. While there is something, nothing more is received.
    held: Vec<u8>,
    /// No more edges will come: only a receive that finds the end shows that all was received.
    to_the_end: bool,
    /// Whether it is in the queue.
    queued: bool,
}

/// What a turn came to.
enum Turn {
    /// There may be more: another turn, without an event.
    More,
    /// An event will come.
    Wait,
    Over,
}

/// Serves until it is to stop.
pub fn serve(kernel: &mut impl Kernel) {
    let mut conns: BTreeMap<Fd, Conn> = BTreeMap::new();
    let mut queue: VecDeque<Fd> = VecDeque::new();
    let mut buffer = [0; BUFFER];
    // With somebody in the queue, only a look: new events are wanted, but nobody sleeps on work.
    while let Some(events) = kernel.wait(if queue.is_empty() { Wait::Forever } else { Wait::Poll }) {
        for event in events {
            if event.fd == LISTENER {
                accept_all(kernel, &mut conns);
                continue;
            }
            let Some(conn) = conns.get_mut(&event.fd) else { continue };
            conn.to_the_end |= event.hung_up;
            // Writable means something only to one that waits for it.
            let news = event.readable || event.hung_up || (event.writable && !conn.held.is_empty());
            if news && !conn.queued {
                conn.queued = true;
                queue.push_back(event.fd);
            }
        }
        // One turn each, and then a look at who has come meanwhile.
        for _ in 0..queue.len() {
            let Some(fd) = queue.pop_front() else { break };
            let Some(conn) = conns.get_mut(&fd) else { continue };
            match conn.turn(kernel, fd, &mut buffer) {
                Turn::More => queue.push_back(fd),
                Turn::Wait => conn.queued = false,
                Turn::Over => {
                    conns.remove(&fd);
                    kernel.close(fd);
                }
            }
        }
    }
    conns.into_keys().for_each(|fd| kernel.close(fd));
}

/// One edge may stand for many clients.
fn accept_all(kernel: &mut impl Kernel, conns: &mut BTreeMap<Fd, Conn>) {
    loop {
        match kernel.accept() {
            Ok(fd) if kernel.watch(fd).is_ok() => {
                conns.insert(fd, Conn::default());
            }
            Ok(fd) => kernel.close(fd),
            // That one has gone; there may be others behind it.
            Err(Errno::ECONNABORTED | Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

impl Conn {
    /// One receive and one send at most.
    fn turn(&mut self, kernel: &mut impl Kernel, fd: Fd, buffer: &mut [u8]) -> Turn {
        if !self.held.is_empty() {
            match kernel.send(fd, &self.held) {
                Ok(n) => drop(self.held.drain(..n)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return Turn::Over,
            }
            // What came while nothing was received was announced then, and will not be again.
            return if self.held.is_empty() { Turn::More } else { Turn::Wait };
        }
        let n = match kernel.recv(fd, buffer) {
            Ok(0) => return Turn::Over,
            Ok(n) => n,
            Err(Errno::EAGAIN) => return Turn::Wait,
            Err(Errno::EINTR) => return Turn::More,
            Err(_) => return Turn::Over,
        };
        let sent = match kernel.send(fd, &buffer[..n]) {
            Ok(sent) => sent,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(_) => return Turn::Over,
        };
        self.held.extend_from_slice(&buffer[sent..n]);
        if !self.held.is_empty() {
            Turn::Wait
        } else if n == buffer.len() || self.to_the_end {
            Turn::More
        } else {
            Turn::More
        }
    }
}
