//! The sockets of the kernel made up: what is received and sent, and when.

use std::collections::VecDeque;

use super::{Inner, SOCKETS, must};
use crate::uring::*;

/// A socket, and the client at its other end.
#[derive(Debug, Default)]
pub struct Socket {
    /// Each is sent when the one before has come back.
    pub(super) requests: VecDeque<Vec<u8>>,
    pub sent: Vec<u8>,
    pub received: Vec<u8>,
    pub(super) unread: VecDeque<u8>,
    pub(super) fin: bool,
    /// A receive that is armed.
    pub(super) receive: Option<Sqe>,
    pub(super) shots: u32,
    /// A send that is under way.
    pub(super) send: Option<Sqe>,
}

impl Inner {
    pub(super) fn start(&mut self, sqe: Sqe) {
        let (user, group) = (sqe.user_data, self.group.id);
        let at = sqe.fd.wrapping_sub(SOCKETS) as usize;
        let next = "what goes with which opcode?";
        match (sqe.opcode, self.sockets.get_mut(at)) {
            (OP_NOP, _) => self.post(user, 0, 0),
            (OP_RECV, Some(socket)) => {
                let right =
                    sqe.flags & BUFFER_SELECT != 0 && sqe.buf_group == group && sqe.len == 0 && sqe.addr == 0;
                must(
                    right,
                    "a receive selects a buffer of the group, and has no length",
                    next,
                    "such a RECV",
                    format!("{sqe:?}"),
                );
                let second = socket.receive.replace(sqe).is_some();
                socket.shots = 0;
                must(
                    !second,
                    "a socket has one receive at a time",
                    "when has a receive ended?",
                    "one",
                    format!("two, for socket {at}"),
                );
            }
            (OP_SEND, Some(socket)) => {
                let second = socket.send.replace(sqe).is_some();
                must(
                    !second,
                    "a socket has one send at a time",
                    "which of two would be the first?",
                    "one",
                    format!("two, for socket {at}"),
                );
            }
            _ => self.post(user, -libc::EINVAL, 0),
        }
    }

    /// A moment goes by.
    pub(super) fn step(&mut self) {
        for at in 0..self.sockets.len() {
            self.finish_send(at);
            let socket = &mut self.sockets[at];
            if socket.received.len() >= socket.sent.len() {
                match socket.requests.pop_front() {
                    Some(request) => {
                        socket.sent.extend_from_slice(&request);
                        socket.unread.extend(request);
                    }
                    None => socket.fin = true,
                }
            }
            self.receive(at);
        }
    }

    fn finish_send(&mut self, at: usize) {
        let Some(sqe) = self.sockets[at].send.take() else { return };
        let mut bytes = vec![0; (sqe.len as usize).min(self.habits.sends)];
        // As late as it may.
        self.bytes(sqe.addr as usize, sqe.len as usize).read(sqe.addr as usize, &mut bytes);
        self.sockets[at].received.extend_from_slice(&bytes);
        self.post(sqe.user_data, bytes.len() as i32, 0);
    }

    fn receive(&mut self, at: usize) {
        while let Some(sqe) = self.sockets[at].receive {
            let socket = &mut self.sockets[at];
            let (mut res, mut flags) = (0, 0);
            if !socket.unread.is_empty() {
                match self.group.free.pop_front() {
                    None => {
                        self.starved += 1;
                        let next = "when will there be buffers again?";
                        must(
                            self.starved < 10_000,
                            "no receive is tried again and again without a buffer",
                            next,
                            "patience",
                            "10000 times ENOBUFS",
                        );
                        res = -libc::ENOBUFS;
                    }
                    Some(buf) => {
                        let len = socket.unread.len().min(buf.len as usize);
                        let bytes: Vec<u8> = socket.unread.drain(..len).collect();
                        socket.shots += 1;
                        let more = sqe.ioprio & RECV_MULTISHOT != 0 && socket.shots < self.habits.shots;
                        self.bytes(buf.addr as usize, len).write(buf.addr as usize, &bytes);
                        (res, flags) = (
                            len as i32,
                            CQE_BUFFER | u32::from(buf.bid) << 16 | if more { CQE_MORE } else { 0 },
                        );
                    }
                }
            } else if !socket.fin {
                return;
            }
            if flags & CQE_MORE == 0 {
                self.sockets[at].receive = None;
            }
            self.post(sqe.user_data, res, flags);
        }
    }
}
