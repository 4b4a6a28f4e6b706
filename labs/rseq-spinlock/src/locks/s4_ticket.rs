//! Ticket: take a number, wait until it is called (Mellor-Crummey and Scott 1991).
//!
//! First come, first served, and just one swap each. But the lock now belongs to *one* waiter: if that one is
//! not running when it is called, everyone behind it waits for the scheduler too.

use crate::raw::{Line, RawLock, sealed::Sealed};
use crate::sync::{AtomicU32, Ordering, spin};

/// See the module.
#[derive(Debug)]
pub struct Ticket {
    /// The next number to give out; wraps.
    next: Line<AtomicU32>,
    /// The number that may go in; held while it differs from `next`.
    serving: Line<AtomicU32>,
}

impl Sealed for Ticket {}

impl RawLock for Ticket {
    type Token = u32;
    const NAME: &'static str = "ticket";

    fn new() -> Self {
        Self { next: Line(AtomicU32::new(0)), serving: Line(AtomicU32::new(0)) }
    }

    fn acquire(&self) -> u32 {
        let mine = self.next.0.fetch_add(1, Ordering::Relaxed);
        // Acquire: pairs with the Release below.
        while self.serving.0.load(Ordering::Acquire) != mine {
            spin();
        }
        mine
    }

    fn release(&self, mine: u32) {
        self.serving.0.store(mine.wrapping_add(1), Ordering::Release);
    }
}
