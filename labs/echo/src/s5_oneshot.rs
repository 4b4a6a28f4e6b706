//! Stage 5: io_uring(7), one submission for each accept, receive and send.
//!
//! The kernel is not asked who is ready: it is told what to do, and says when it is done. All that a
//! batch of completions led to is submitted by the one call that waits for the next batch, so system
//! calls are shared by all connections. The memory belongs to the kernel meanwhile: each connection
//! has one buffer, whether it has anything to say or not.

use std::ops::Range;

use kit::SysError;

use crate::listen::Listener;
use crate::server::{Ready, Shared};
use crate::slab::Slab;
use crate::spec::Knobs;
use crate::sys::Sock;
use crate::uring::{Event, Hub, Op};

/// Bytes of a connection's only buffer; all it ever holds.
const BUFFER: usize = 16 * 1024;

/// A connection. Exactly one operation is under way on it: a receive, or a send of `part`.
struct Conn {
    sock: Sock,
    part: Range<usize>,
}

/// Serves until the stop event, then drains.
pub(crate) fn serve(
    listener: Listener,
    shared: &Shared,
    ready: &Ready,
    knobs: &Knobs,
) -> Result<(), SysError> {
    let (mut hub, notes) = match Hub::new(listener, shared, knobs, false) {
        Ok(up) => up,
        Err(e) => {
            let _ = ready.send(Err(e));
            return Ok(());
        }
    };
    let mut conns: Slab<Conn> = Slab::default();
    let _ = ready.send(Ok(notes));
    while hub.running() || !conns.is_empty() {
        hub.enter(false)?;
        while let Some(event) = hub.next()? {
            match event {
                Event::Connection(sock) => {
                    let at = conns.insert(Conn { sock, part: 0..0 });
                    if hub.draining() {
                        hub.ring.shutdown(sock, Op::Other.tag(0), libc::SHUT_RD)?;
                    }
                    hub.ring.recv(sock, Op::Recv.tag(at), at, vec![0; BUFFER])?;
                }
                Event::Recv(at, done) => {
                    let buffer = hub.ring.take_bytes(at);
                    let Some(conn) = conns.get_mut(at) else { continue };
                    match done.result() {
                        Ok(n) if n > 0 => {
                            hub.counts.bytes += u64::from(n);
                            conn.part = 0..n as usize;
                            hub.ring.send_bytes(
                                conn.sock,
                                Op::Send.tag(at),
                                at,
                                buffer,
                                conn.part.clone(),
                            )?;
                        }
                        // The end, and by now it has its whole echo; or an error.
                        _ => close(&mut hub, &mut conns, at)?,
                    }
                }
                Event::Send(at, done) => {
                    let buffer = hub.ring.take_bytes(at);
                    let Some(conn) = conns.get_mut(at) else { continue };
                    match done.result() {
                        Ok(n) if n > 0 => conn.part.start += n as usize,
                        _ => {
                            close(&mut hub, &mut conns, at)?;
                            continue;
                        }
                    }
                    if conn.part.is_empty() {
                        hub.ring.recv(conn.sock, Op::Recv.tag(at), at, buffer)?;
                    } else {
                        hub.counts.blocked += 1;
                        hub.ring.send_bytes(conn.sock, Op::Send.tag(at), at, buffer, conn.part.clone())?;
                    }
                }
                Event::Drain => shutdown(&mut hub, &mut conns, libc::SHUT_RD)?,
                Event::Cut => {
                    hub.counts.cut += conns.len() as u64;
                    shutdown(&mut hub, &mut conns, libc::SHUT_RDWR)?;
                }
                Event::Shutdown(_) => {}
            }
        }
    }
    hub.publish();
    Ok(())
}

fn close(hub: &mut Hub<'_>, conns: &mut Slab<Conn>, at: usize) -> Result<(), SysError> {
    let Some(conn) = conns.remove(at) else { return Ok(()) };
    hub.close(conn.sock)
}

fn shutdown(hub: &mut Hub<'_>, conns: &mut Slab<Conn>, how: i32) -> Result<(), SysError> {
    for (_, conn) in conns.iter_mut() {
        hub.ring.shutdown(conn.sock, Op::Other.tag(0), how)?;
    }
    Ok(())
}
