//! Where the waiters of the last two locks wait: unlock is one store, and nobody is passed for long.
//!
//! ```text
//! word   FREE | HANDOFF | HELD or more     taken by CAS, given back by a plain store
//! state  waiters that have slept | OFF | LATE | WOKEN
//! gate   what they sleep on; +1 with each wake-up
//! ```
//!
//! - **Barging.** Normally a release frees the word and anyone may take it: a thread that runs beats one that
//!   must be woken first, which is where throughput comes from. One sleeper at a time is awake and trying
//!   (WOKEN).
//! - **Yielding.** With more threads than CPUs most of those that wait are in a run queue, where no lock can
//!   see them. A waiter that has spun for some hundred nanoseconds gives them its CPU with sched_yield(2), a
//!   few times, before it sleeps. Without this, each thread runs until its time slice ends, and the last in
//!   the queue waits for all those slices.
//! - **Turns.** A waiter that has been off its CPU leaves LATE. In such a crowd a release looks at the clock:
//!   once in a [turn](crate::sync::turn_over) it stores HANDOFF, which newcomers may not take. Whoever had
//!   the lock yields as well, and the CPU goes to those who wait.
//! - **No fence.** A release stores `word`, then reads `state`; a sleeper writes `state`, then reads `word`.
//!   Each may miss the other unless both fence: here only the sleeper pays, with membarrier(2).

use crate::sync::{
    self, AtomicU32, Futex, Ordering, heavy_barrier, light_barrier, now, prepare_barriers, spin_for,
    turn_over, yield_cpu,
};

/// The word: nobody holds the lock.
pub const FREE: u32 = 0;
/// The word: nobody holds it, and only a waiter that has been off its CPU may take it.
pub const HANDOFF: u32 = 1;
/// The word: held. The holder may put any higher value there.
pub const HELD: u32 = 2;

/// State: a sleeper is awake or being woken; no need to wake another.
const WOKEN: u32 = 1;
/// State: since the last turn, someone who waits has been off its CPU.
const LATE: u32 = 2;
/// State: a waiter has seen that the holder is not running. Cleared by the release.
pub const OFF: u32 = 4;
/// State: one waiter that has slept at least once.
const ONE: u32 = 8;

/// What a waiter does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Looks again after so many `pause` instructions.
    Spin(u32),
    /// Lets the CPU's other threads run.
    Yield,
    /// Sleeps until a release wakes it.
    Sleep,
}

/// What to do at the n-th look when nothing is known of the holder: spin, ever more rarely; yield; sleep.
pub fn blindly(look: u32) -> Next {
    match look {
        n if n < sync::SPINS => Next::Spin(2 << n),
        n if n < sync::SPINS + sync::YIELDS => Next::Yield,
        _ => Next::Sleep,
    }
}

/// See the module.
#[derive(Debug)]
pub struct Lot {
    /// [`FREE`], [`HANDOFF`], or a value from [`HELD`] on.
    pub word: AtomicU32,
    /// Flags, and above them the count of waiters that have slept.
    pub state: AtomicU32,
    /// Counts wake-ups; a waiter reads it before its last look at `word`.
    gate: Futex,
    /// When the last turn began. Only the holder touches it.
    turn: AtomicU32,
    /// Releases in a crowd. Only the holder touches it.
    releases: AtomicU32,
}

impl Lot {
    /// Free, and nobody waits.
    pub fn new() -> Self {
        prepare_barriers();
        Self {
            word: AtomicU32::new(FREE),
            state: AtomicU32::new(0),
            gate: Futex::new(0),
            turn: AtomicU32::new(0),
            releases: AtomicU32::new(0),
        }
    }

    /// Takes the lock if it is free. `held`: what the word shall say then, from [`HELD`] on.
    #[inline]
    pub fn try_take(&self, held: u32) -> bool {
        // Acquire: pairs with the Release in `release`.
        self.word.compare_exchange(FREE, held, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Returns when the lock is ours. `held`: as in [`try_take`](Self::try_take). `next` is shown the word of
    /// a holder and the number of the look.
    #[cold]
    pub fn wait(&self, held: impl Fn() -> u32, next: impl Fn(u32, u32) -> Next) {
        let (mut look, mut been_off, mut slept) = (0, false, false);
        loop {
            let word = self.word.load(Ordering::Relaxed);
            // Acquire: pairs with the Release in `release`.
            if (word == FREE || been_off && word == HANDOFF)
                && self.word.compare_exchange(word, held(), Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                if slept {
                    self.leave();
                }
                return;
            }
            let step = match word {
                FREE => Next::Spin(1),
                HANDOFF => Next::Yield,
                held => next(held, look),
            };
            look += 1;
            match step {
                Next::Spin(pauses) => spin_for(pauses),
                Next::Yield => {
                    if self.state.load(Ordering::Relaxed) & LATE == 0 {
                        self.state.fetch_or(LATE, Ordering::Relaxed);
                    }
                    yield_cpu();
                    been_off = true;
                }
                Next::Sleep => {
                    self.sleep(slept);
                    (look, been_off, slept) = (0, true, true);
                }
            }
        }
    }

    /// Sleeps until woken, or not at all if the lock has been given back meanwhile.
    fn sleep(&self, again: bool) {
        // Before the last look at the word: a wake-up after that look changes it.
        let seen = self.gate.load(Ordering::Acquire);
        if again {
            self.state.fetch_and(!WOKEN, Ordering::Relaxed);
        } else {
            self.state.fetch_add(ONE, Ordering::Relaxed);
        }
        // Pairs with the light one in `release`: it sees what we just wrote, or we see the word it stored.
        heavy_barrier();
        if self.word.load(Ordering::Relaxed) >= HELD {
            self.gate.wait(seen);
        }
    }

    /// We have the lock after having slept: out of the count.
    fn leave(&self) {
        let mut now = self.state.load(Ordering::Relaxed);
        while let Err(other) =
            self.state.compare_exchange(now, (now - ONE) & !WOKEN, Ordering::Relaxed, Ordering::Relaxed)
        {
            now = other;
        }
    }

    /// Gives the lock back; in a crowd, once in a turn, to those who wait.
    #[inline]
    pub fn release(&self) {
        let free = if self.state.load(Ordering::Relaxed) == 0 { FREE } else { self.free_in_a_crowd() };
        // Release: pairs with the Acquire of whoever takes it.
        self.word.store(free, Ordering::Release);
        light_barrier();
        let state = self.state.load(Ordering::Relaxed);
        if state >= OFF {
            self.after_release(state);
        }
    }

    /// What the word shall say. Nobody need be there to take HANDOFF: a newcomer may, once it has yielded.
    #[cold]
    fn free_in_a_crowd(&self) -> u32 {
        let n = self.releases.load(Ordering::Relaxed).wrapping_add(1);
        self.releases.store(n, Ordering::Relaxed);
        // The clock costs as much as a short section.
        if !n.is_multiple_of(sync::GLANCE) || !turn_over(self.turn.load(Ordering::Relaxed)) {
            return FREE;
        }
        self.turn.store(now(), Ordering::Relaxed);
        self.state.fetch_and(!LATE, Ordering::Relaxed);
        HANDOFF
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
