//! Where the waiters of the last two locks sleep: unlock is one store, and nobody starves.
//!
//! ```text
//! word   FREE | HANDOFF | HELD or more     taken by CAS, given back by a plain store
//! state  waiters that have slept | OFF | STARVED | WOKEN
//! gate   what they sleep on; +1 with each wake-up
//! ```
//!
//! - **Barging.** Normally a release frees the word and anyone may take it: a thread that runs beats one that
//!   must be woken first, which is where throughput comes from. One waiter at a time is awake and trying
//!   (WOKEN).
//! - **No starving.** A waiter passed for longer than [`PATIENCE`](crate::sync::PATIENCE) sets STARVED. From
//!   then on a release stores HANDOFF, which only those who have slept may take, until one comes along that
//!   has not waited that long. Go's `sync.Mutex` works like this; `parking_lot` rolls a die each half
//!   millisecond instead.
//! - **No fence.** A release stores `word`, then reads `state`; a waiter writes `state`, then reads `word`.
//!   Each may miss the other unless both fence: here only the waiter pays, with membarrier(2).

use crate::sync::{AtomicU32, Futex, Ordering, Since, heavy_barrier, light_barrier, prepare_barriers, spin};

/// The word: nobody holds the lock.
pub const FREE: u32 = 0;
/// The word: nobody holds it, and only a waiter that has slept may take it.
pub const HANDOFF: u32 = 1;
/// The word: held. The holder may put any higher value there.
pub const HELD: u32 = 2;

/// State: a waiter is awake or being woken; no need to wake another.
const WOKEN: u32 = 1;
/// State: someone has waited too long.
const STARVED: u32 = 2;
/// State: a waiter has seen that the holder is not running. Cleared by the release.
pub const OFF: u32 = 4;
/// State: one waiter that has slept at least once.
const ONE: u32 = 8;

/// See the module.
#[derive(Debug)]
pub struct Lot {
    /// [`FREE`], [`HANDOFF`], or a value from [`HELD`] on.
    pub word: AtomicU32,
    /// Flags, and above them the count of waiters that have slept.
    pub state: AtomicU32,
    /// Counts wake-ups; a waiter reads it before its last look at `word`.
    gate: Futex,
}

impl Lot {
    /// Free, and nobody waits.
    pub fn new() -> Self {
        prepare_barriers();
        Self { word: AtomicU32::new(FREE), state: AtomicU32::new(0), gate: Futex::new(0) }
    }

    /// Takes the lock if it is free. `held`: what the word shall say then, from [`HELD`] on.
    #[inline]
    pub fn try_take(&self, held: u32) -> bool {
        // Acquire: pairs with the Release in `release`.
        self.word.compare_exchange(FREE, held, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Returns when the lock is ours. `go_on` is shown the word and says, for the n-th look, whether spinning
    /// on is worth it.
    #[cold]
    pub fn wait(&self, mut go_on: impl FnMut(u32, u32) -> bool) {
        let since = Since::now();
        let mut slept = false;
        loop {
            let mut look = 0;
            loop {
                let word = self.word.load(Ordering::Relaxed);
                // Acquire: pairs with the Release in `release`.
                if (word == FREE || slept && word == HANDOFF)
                    && self.word.compare_exchange(word, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
                {
                    if slept {
                        self.served(since);
                    }
                    return;
                }
                // Handed to someone who has slept: not for us, so out of the way.
                if word == HANDOFF || !go_on(word, look) {
                    break;
                }
                look += 1;
                spin();
            }
            // Before the last look at the word: a wake-up after that look changes it.
            let seen = self.gate.load(Ordering::Acquire);
            if slept {
                self.state.fetch_and(!WOKEN, Ordering::Relaxed);
            } else {
                self.state.fetch_add(ONE, Ordering::Relaxed);
                slept = true;
            }
            if since.too_long() {
                self.state.fetch_or(STARVED, Ordering::Relaxed);
            }
            // Pairs with the light one in `release`: it sees what we just wrote, or we see the word it
            // stored.
            heavy_barrier();
            if self.word.load(Ordering::Relaxed) >= HELD {
                self.gate.wait(seen);
            }
        }
    }

    /// We have the lock after having slept: out of the count.
    fn served(&self, since: Since) {
        let mut now = self.state.load(Ordering::Relaxed);
        loop {
            let mut next = (now - ONE) & !WOKEN;
            if next < ONE || !since.too_long() {
                next &= !STARVED;
            }
            match self.state.compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    /// Gives the lock back, to a waiter if one has starved.
    #[inline]
    pub fn release(&self) {
        let starved = self.state.load(Ordering::Relaxed) & STARVED != 0;
        // Release: pairs with the Acquire of whoever takes it. STARVED implies a waiter that will take
        // HANDOFF.
        self.word.store(if starved { HANDOFF } else { FREE }, Ordering::Release);
        light_barrier();
        let state = self.state.load(Ordering::Relaxed);
        if state != 0 {
            self.after_release(state);
        }
    }

    #[cold]
    fn after_release(&self, state: u32) {
        let state =
            if state & OFF != 0 { self.state.fetch_and(!OFF, Ordering::Relaxed) & !OFF } else { state };
        // WOKEN only while there is someone to be woken, who will clear it: by now the next holders may have
        // let all in. With a plain fetch_or here the flag could be left behind, and the next sleeper slept
        // for ever. loom found that.
        let mut now = state;
        while now >= ONE && now & WOKEN == 0 {
            match self.state.compare_exchange(now, now | WOKEN, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.gate.fetch_add(1, Ordering::Release);
                    self.gate.wake(1);
                    return;
                }
                Err(other) => now = other,
            }
        }
    }
}
