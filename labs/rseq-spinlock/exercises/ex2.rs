//! Exercise 2: the MCS lock. The statement is in the lab's README; `cargo xtask homework check rseq-spinlock ex2` says how
//! far you are.
//!
//! ```text
//! tail ----------------------------+
//!                                  v
//! holder [next]--> waiter [next]--> waiter [next = NONE]
//!                  (wait)           (wait)
//! ```
//!
//! Each thread has a node, by its number. Who comes puts itself at the tail, tells the one before, and waits at a word in its
//! own node, where nobody else looks: that is what it is better at than a ticket lock, whose waiters all look at one word.
//! Graded are exclusion and order under a model checker, every word that a thread waits at, and that a node can be used again.
//!
//! The atomics come from the spec: a model checker's, which tries every interleaving of the threads.

use super::sync::{AtomicU32, spin};

/// Nobody.
pub const NONE: u32 = u32::MAX;

/// A lock that is served in the order of arrival.
pub struct Mcs {
    // TODO(you): the tail, and for each thread a node of two words. Say for each who writes it, and who reads.
    replace_me: AtomicU32,
}

impl Mcs {
    /// A free lock for the threads `0..threads`.
    pub fn new(_threads: u32) -> Self {
        Self { replace_me: AtomicU32::new(NONE) }
    }

    /// Puts thread `me` at the end of the queue. True: the queue was empty, so `me` holds the lock.
    pub fn join(&self, _me: u32) -> bool {
        let _ = &self.replace_me;
        unimplemented!("TODO(you): make the node ready, then be the tail, then tell the one before")
    }

    /// Whether `me`, which has joined and was not first, holds the lock by now. What the last holder wrote is then seen.
    pub fn is_called(&self, _me: u32) -> bool {
        unimplemented!("TODO(you): look at a word of your own")
    }

    /// Joins, and waits until it is called. Call `spin()` between two looks, here and wherever you wait.
    pub fn lock(&self, _me: u32) {
        spin();
        unimplemented!("TODO(you): join, then wait")
    }

    /// Takes the lock if it is free; otherwise changes nothing.
    pub fn try_lock(&self, _me: u32) -> bool {
        unimplemented!("TODO(you): be the tail only if there is none")
    }

    /// Gives the lock to the next in the queue. Only the holder may do this.
    pub fn unlock(&self, _me: u32) {
        unimplemented!("TODO(you): who is next? And if nobody has said so yet?")
    }
}
