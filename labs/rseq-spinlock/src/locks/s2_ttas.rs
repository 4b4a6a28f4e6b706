//! Test-and-test-and-set: read until it looks free, and only then swap.
//!
//! Reading shares the cache line: waiters spin in their own caches, and the bus is quiet until the holder's
//! store. Then all of them swap at once, and all but one for nothing.

use crate::raw::{RawLock, sealed::Sealed};
use crate::sync::{AtomicBool, Ordering, spin};

/// See the module.
#[doc(alias = "test_and_test_and_set")]
#[derive(Debug)]
pub struct Ttas {
    /// Whether someone holds it.
    held: AtomicBool,
}

impl Sealed for Ttas {}

impl RawLock for Ttas {
    type Token = ();
    const NAME: &'static str = "ttas";

    fn new() -> Self {
        Self { held: AtomicBool::new(false) }
    }

    fn acquire(&self) {
        // Acquire: pairs with the Release below.
        while self.held.swap(true, Ordering::Acquire) {
            while self.held.load(Ordering::Relaxed) {
                spin();
            }
        }
    }

    fn release(&self, (): ()) {
        self.held.store(false, Ordering::Release);
    }
}
