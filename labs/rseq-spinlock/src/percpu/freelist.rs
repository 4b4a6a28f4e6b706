//! A free list with a head for each CPU: last in, first out, so that memory warm in this CPU's cache is used
//! first.
//!
//! This is how tcmalloc's per-CPU caches work. Nodes are indices; what they stand for is the caller's.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use kit::SysError;

use super::slots;
use crate::sys::membarrier;
use crate::sys::ops::{list_pop, list_push};
use crate::sys::rseq::Thread;
use crate::sys::sections::{ByCpu, Index, Try};

/// One CPU's list.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct List {
    /// Index + 1 of the first node; 0: empty. Written by sections on this CPU, and by whoever has closed it.
    head: AtomicU32,
    /// Not 0: sections leave at once.
    pub(crate) closed: AtomicU32,
}

/// What comes after a node: index + 1, or 0. Written only by the node's owner, while it is on no list.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Link(pub(crate) AtomicU32);

/// See the module.
#[derive(Debug)]
pub struct FreeList<I = ByCpu, const ARMED: bool = true> {
    lists: Box<[List]>,
    links: Box<[Link]>,
    _index: PhantomData<I>,
}

impl<I: Index, const ARMED: bool> FreeList<I, ARMED> {
    /// Empty lists for `n` indices; nodes are `0..nodes`.
    pub fn new(n: usize, nodes: u32) -> Self {
        Self {
            lists: slots(n, List::default),
            links: slots(nodes as usize, Link::default),
            _index: PhantomData,
        }
    }

    /// One attempt to put back a node, which must be on no list.
    ///
    /// # Panics
    /// If there is no such node.
    #[inline(always)]
    pub fn try_push(&self, thread: Thread, node: u32) -> Try {
        list_push::<I, ARMED>(thread, &self.lists, &self.links, node)
    }

    /// One attempt to take the first node of this CPU.
    #[inline(always)]
    pub fn try_pop(&self, thread: Thread) -> (Try, u32) {
        list_pop::<I, ARMED>(thread, &self.lists, &self.links)
    }

    /// Puts back a node. False: this CPU has no list here; keep the node.
    pub fn push(&self, thread: Thread, node: u32) -> bool {
        loop {
            match self.try_push(thread, node) {
                Try::Done => return true,
                Try::NoSlot => return false,
                Try::Closed => std::thread::yield_now(),
                _ => {}
            }
        }
    }

    /// Takes the first node of this CPU; none if its list is empty or missing.
    pub fn pop(&self, thread: Thread) -> Option<u32> {
        loop {
            match self.try_pop(thread) {
                (Try::Done, node) => return Some(node),
                (Try::NoSlot | Try::Refused, _) => return None,
                (Try::Closed, _) => std::thread::yield_now(),
                _ => {}
            }
        }
    }

    /// Takes *all* nodes of another CPU: what a section cannot do, for it owns only its own CPU.
    ///
    /// Close the list; run down the sections that may have passed the check before that; take it; open again.
    ///
    /// # Errors
    /// membarrier(2) for rseq is missing, before Linux 5.10. Only for lists by CPU: membarrier knows no
    /// concurrency ids.
    pub fn take_all(&self, cpu: u32) -> Result<Vec<u32>, SysError> {
        let Some(list) = self.lists.get(cpu as usize) else { return Ok(Vec::new()) };
        // Only one at a time may close. Acquire, Release: between two that do.
        while list.closed.swap(1, Ordering::Acquire) != 0 {
            std::thread::yield_now();
        }
        let taken = membarrier::abort_sections_on(cpu).map(|()| {
            let mut nodes = Vec::new();
            // Acquire: the links were written before the head, on another CPU (stores are in order on
            // x86-64).
            let mut next = list.head.swap(0, Ordering::Acquire);
            while next != 0 {
                nodes.push(next - 1);
                next = self.links[next as usize - 1].0.load(Ordering::Relaxed);
            }
            nodes
        });
        list.closed.store(0, Ordering::Release);
        taken
    }

    /// Shows each node on each list, first to last; for when nobody works on them. Ends even if a list has
    /// become a ring.
    pub fn for_each(&self, mut see: impl FnMut(u32)) {
        let mut left = self.links.len() + 1;
        for list in &self.lists {
            let mut next = list.head.load(Ordering::Relaxed);
            while next != 0 && left > 0 {
                see(next - 1);
                left -= 1;
                next = self.links[next as usize - 1].0.load(Ordering::Relaxed);
            }
        }
    }

    /// Empties all lists; for when nobody works on them.
    pub fn clear(&self) {
        self.lists.iter().for_each(|list| list.head.store(0, Ordering::Relaxed));
    }
}
