//! A bounded queue for each CPU: first in, first out among the threads of one CPU.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use super::slots;
use crate::sys::ops::{ring_pop, ring_push};
use crate::sys::rseq::Thread;
use crate::sys::sections::{ByCpu, Index, Try};

/// Items a ring holds; a power of two.
pub const RING: usize = 32;

/// One CPU's ring. Both counts only grow; item i is at `i % RING`.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Ring {
    /// How many have been taken out.
    pub(crate) head: AtomicU64,
    /// How many have been put in.
    pub(crate) tail: AtomicU64,
    pub(crate) items: [AtomicU64; RING],
}

/// See the module.
#[derive(Debug)]
pub struct Rings<I = ByCpu, const ARMED: bool = true> {
    rings: Box<[Ring]>,
    _index: PhantomData<I>,
}

impl<I: Index, const ARMED: bool> Rings<I, ARMED> {
    /// Empty rings for `n` indices.
    pub fn new(n: usize) -> Self {
        let new = || Ring {
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            items: [const { AtomicU64::new(0) }; RING],
        };
        Self { rings: slots(n, new), _index: PhantomData }
    }

    /// One attempt to append to this CPU's ring.
    #[inline(always)]
    pub fn try_push(&self, thread: Thread, value: u64) -> Try {
        ring_push::<I, ARMED>(thread, &self.rings, value)
    }

    /// One attempt to take the oldest of this CPU's ring.
    #[inline(always)]
    pub fn try_pop(&self, thread: Thread) -> (Try, u64) {
        ring_pop::<I, ARMED>(thread, &self.rings)
    }

    /// Appends. False: full, or this CPU has no ring here.
    pub fn push(&self, thread: Thread, value: u64) -> bool {
        loop {
            match self.try_push(thread, value) {
                Try::Aborted => {}
                tried => return tried == Try::Done,
            }
        }
    }

    /// Takes the oldest; none if this CPU's ring is empty or missing.
    pub fn pop(&self, thread: Thread) -> Option<u64> {
        loop {
            match self.try_pop(thread) {
                (Try::Aborted, _) => {}
                (tried, value) => return (tried == Try::Done).then_some(value),
            }
        }
    }

    /// Shows each item of each ring, oldest first; for when nobody works on them.
    pub fn for_each(&self, mut see: impl FnMut(u64)) {
        for ring in &self.rings {
            for i in ring.head.load(Ordering::Relaxed)..ring.tail.load(Ordering::Relaxed) {
                see(ring.items[i as usize % RING].load(Ordering::Relaxed));
            }
        }
    }

    /// Empties all rings; for when nobody works on them.
    pub fn clear(&self) {
        self.rings.iter().for_each(|r| r.head.store(r.tail.load(Ordering::Relaxed), Ordering::Relaxed));
    }
}
