//! A counter with a slot for each CPU. Adding costs a load, an increment and a store; reading is a walk.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Aborts, slots};
use crate::sys::ops::counter_add;
use crate::sys::rseq::Thread;
use crate::sys::sections::{ByCpu, Index, Try};

/// One CPU's count. Written by sections on that CPU only; atomic so that a sum may read it.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Count(AtomicU64);

/// See the module. With `ARMED = false` it has no restartable sequence and loses updates: the control group.
#[derive(Debug)]
pub struct Counter<I = ByCpu, const ARMED: bool = true> {
    slots: Box<[Count]>,
    /// For threads whose index is beyond the slots: shared, and added to atomically.
    overflow: AtomicU64,
    _index: PhantomData<I>,
}

impl<I: Index, const ARMED: bool> Counter<I, ARMED> {
    /// Zero, with `n` slots. More indices than slots are fine, but slower.
    pub fn new(n: usize) -> Self {
        Self { slots: slots(n, Count::default), overflow: AtomicU64::new(0), _index: PhantomData }
    }

    /// One attempt to add 1.
    #[inline(always)]
    pub fn try_add(&self, thread: Thread) -> Try {
        counter_add::<I, ARMED>(thread, &self.slots)
    }

    /// Adds 1. Says how often it was interrupted.
    #[inline(always)]
    pub fn add(&self, thread: Thread) -> Aborts {
        match self.try_add(thread) {
            Try::Done => 0,
            other => self.add_slowly(thread, other),
        }
    }

    #[cold]
    fn add_slowly(&self, thread: Thread, mut tried: Try) -> Aborts {
        let mut aborts = 0;
        loop {
            match tried {
                Try::Aborted => aborts += 1,
                Try::NoSlot => {
                    self.overflow.fetch_add(1, Ordering::Relaxed);
                    return aborts;
                }
                _ => return aborts,
            }
            tried = self.try_add(thread);
        }
    }

    /// The sum. Adds that happen meanwhile may or may not be in it.
    pub fn sum(&self) -> u64 {
        let slots: u64 = self.slots.iter().map(|s| s.0.load(Ordering::Relaxed)).sum();
        slots + self.overflow.load(Ordering::Relaxed)
    }

    /// How many slots have ever been used.
    pub fn used(&self) -> usize {
        self.slots.iter().filter(|s| s.0.load(Ordering::Relaxed) != 0).count()
    }
}
