//! Stage 4: epoll(7), edge-triggered. The kernel tells of changes, once.
//!
//! No epoll_ctl(2) is ever needed again for a connection: it is watched for everything from the start.
//! In exchange the server must remember who still has something, because it will not be told again:
//! it receives until there is no more, and to be fair to the others it does so in turns, from a queue.
//! For small requests that last recv(2), which finds nothing, costs more than it saves; a short receive
//! is proof enough that the socket is empty (epoll(7), question 9), unless the peer has hung up.

use std::collections::VecDeque;

use kit::SysError;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use crate::conn::{CHUNK, Turn};
use crate::listen::Listener;
use crate::s3_epoll::Server;
use crate::server::{Ready, Shared};

/// Serves until the stop event, then drains.
pub(crate) fn serve(listener: Listener, shared: &Shared, ready: &Ready) -> Result<(), SysError> {
    let everything =
        EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    let hung_up = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
    let mut s = Server::new(listener, shared, everything)?;
    let mut buffer = vec![0; CHUNK];
    let mut events = [EpollEvent::empty(); 256];
    // Who may have something, and whether only a failing or empty receive proves that there is no more.
    let mut queue: VecDeque<(usize, bool)> = VecDeque::new();
    let _ = ready.send(Ok(Vec::new()));
    while s.running() {
        let n = s.wait(&mut events, !queue.is_empty())?;
        for event in &events[..n] {
            if let Some(at) = s.connection(event)? {
                queue.push_back((at, event.events().intersects(hung_up)));
            }
        }
        // One turn each; who is not finished goes to the end of the queue.
        for _ in 0..queue.len() {
            let Some((at, to_the_end)) = queue.pop_front() else { break };
            let Some(conn) = s.conns.get_mut(at) else { continue };
            match conn.turn(&mut buffer, &mut s.counts) {
                Turn::Done => s.close(at)?,
                Turn::Echoed { full } if full || to_the_end => queue.push_back((at, to_the_end)),
                // Blocked: the edge to writable will come, and the turn after it flushes and goes on.
                Turn::Echoed { .. } | Turn::Empty | Turn::Blocked => {}
            }
        }
        s.housekeeping()?;
    }
    s.publish();
    Ok(())
}
