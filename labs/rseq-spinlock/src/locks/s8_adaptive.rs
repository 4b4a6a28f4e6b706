//! Spin, then sleep: the bet that the holder is about to leave, with a limit on the loss.
//!
//! Spinning for as long as a sleep and a wake-up would cost is at most twice as dear as the best choice in
//! hindsight (Karlin et al. 1991). glibc's `PTHREAD_MUTEX_ADAPTIVE_NP` is of this kind. It cannot tell a
//! short section from a preempted holder.

use super::s7_futex::{FREE, HELD, release, sleep};
use crate::raw::{RawLock, sealed::Sealed};
use crate::sync::{self, Futex, Ordering, spin};

/// Looks before going to sleep: a few microseconds, about what sleeping costs.
const LOOKS: u32 = sync::LOOKS;

/// See the module.
#[doc(alias = "PTHREAD_MUTEX_ADAPTIVE_NP")]
#[derive(Debug)]
pub struct Adaptive {
    /// As in [`FutexMutex`](super::FutexMutex).
    state: Futex,
}

impl Sealed for Adaptive {}

impl RawLock for Adaptive {
    type Token = ();
    const NAME: &'static str = "adaptive";

    fn new() -> Self {
        Self { state: Futex::new(FREE) }
    }

    fn acquire(&self) {
        for _ in 0..LOOKS {
            // Acquire: pairs with the Release in `release`.
            if self.state.load(Ordering::Relaxed) == FREE
                && self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            spin();
        }
        sleep(&self.state);
    }

    fn release(&self, (): ()) {
        release(&self.state);
    }
}
