//! Exercise 4: spin, then park. The statement is in the lab's README; `cargo xtask homework check rseq-spinlock ex4` says how
//! far you are.
//!
//! A mutex whose waiters look a few times, in case the holder is about to leave, and then sleep in the kernel until they are
//! woken. Its state is a futex: a word that you use as an atomic, and on which threads sleep.
//!
//! ```text
//! state.wait(n)    futex(FUTEX_WAIT): sleeps if the word is still n, else returns at once. May wake for no reason.
//! state.wake(n)    futex(FUTEX_WAKE): wakes at most n of those that sleep.
//! ```
//!
//! Both are system calls. One word is enough, with load, store, swap, compare_exchange and the fetch_… of std's atomics. Graded under a model checker, which tries every interleaving: exclusion, order, that no thread sleeps
//! for ever, and the system calls: none where nobody waits, and no wake-up of more than one.

use super::sync::{Futex, SPINS, spin};

/// A lock for any number of threads.
pub struct Mutex {
    /// TODO(you): say what its values mean.
    state: Futex,
}

impl Mutex {
    /// A free lock.
    pub fn new() -> Self {
        Self { state: Futex::new(0) }
    }

    /// Takes the lock. Who finds it held looks again at most `SPINS` times, with a `spin()` before each look; then sleeps.
    pub fn lock(&self) {
        let _ = (SPINS, &self.state);
        spin();
        unimplemented!("TODO(you): try, spin, then park")
    }

    /// Takes the lock if it is free; otherwise changes nothing.
    pub fn try_lock(&self) -> bool {
        unimplemented!("TODO(you): take it only if it is free")
    }

    /// Gives the lock up, and wakes one thread if any may sleep.
    pub fn unlock(&self) {
        unimplemented!("TODO(you): free it, then wake. How do you know that somebody sleeps?")
    }
}
