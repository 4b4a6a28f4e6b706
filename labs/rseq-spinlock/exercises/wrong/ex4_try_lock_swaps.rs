//! Fails `try_lock_leaves_nothing_behind`: a try_lock that fails has said HELD where it said CONTENDED, and the
//! sleeper is forgotten.

use super::sync::{Futex, Ordering, SPINS, spin};

const FREE: u32 = 0;
/// Held, and nobody sleeps.
const HELD: u32 = 1;
/// Held, and somebody may sleep.
const CONTENDED: u32 = 2;

/// A lock for any number of threads.
pub struct Mutex {
    /// [`FREE`], [`HELD`] or [`CONTENDED`].
    state: Futex,
}

impl Mutex {
    /// A free lock.
    pub fn new() -> Self {
        Self { state: Futex::new(FREE) }
    }

    /// Takes the lock.
    pub fn lock(&self) {
        if self.try_lock() {
            return;
        }
        for _ in 0..SPINS {
            spin();
            // A look first: a compare_exchange that fails takes the line away from the holder all the same.
            if self.state.load(Ordering::Relaxed) == FREE && self.try_lock() {
                return;
            }
        }
        // Whoever gets the lock on this way holds it as CONTENDED: others may sleep still, and it cannot know.
        // Acquire: pairs with the Release of `unlock`.
        while self.state.swap(CONTENDED, Ordering::Acquire) != FREE {
            self.state.wait(CONTENDED);
        }
    }

    /// Takes the lock if it is free; otherwise changes nothing.
    pub fn try_lock(&self) -> bool {
        // Acquire: pairs with the Release of `unlock`.
        self.state.swap(HELD, Ordering::Acquire) == FREE
    }

    /// Gives the lock up, and wakes one thread if any may sleep.
    pub fn unlock(&self) {
        // One instruction frees the lock and says whether somebody sleeps: nobody can go to sleep in between.
        if self.state.swap(FREE, Ordering::Release) == CONTENDED {
            self.state.wake(1);
        }
    }
}
