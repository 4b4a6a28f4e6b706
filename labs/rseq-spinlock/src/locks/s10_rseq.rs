//! The rseq-aware lock: the word says on which CPU the holder took it, and waiters draw the conclusion.
//!
//! The kernel keeps `cpu_id` in each thread's rseq area, so the holder can publish its CPU for the price of
//! one load, and a waiter knows its own for one more:
//!
//! - word says *my* CPU: two threads cannot run on one CPU, so the holder is **not running**. Spinning cannot
//!   help, it keeps the holder off. Tell the others (OFF) and sleep at once.
//! - word says another CPU, no OFF: the holder probably runs. Spinning is right, for a short while.
//! - OFF: someone over there found the holder off its CPU. Sleep.
//!
//! A holder that was migrated inside its section makes the first rule wrong; the cost is one needless sleep,
//! never exclusion. Without rseq nobody knows a CPU and this is [`Parking`](super::Parking).
//!
//! Where the kernel has the time-slice extension (Linux 7.0) and the thread has [turned it
//! on](crate::sys::slice), the holder asks for it, so that it is off its CPU more rarely. Only the holder: a
//! waiter that spun on for longer would be the opposite of what this lock is for.

use super::lot::{HELD, Lot, Next, OFF, blindly};
use crate::raw::{RawLock, sealed::Sealed};
use crate::sync::{Ordering, ask_for_time, cpu, no_more_time};

/// See the module.
#[derive(Debug)]
pub struct RseqAware(Lot);

impl Sealed for RseqAware {}

impl RawLock for RseqAware {
    type Token = ();
    const NAME: &'static str = "rseq";

    fn new() -> Self {
        Self(Lot::new())
    }

    #[inline]
    fn acquire(&self) {
        // Before we have it: afterwards is a moment too late.
        ask_for_time();
        // The CPU is read before the CAS, which brings it into the word: a store of its own afterwards costs
        // 2 ns.
        if !self.0.try_take(here()) {
            no_more_time();
            self.0.wait(here, |word, look| self.next(word, look));
            ask_for_time();
        }
    }

    #[inline]
    fn release(&self, (): ()) {
        self.0.release();
        no_more_time();
    }
}

/// What the word says when the holder took the lock on `cpu`.
fn on(cpu: u32) -> u32 {
    HELD + 1 + cpu
}

/// What the word shall say if we take the lock now. `HELD`: we do not know where we are.
#[inline]
fn here() -> u32 {
    cpu().map_or(HELD, on)
}

impl RseqAware {
    fn next(&self, word: u32, look: u32) -> Next {
        if cpu().is_some_and(|cpu| word == on(cpu)) {
            self.0.state.fetch_or(OFF, Ordering::Relaxed);
            return Next::Sleep;
        }
        if self.0.state.load(Ordering::Relaxed) & OFF != 0 { Next::Sleep } else { blindly(look) }
    }
}
