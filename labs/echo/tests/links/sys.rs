//! The same ring, of the kernel of this machine.
#![allow(unsafe_code, reason = "submissions are pointers that the kernel follows later")]

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use nix::sys::eventfd::EventFd;

use super::{BUFFER, Done, Op, Ring, Sqe};

/// Memory that an operation under way uses.
enum Held {
    Bytes(Vec<u8>),
    Time(Box<types::Timespec>),
    Nothing,
}

/// A ring, and what its operations use. That is never freed while the kernel may use it, so at the end not at all.
pub struct Real {
    io: IoUring,
    listener: TcpListener,
    _stop: Arc<EventFd>,
    /// By `user_data`: the tag, and the memory.
    under_way: ManuallyDrop<HashMap<u64, (u64, bool, Held)>>,
    next: u64,
    pub enters: u64,
}

/// The stop event's.
const STOP: u64 = u64::MAX;

impl Real {
    pub fn new(listener: TcpListener, stop: Arc<EventFd>) -> Self {
        let io = IoUring::new(256).expect("io_uring_setup");
        let poll =
            opcode::PollAdd::new(types::Fd(stop.as_raw_fd()), libc::POLLIN as u32).build().user_data(STOP);
        let under_way = ManuallyDrop::new(HashMap::new());
        let mut real = Self { io, listener, _stop: stop, under_way, next: 0, enters: 0 };
        real.queue(&poll);
        real
    }

    fn queue(&mut self, entry: &Entry) {
        // SAFETY: what the entry points to is in `under_way` until its completion, and its boxes and vectors do not move.
        unsafe { self.io.submission().push(entry) }.expect("room for an entry");
    }
}

impl Ring for Real {
    fn push(&mut self, sqe: Sqe) {
        let receives = matches!(sqe.op, Op::Recv(_));
        let (entry, held) = match sqe.op {
            Op::Accept => {
                let listener = types::Fd(self.listener.as_raw_fd());
                let none = std::ptr::null_mut();
                (
                    opcode::Accept::new(listener, none, none.cast()).flags(libc::SOCK_CLOEXEC).build(),
                    Held::Nothing,
                )
            }
            Op::Recv(fd) => {
                let mut bytes = vec![0; BUFFER];
                let at = bytes.as_mut_ptr();
                (opcode::Recv::new(types::Fd(fd), at, BUFFER as u32).build(), Held::Bytes(bytes))
            }
            Op::Send(fd, bytes) => {
                let (at, len) = (bytes.as_ptr(), bytes.len() as u32);
                (
                    opcode::Send::new(types::Fd(fd), at, len).flags(libc::MSG_NOSIGNAL).build(),
                    Held::Bytes(bytes),
                )
            }
            Op::LinkTimeout(ms) => {
                let time = Box::new(types::Timespec::from(std::time::Duration::from_millis(ms)));
                (opcode::LinkTimeout::new(&raw const *time).build(), Held::Time(time))
            }
            Op::Close(fd) => (opcode::Close::new(types::Fd(fd)).build(), Held::Nothing),
        };
        self.next += 1;
        self.under_way.insert(self.next, (sqe.tag, receives, held));
        let flags = if sqe.link { Flags::IO_LINK } else { Flags::empty() };
        let entry = entry.user_data(self.next).flags(flags);
        self.queue(&entry);
    }

    fn enter(&mut self, wait_for: usize) -> Option<Vec<Done>> {
        self.enters += 1;
        match self.io.submit_and_wait(wait_for) {
            Err(e) if e.raw_os_error() != Some(libc::EINTR) => panic!("io_uring_enter: {e}"),
            _ => {}
        }
        let mut done = Vec::new();
        for cqe in self.io.completion() {
            if cqe.user_data() == STOP {
                return None;
            }
            let Some((tag, receives, held)) = self.under_way.remove(&cqe.user_data()) else { continue };
            let bytes = match held {
                Held::Bytes(mut bytes) if receives => {
                    bytes.truncate(cqe.result().max(0) as usize);
                    bytes
                }
                _ => Vec::new(),
            };
            done.push(Done { tag, res: cqe.result(), bytes });
        }
        Some(done)
    }
}
