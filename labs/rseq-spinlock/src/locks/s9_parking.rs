//! Parking with eventual fairness: spin a little, yield a little, then sleep, in a `Lot`.
//!
//! What `s10_rseq` is without rseq: the two differ in what a waiter knows of the holder, so what they differ
//! in under load is what rseq's hint is worth.

use super::lot::{HELD, Lot, blindly};
use crate::raw::{RawLock, sealed::Sealed};

/// See the module.
#[derive(Debug)]
pub struct Parking(Lot);

impl Sealed for Parking {}

impl RawLock for Parking {
    type Token = ();
    const NAME: &'static str = "parking";

    fn new() -> Self {
        Self(Lot::new())
    }

    #[inline]
    fn acquire(&self) {
        if !self.0.try_take(HELD) {
            self.0.wait(|| HELD, |_, look| blindly(look));
        }
    }

    #[inline]
    fn release(&self, (): ()) {
        self.0.release();
    }
}
