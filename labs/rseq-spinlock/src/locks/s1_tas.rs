//! Test-and-set: swap until the old value says free.
//!
//! The shortest lock there is. Each swap takes the cache line for itself, so each waiter slows the holder,
//! who needs that same line to unlock.

use crate::raw::{RawLock, sealed::Sealed};
use crate::sync::{AtomicBool, Ordering, spin};

/// See the module.
#[doc(alias = "test_and_set")]
#[derive(Debug)]
pub struct Tas {
    /// Whether someone holds it.
    held: AtomicBool,
}

impl Sealed for Tas {}

impl RawLock for Tas {
    type Token = ();
    const NAME: &'static str = "tas";

    fn new() -> Self {
        Self { held: AtomicBool::new(false) }
    }

    fn acquire(&self) {
        // Acquire: pairs with the Release below.
        while self.held.swap(true, Ordering::Acquire) {
            spin();
        }
    }

    fn release(&self, (): ()) {
        self.held.store(false, Ordering::Release);
    }
}
