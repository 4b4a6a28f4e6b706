//! Exponential backoff: who lost a swap waits twice as long before the next (Anderson 1990).
//!
//! Fewer losers per hand-over, and the holder keeps the line long enough to lock again: throughput at the
//! price of fairness, and a waiter may doze past the moment the lock is free.

use crate::raw::{RawLock, sealed::Sealed};
use crate::sync::{AtomicBool, Ordering, spin_for};

/// The longest pause between two looks, in `pause` instructions: some microseconds.
const MOST: u32 = 256;

/// See the module.
#[derive(Debug)]
pub struct Backoff {
    /// Whether someone holds it.
    held: AtomicBool,
}

impl Sealed for Backoff {}

impl RawLock for Backoff {
    type Token = ();
    const NAME: &'static str = "backoff";

    fn new() -> Self {
        Self { held: AtomicBool::new(false) }
    }

    fn acquire(&self) {
        let mut pause = 1;
        // Acquire: pairs with the Release below.
        while self.held.load(Ordering::Relaxed) || self.held.swap(true, Ordering::Acquire) {
            spin_for(pause);
            pause = (pause * 2).min(MOST);
        }
    }

    fn release(&self, (): ()) {
        self.held.store(false, Ordering::Release);
    }
}
