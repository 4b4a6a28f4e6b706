//! Parking with eventual fairness: spin a little, then sleep in a `Lot`.
//!
//! What `s10_rseq` is without rseq: the two differ in one line, so what they differ in is what rseq's hint is
//! worth.

use super::lot::{HELD, Lot};
use crate::raw::{RawLock, sealed::Sealed};
use crate::sync;

/// Looks before going to sleep, as in [`Adaptive`](super::Adaptive).
const LOOKS: u32 = sync::LOOKS;

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
            self.0.wait(|_, look| look < LOOKS);
        }
    }

    #[inline]
    fn release(&self, (): ()) {
        self.0.release();
    }
}
