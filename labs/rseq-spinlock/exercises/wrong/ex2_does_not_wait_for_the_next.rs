//! Fails `nobody_is_forgotten`: the tail is somebody else, who has not said so yet: unlock returns, and nobody ever
//! calls that one.

use super::sync::{AtomicU32, Ordering, spin};

/// Nobody.
pub const NONE: u32 = u32::MAX;

struct Node {
    /// 1 while the owner must wait: set by the owner, cleared by the one before.
    wait: AtomicU32,
    /// Who comes after; [`NONE`] until that one says so. Read by the owner.
    next: AtomicU32,
}

/// A lock that is served in the order of arrival.
pub struct Mcs {
    /// The last in the queue; [`NONE`]: the lock is free.
    tail: AtomicU32,
    nodes: Vec<Node>,
}

impl Mcs {
    /// A free lock for the threads `0..threads`.
    pub fn new(threads: u32) -> Self {
        let node = |_| Node { wait: AtomicU32::new(0), next: AtomicU32::new(NONE) };
        Self { tail: AtomicU32::new(NONE), nodes: (0..threads).map(node).collect() }
    }

    fn node(&self, thread: u32) -> &Node {
        &self.nodes[thread as usize]
    }

    /// Makes the node what it must be before anybody can find it.
    fn prepare(&self, me: u32) {
        self.node(me).wait.store(1, Ordering::Relaxed);
        self.node(me).next.store(NONE, Ordering::Relaxed);
    }

    /// Puts thread `me` at the end of the queue. True: the queue was empty, so `me` holds the lock.
    pub fn join(&self, me: u32) -> bool {
        self.prepare(me);
        // Release: the node is ready before it can be found. Acquire: an empty queue was left so by the last `unlock`.
        let before = self.tail.swap(me, Ordering::AcqRel);
        if before == NONE {
            return true;
        }
        // Release: pairs with the Acquire of `next` in `unlock`.
        self.node(before).next.store(me, Ordering::Release);
        false
    }

    /// Whether `me`, which has joined and was not first, holds the lock by now. What the last holder wrote is then seen.
    pub fn is_called(&self, me: u32) -> bool {
        // Acquire: pairs with the Release of `wait` in `unlock`.
        self.node(me).wait.load(Ordering::Acquire) == 0
    }

    /// Joins, and waits until it is called.
    pub fn lock(&self, me: u32) {
        if self.join(me) {
            return;
        }
        while !self.is_called(me) {
            spin();
        }
    }

    /// Takes the lock if it is free; otherwise changes nothing.
    pub fn try_lock(&self, me: u32) -> bool {
        self.prepare(me);
        // As in `join`.
        self.tail.compare_exchange(NONE, me, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives the lock to the next in the queue. Only the holder may do this.
    pub fn unlock(&self, me: u32) {
        let mut next = self.node(me).next.load(Ordering::Acquire);
        if next == NONE {
            // Nobody behind us? Then the queue is empty. Release: pairs with the swap of `join`.
            let _ = self.tail.compare_exchange(me, NONE, Ordering::Release, Ordering::Relaxed);
            next = self.node(me).next.load(Ordering::Acquire);
            if next == NONE {
                return;
            }
        }
        self.node(next).wait.store(0, Ordering::Release);
    }
}
