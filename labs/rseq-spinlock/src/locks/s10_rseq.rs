//! The rseq-aware lock: the word says on which CPU the holder took it, and waiters draw the conclusion.
//!
//! The kernel keeps `cpu_id` in each thread's rseq area, so the holder can publish its CPU for the price of
//! one load, and a waiter knows its own for one more:
//!
//! - word says *my* CPU: two threads cannot run on one CPU, so the holder is **not running**. Spinning cannot
//!   help, it keeps the holder off. Tell the others (OFF) and sleep at once.
//! - word says another CPU, no OFF: the holder probably runs. Spinning is right, for a short while.
//! - OFF: someone over there found the holder off its CPU. Sleep.
//! - `rseq_cs` of ours, set when we began to spin, reads 0: the kernel clears it when it has taken *us* off.
//!   There are more threads than CPUs, and spinning takes a CPU from someone who could get on. Sleep.
//!
//! A holder that was migrated inside its section makes the first rule wrong; the cost is one needless sleep,
//! never exclusion. Without rseq nobody knows a CPU and this is [`Parking`](super::Parking).

use super::lot::{HELD, Lot, OFF};
use crate::raw::{RawLock, sealed::Sealed};
use crate::sync::{self, Ordering, cpu, mark, unmarked};

/// Looks before going to sleep all the same: something else may have taken the holder's CPU. As in `Parking`:
/// ten times more patience made the longest waits longer, and nothing faster.
const LOOKS: u32 = sync::LOOKS;

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
        // Read before the CAS, which brings it into the word: a store of its own afterwards costs 2 ns.
        if !self.0.try_take(cpu().map_or(HELD, on)) {
            self.0.wait(|word, look| self.worth_spinning(word, look));
            // Not where we were when we began to wait.
            if let Some(cpu) = cpu() {
                self.0.word.store(on(cpu), Ordering::Relaxed);
            }
        }
    }

    #[inline]
    fn release(&self, (): ()) {
        self.0.release();
    }
}

/// What the word says when the holder took the lock on `cpu`. `HELD`: it does not know, or has not said so
/// yet.
fn on(cpu: u32) -> u32 {
    HELD + 1 + cpu
}

impl RseqAware {
    fn worth_spinning(&self, word: u32, look: u32) -> bool {
        if cpu().is_some_and(|cpu| word == on(cpu)) {
            self.0.state.fetch_or(OFF, Ordering::Relaxed);
            return false;
        }
        if look == 0 {
            mark();
        }
        look < LOOKS && !unmarked() && self.0.state.load(Ordering::Relaxed) & OFF == 0
    }
}
