//! Fails `only_from`: its numbers are drawn from an atomic of std's, which the model checker does not see.

use std::sync::atomic::AtomicU32 as Unseen;

use super::sync::{AtomicU32, Ordering, spin};

/// A lock that is served in the order of numbers drawn.
pub struct TicketLock {
    /// The next number to give out; wraps. Everybody who comes adds one.
    next: Unseen,
    /// The number that may go in; only the holder writes it. The lock is free while it equals `next`.
    called: AtomicU32,
}

impl TicketLock {
    /// A free lock whose first number is `first`.
    pub fn starting_at(first: u32) -> Self {
        Self { next: Unseen::new(first), called: AtomicU32::new(first) }
    }

    /// Draws a number: nobody else gets the same.
    pub fn draw(&self) -> u32 {
        let mine = self.next.load(Ordering::Relaxed);
        self.next.store(mine.wrapping_add(1), Ordering::Relaxed);
        mine
    }

    /// Whether the one who drew `number` may go in. What the last holder wrote is then seen.
    pub fn is_called(&self, number: u32) -> bool {
        // Acquire: pairs with the Release of `unlock`.
        self.called.load(Ordering::Acquire) == number
    }

    /// Draws a number, and waits until it is called.
    pub fn lock(&self) {
        let mine = self.draw();
        while !self.is_called(mine) {
            spin();
        }
    }

    /// Takes the lock if it is free and nobody waits; otherwise changes nothing.
    pub fn try_lock(&self) -> bool {
        // Acquire: pairs with the Release of `unlock`.
        let now = self.called.load(Ordering::Acquire);
        let after = now.wrapping_add(1);
        self.next.compare_exchange(now, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Calls the next number. Only the holder may do this.
    pub fn unlock(&self) {
        let mine = self.called.load(Ordering::Relaxed);
        // Release: pairs with the Acquire of `is_called` and `try_lock`.
        self.called.store(mine.wrapping_add(1), Ordering::Release);
    }
}
