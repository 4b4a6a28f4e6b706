//! CLH: a queue in which each waiter watches the one before it (Craig; Landin and Hagersten, 1993).
//!
//! Like MCS, but without `next`: the swap of the tail tells us whom to watch, and an unlock is one store. The
//! price: our node stays behind for the successor to read, so we go on with the predecessor's.

use crate::raw::{Line, RawLock, sealed::Sealed};
use crate::sync::{AtomicBool, AtomicU32, Ordering, SLOTS, slot, spin};

/// See the module.
#[derive(Debug)]
pub struct Clh {
    /// The node of the last in the queue; the lock is free when that is at rest.
    tail: Line<AtomicU32>,
    /// Whether the node's user wants or holds the lock. One more than there are slots.
    busy: Box<[Line<AtomicBool>]>,
    /// The node that each thread slot will use next; written by its thread alone.
    mine: Box<[Line<AtomicU32>]>,
}

impl Sealed for Clh {}

impl RawLock for Clh {
    /// Our node, and the predecessor's.
    type Token = (u32, u32);
    const NAME: &'static str = "clh";

    fn new() -> Self {
        Self {
            tail: Line(AtomicU32::new(SLOTS as u32)),
            busy: (0..=SLOTS).map(|_| Line(AtomicBool::new(false))).collect(),
            mine: (0..SLOTS as u32).map(|i| Line(AtomicU32::new(i))).collect(),
        }
    }

    fn acquire(&self) -> (u32, u32) {
        let node = self.mine[slot()].0.load(Ordering::Relaxed);
        self.busy[node as usize].0.store(true, Ordering::Relaxed);
        // Release: our node is busy before the successor can find it. Acquire: so is the predecessor's.
        let before = self.tail.0.swap(node, Ordering::AcqRel);
        // Acquire: pairs with the Release below.
        while self.busy[before as usize].0.load(Ordering::Acquire) {
            spin();
        }
        (node, before)
    }

    fn release(&self, (node, before): (u32, u32)) {
        self.mine[slot()].0.store(before, Ordering::Relaxed);
        self.busy[node as usize].0.store(false, Ordering::Release);
    }
}
