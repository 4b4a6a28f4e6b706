//! MCS: a queue in which each waiter spins on a line of its own (Mellor-Crummey and Scott 1991).
//!
//! ```text
//! tail ----------------------------+
//!                                  v
//! holder [next]--> waiter [next]--> waiter [next = none]
//!                  (wait)           (wait)
//! ```
//!
//! An unlock touches one other line: the successor's. Linux's `qspinlock` is this with the first waiter
//! spinning on the lock word. Nodes live in the lock, one for each thread slot, so that no pointer can
//! dangle.

use crate::raw::{Line, RawLock, sealed::Sealed};
use crate::sync::{AtomicBool, AtomicU32, Ordering, SLOTS, slot, spin};

/// Nobody.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    /// Set while its owner must wait.
    wait: AtomicBool,
    /// Who comes after us; [`NONE`] while nobody has said so.
    next: AtomicU32,
}

/// See the module.
#[doc(alias = "qspinlock")]
#[derive(Debug)]
pub struct Mcs {
    /// The last in the queue; [`NONE`]: the lock is free.
    tail: Line<AtomicU32>,
    nodes: Box<[Line<Node>]>,
}

impl Sealed for Mcs {}

impl RawLock for Mcs {
    type Token = u32;
    const NAME: &'static str = "mcs";

    fn new() -> Self {
        let node = |_| Line(Node { wait: AtomicBool::new(false), next: AtomicU32::new(NONE) });
        Self { tail: Line(AtomicU32::new(NONE)), nodes: (0..SLOTS).map(node).collect() }
    }

    fn acquire(&self) -> u32 {
        let me = slot() as u32;
        let node = &self.nodes[me as usize].0;
        node.wait.store(true, Ordering::Relaxed);
        node.next.store(NONE, Ordering::Relaxed);
        // Release: the node is ready before anyone can find it. Acquire: an empty queue means that the last
        // holder's CAS in `release` came before.
        let before = self.tail.0.swap(me, Ordering::AcqRel);
        if before != NONE {
            // Release: pairs with the Acquire load of `next` in `release`.
            self.nodes[before as usize].0.next.store(me, Ordering::Release);
            // Acquire: pairs with the Release store of `wait` in `release`.
            while node.wait.load(Ordering::Acquire) {
                spin();
            }
        }
        me
    }

    fn release(&self, me: u32) {
        let node = &self.nodes[me as usize].0;
        let mut next = node.next.load(Ordering::Acquire);
        if next == NONE {
            // Nobody behind us? Then the queue is empty. Release: pairs with the swap in `acquire`.
            if self.tail.0.compare_exchange(me, NONE, Ordering::Release, Ordering::Relaxed).is_ok() {
                return;
            }
            // Someone has joined and is about to say who: two steps away.
            while next == NONE {
                spin();
                next = node.next.load(Ordering::Acquire);
            }
        }
        self.nodes[next as usize].0.wait.store(false, Ordering::Release);
    }
}
