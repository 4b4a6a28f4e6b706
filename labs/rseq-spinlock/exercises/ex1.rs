//! Exercise 1: a ticket lock. The statement is in the lab's README; `cargo xtask homework check rseq-spinlock ex1`
//! says how far you are.
//!
//! The atomics come from the spec: a model checker's, which tries every interleaving of the threads.

use super::sync::{AtomicU32, spin};

/// A lock that is served in the order of numbers drawn.
pub struct TicketLock {
    // TODO(you): two counters. Say for each what it counts, and who writes it.
    replace_me: AtomicU32,
}

impl TicketLock {
    /// A free lock whose first number is `first`.
    pub fn starting_at(first: u32) -> Self {
        Self { replace_me: AtomicU32::new(first) }
    }

    /// Draws a number: nobody else gets the same.
    pub fn draw(&self) -> u32 {
        unimplemented!("TODO(you): draw a number")
    }

    /// Whether the one who drew `number` may go in. What the last holder wrote is then seen.
    pub fn is_called(&self, _number: u32) -> bool {
        unimplemented!("TODO(you): compare it with the number that may go in")
    }

    /// Draws a number, and waits until it is called. Call `spin()` in each round of a loop that waits.
    pub fn lock(&self) {
        spin();
        unimplemented!("TODO(you): draw, then wait")
    }

    /// Takes the lock if it is free and nobody waits; otherwise changes nothing.
    pub fn try_lock(&self) -> bool {
        unimplemented!("TODO(you): take the lock only if it is free")
    }

    /// Calls the next number. Only the holder may do this.
    pub fn unlock(&self) {
        unimplemented!("TODO(you): call the next number")
    }
}
