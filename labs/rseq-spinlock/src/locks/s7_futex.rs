//! The futex mutex with three states (Drepper, "Futexes Are Tricky", mutex2). std's `Mutex` is this with a
//! short spin.
//!
//! The third state says "someone may sleep": an uncontended unlock needs no system call. Two states would
//! have to wake at each unlock, or lose a wake-up.

use crate::raw::{RawLock, sealed::Sealed};
use crate::sync::{Futex, Ordering};

pub(super) const FREE: u32 = 0;
pub(super) const HELD: u32 = 1;
/// Held, and someone may sleep.
pub(super) const CONTENDED: u32 = 2;

/// See the module.
#[derive(Debug)]
pub struct FutexMutex {
    /// [`FREE`], [`HELD`] or [`CONTENDED`].
    state: Futex,
}

impl Sealed for FutexMutex {}

impl RawLock for FutexMutex {
    type Token = ();
    const NAME: &'static str = "futex";

    fn new() -> Self {
        Self { state: Futex::new(FREE) }
    }

    fn acquire(&self) {
        // Acquire, here and in `sleep`: pairs with the Release in `release`.
        if self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            sleep(&self.state);
        }
    }

    fn release(&self, (): ()) {
        release(&self.state);
    }
}

/// Sleeps until the swap finds the lock free. We then hold it as `CONTENDED`: others may sleep still.
pub(super) fn sleep(state: &Futex) {
    while state.swap(CONTENDED, Ordering::Acquire) != FREE {
        state.wait(CONTENDED);
    }
}

/// Frees, and wakes one if anyone may sleep.
pub(super) fn release(state: &Futex) {
    if state.swap(FREE, Ordering::Release) == CONTENDED {
        state.wake(1);
    }
}
