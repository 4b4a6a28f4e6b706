//! A kernel made up: it keeps to the rules and to nothing else, and acts at the earliest moment at which it may.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use kit::spec::property;
use nix::errno::Errno;

use super::{Kernel, Memory, Watch, watch};
use crate::uring::*;

mod calls;
mod clients;

use clients::Socket;

/// How it behaves where it has a choice.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Orderings are looked at.
    pub strict: bool,
    /// Entries that one enter takes.
    pub takes: u32,
    /// Every so many enters, a signal.
    pub interrupts: u64,
    /// Bytes that one send takes.
    pub sends: usize,
    /// A multishot receive ends after so many completions.
    pub shots: u32,
    /// The call, counted from 0, that fails.
    pub fails: Option<u32>,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            strict: false,
            takes: u32::MAX,
            interrupts: u64::MAX,
            sends: usize::MAX,
            shots: u32::MAX,
            fails: None,
        }
    }
}

#[derive(Debug, Default)]
struct Group {
    at: usize,
    entries: u32,
    id: u16,
    tail: u16,
    free: VecDeque<Buf>,
}

/// Where the fake puts things; not where the real kernel does.
const SQ_ENTRIES: u32 = 8;
const CQ_ENTRIES: u32 = 16;
const SQ_HEAD: u32 = 68;
const SQ_TAIL: u32 = 132;
const CQ_HEAD: u32 = 200;
const CQ_TAIL: u32 = 260;
const SQ_MASK: u32 = 304;
const CQ_MASK: u32 = 308;
const CQES: u32 = 384;
const ARRAY: u32 = CQES + CQ_ENTRIES * 16 + 4;
/// Indices begin here: they are soon to wrap.
const FIRST: u32 = u32::MAX - 20;
const RING: Fd = 77;
/// The number of the first socket.
pub const SOCKETS: Fd = 100;

#[derive(Debug)]
struct Inner {
    habits: Habits,
    calls: u32,
    open: bool,
    queues: Memory,
    sqes: Memory,
    memory: Vec<Memory>,
    /// Mappings: address and length.
    mapped: BTreeMap<usize, usize>,
    sq_head: u32,
    sq_tail: u32,
    cq_head: u32,
    cq_tail: u32,
    /// Entries as they were when the tail passed them.
    seen: VecDeque<Sqe>,
    overflow: VecDeque<Cqe>,
    group: Group,
    sockets: Vec<Socket>,
    enters: u64,
    starved: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Fake(Rc<State>);

#[derive(Debug)]
struct State(RefCell<Inner>);

/// A property that is told only where it does not hold; once is enough.
fn must(holds: bool, name: &str, next: &str, expected: &str, seen: impl Into<String>) {
    if !holds && !std::thread::panicking() {
        property(name, next).holds(false, expected, seen.into());
    }
}

impl Fake {
    /// A kernel, and clients with their requests.
    pub fn new(habits: Habits, requests: Vec<Vec<Vec<u8>>>) -> Self {
        let queues = Memory::new(4096);
        let put =
            |offset: u32, value: u32| queues.write(queues.address() + offset as usize, &value.to_le_bytes());
        for (offset, value) in [(SQ_HEAD, FIRST), (SQ_TAIL, FIRST), (CQ_HEAD, FIRST), (CQ_TAIL, FIRST)] {
            put(offset, value);
        }
        put(SQ_MASK, SQ_ENTRIES - 1);
        put(CQ_MASK, CQ_ENTRIES - 1);
        let socket = |requests: Vec<Vec<u8>>| Socket { requests: requests.into(), ..Socket::default() };
        let state = Rc::new(State(RefCell::new(Inner {
            habits,
            calls: 0,
            open: false,
            queues,
            sqes: Memory::new(SQ_ENTRIES as usize * 64),
            memory: Vec::new(),
            mapped: BTreeMap::new(),
            sq_head: FIRST,
            sq_tail: FIRST,
            cq_head: FIRST,
            cq_tail: FIRST,
            seen: VecDeque::new(),
            overflow: VecDeque::new(),
            group: Group::default(),
            sockets: requests.into_iter().map(socket).collect(),
            enters: 0,
            starved: 0,
        })));
        let weak = Rc::downgrade(&state);
        watch(weak);
        Self(state)
    }

    pub fn sockets(&self) -> Vec<Fd> {
        (SOCKETS..).take(self.0.0.borrow().sockets.len()).collect()
    }

    /// What the clients sent, and what they got.
    pub fn echoes(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut inner = self.0.0.borrow_mut();
        inner.sockets.drain(..).map(|s| (s.sent, s.received)).collect()
    }

    pub fn enters(&self) -> u64 {
        self.0.0.borrow().enters
    }

    /// What has not been given back.
    pub fn left(&self) -> String {
        let inner = self.0.0.borrow();
        format!("{} descriptors, {} mappings", u32::from(inner.open), inner.mapped.len())
    }

    /// Takes the buffer that was given first: number, address, length.
    pub fn take_buffer(&self) -> Option<(u16, u64, u32)> {
        let mut inner = self.0.0.borrow_mut();
        inner.group.free.pop_front().map(|b| (b.bid, b.addr, b.len))
    }
}

impl Watch for State {
    fn loads(&self, at: usize, order: Ordering) {
        let inner = self.0.borrow();
        let theirs = [SQ_HEAD, CQ_TAIL].map(|offset| inner.queues.address() + offset as usize).contains(&at);
        must(
            !(inner.habits.strict && theirs) || matches!(order, Ordering::Acquire | Ordering::SeqCst),
            "an index that the kernel has written is loaded with Acquire",
            "what does the kernel write before this index, and what orders your reads behind it?",
            "Acquire",
            format!("{order:?}"),
        );
    }

    fn stored(&self, at: usize, old: u32, new: u32, order: Ordering) {
        let inner = &mut *self.0.borrow_mut();
        must(
            !inner.habits.strict || matches!(order, Ordering::Release | Ordering::SeqCst),
            "an index that the kernel reads is stored with Release",
            "what have you read or written before this store, and what keeps it before?",
            "Release",
            format!("{order:?}"),
        );
        let offset = at.wrapping_sub(inner.queues.address());
        if offset == SQ_TAIL as usize {
            inner.see_entries(new);
        } else if offset == CQ_HEAD as usize {
            inner.free_completions(new);
        } else if at == inner.group.at + 14 {
            inner.see_buffers(old, new);
        } else {
            must(
                false,
                "only the tail of the submissions, the head of the completions and the tail of the buffers are yours to write",
                "who else writes to that?",
                "one of these",
                format!("a store {offset} bytes into the queues"),
            );
        }
    }
}

impl Inner {
    fn call(&mut self) -> Result<(), Errno> {
        self.calls += 1;
        if self.habits.fails == Some(self.calls - 1) { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// The tail has moved: at once the entries are read, and never again.
    fn see_entries(&mut self, tail: u32) {
        let filled = tail.wrapping_sub(self.sq_head);
        let next = "how many entries may lie between head and tail?";
        must(
            filled <= SQ_ENTRIES,
            "no more is pushed than there is room for",
            next,
            "8",
            format!("{filled}"),
        );
        while self.sq_tail != tail {
            let mut index = [0; 4];
            let place = (self.sq_tail & (SQ_ENTRIES - 1)) as usize;
            self.queues.read(self.queues.address() + ARRAY as usize + 4 * place, &mut index);
            let index = u32::from_le_bytes(index);
            let next = "what does the array say, and when do you write it?";
            must(
                index < SQ_ENTRIES,
                "the array names an entry",
                next,
                "below 8",
                format!("{index} at place {place}"),
            );
            let mut bytes = [0; 64];
            self.sqes.read(self.sqes.address() + 64 * (index % SQ_ENTRIES) as usize, &mut bytes);
            self.seen.push_back(sqe(&bytes));
            self.sq_tail = self.sq_tail.wrapping_add(1);
        }
    }

    /// The head has moved: at once the places are used for something else.
    fn free_completions(&mut self, head: u32) {
        let (freed, there) = (head.wrapping_sub(self.cq_head), self.cq_tail.wrapping_sub(self.cq_head));
        let next = "which completions are there?";
        must(
            freed <= there,
            "no completion is taken that is not there",
            next,
            "fewer",
            format!("{freed} of {there}"),
        );
        while self.cq_head != head {
            let place = (self.cq_head & (CQ_ENTRIES - 1)) as usize;
            self.queues.write(self.queues.address() + CQES as usize + 16 * place, &[0xee; 16]);
            self.cq_head = self.cq_head.wrapping_add(1);
        }
    }

    fn see_buffers(&mut self, old: u32, new: u32) {
        let next = "entry 0 has 16 bytes: whose are the last two?";
        let tail = self.group.tail;
        must(
            old == u32::from(tail),
            "the tail of the buffers is changed by a store to it, and by nothing else",
            next,
            "the tail that was stored last",
            format!("{old}, and not {tail}"),
        );
        let given = (new as u16).wrapping_sub(tail);
        let room = self.group.entries as usize - self.group.free.len();
        let next = "how many entries does one buffer take?";
        must(
            usize::from(given) <= room,
            "no more buffers are given than there are",
            next,
            "a smaller tail",
            format!("{given} more, with room for {room}"),
        );
        for step in 0..given {
            let place = usize::from(tail.wrapping_add(step)) & (self.group.entries as usize - 1);
            let mut bytes = [0; 16];
            self.bytes(self.group.at + 16 * place, 16).read(self.group.at + 16 * place, &mut bytes);
            let number = |from: usize, len: usize| {
                bytes[from..from + len].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
            };
            let buf =
                Buf { addr: number(0, 8), len: number(8, 4) as u32, bid: number(12, 2) as u16, tail: 0 };
            // At once somebody else's bytes are in it.
            self.bytes(buf.addr as usize, buf.len as usize)
                .write(buf.addr as usize, &vec![0xdd; buf.len as usize]);
            self.group.free.push_back(buf);
        }
        self.group.tail = new as u16;
    }

    /// The memory that has these bytes.
    fn bytes(&self, address: usize, len: usize) -> &Memory {
        let found = self.memory.iter().find(|memory| memory.has(address, len));
        let next = "which address, which length have you told the kernel?";
        must(
            found.is_some(),
            "the kernel is told of memory that is mapped",
            next,
            "mapped memory",
            format!("{len} bytes at {address:#x}"),
        );
        found.or(self.memory.first()).expect("some memory")
    }

    fn post(&mut self, user_data: u64, res: i32, flags: u32) {
        self.overflow.push_back(Cqe { user_data, res, flags });
        self.flush();
    }

    fn flush(&mut self) {
        while self.cq_tail.wrapping_sub(self.cq_head) < CQ_ENTRIES {
            let Some(cqe) = self.overflow.pop_front() else { return };
            let at = self.queues.address() + CQES as usize + 16 * (self.cq_tail & (CQ_ENTRIES - 1)) as usize;
            let bytes =
                [&cqe.user_data.to_le_bytes()[..], &cqe.res.to_le_bytes(), &cqe.flags.to_le_bytes()].concat();
            self.queues.write(at, &bytes);
            self.cq_tail = self.cq_tail.wrapping_add(1);
            self.queues.write(self.queues.address() + CQ_TAIL as usize, &self.cq_tail.to_le_bytes());
        }
    }
}

fn sqe(bytes: &[u8; 64]) -> Sqe {
    let number =
        |from: usize, len: usize| bytes[from..from + len].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    Sqe {
        opcode: bytes[0],
        flags: bytes[1],
        ioprio: number(2, 2) as u16,
        fd: number(4, 4) as i32,
        off: number(8, 8),
        addr: number(16, 8),
        len: number(24, 4) as u32,
        op_flags: number(28, 4) as u32,
        user_data: number(32, 8),
        buf_group: number(40, 2) as u16,
        ..Sqe::default()
    }
}
