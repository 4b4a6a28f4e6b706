//! Per-CPU structures against what one would use without rseq.
//!
//! | | rseq | sharded | one lock |
//! | --- | --- | --- | --- |
//! | counter | a slot a CPU | an atomic a thread | a mutex |
//! | free list | a list a CPU | a lock-free stack a CPU, with a tag against ABA | a mutex around a `Vec` |
//! | ring | a ring a CPU | a mutex around a `VecDeque`, a CPU | a mutex around a `VecDeque` |
//!
//! The shards of list and ring are chosen by the CPU we were just on: a hint, so they must be safe for all
//! the same.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::percpu::{Counter, FreeList, Rings, possible_cpus};
use crate::raw::Line;
use crate::sync::{SLOTS, slot};
use crate::sys::rseq::{RseqError, Thread};

/// Which structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// One operation: add 1.
    Counter,
    /// One operation: take a node and put it back.
    FreeList,
    /// One operation: append, and take the oldest.
    Ring,
}

/// What makes it safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Restartable sequences.
    Rseq,
    /// Shards with atomics or locks.
    Shards,
    /// One lock.
    Lock,
}

/// All structures.
pub const STRUCTURES: [Structure; 3] = [Structure::Counter, Structure::FreeList, Structure::Ring];
/// All ways.
pub const WAYS: [By; 3] = [By::Rseq, By::Shards, By::Lock];

const NODES: u32 = 1024;

/// A lock-free stack of nodes (Treiber 1986). The upper half of the head counts changes: that is what makes
/// ABA improbable, and why it needs a compare-and-swap of 64 bits.
#[derive(Debug, Default)]
struct Stack(AtomicU64);

impl Stack {
    fn pop(&self, links: &[AtomicU32]) -> Option<u32> {
        let mut head = self.0.load(Ordering::Acquire);
        loop {
            let node = (head as u32).checked_sub(1)?;
            let next = links[node as usize].load(Ordering::Relaxed);
            // Acquire: pairs with the Release in `push`, through which the next link was written.
            match self.0.compare_exchange_weak(head, tagged(head, next), Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => return Some(node),
                Err(now) => head = now,
            }
        }
    }

    fn push(&self, links: &[AtomicU32], node: u32) {
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            links[node as usize].store(head as u32, Ordering::Relaxed);
            match self.0.compare_exchange_weak(
                head,
                tagged(head, node + 1),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

/// The next head: the tag one up.
fn tagged(head: u64, node: u32) -> u64 {
    (head >> 32).wrapping_add(1) << 32 | u64::from(node)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A structure that all threads work on, made safe in one of the ways.
enum Work {
    RseqCounter(Counter),
    ShardedCounter(Vec<Line<AtomicU64>>),
    LockedCounter(Mutex<u64>),
    RseqList(FreeList),
    ShardedList(Vec<Line<Stack>>, Vec<AtomicU32>),
    LockedList(Mutex<Vec<u32>>),
    RseqRing(Rings),
    ShardedRing(Vec<Line<Mutex<VecDeque<u64>>>>),
    LockedRing(Mutex<VecDeque<u64>>),
}

impl Work {
    fn new(structure: Structure, by: By) -> Self {
        let n = possible_cpus();
        match (structure, by) {
            (Structure::Counter, By::Rseq) => Self::RseqCounter(Counter::new(n)),
            (Structure::Counter, By::Shards) => {
                Self::ShardedCounter((0..SLOTS).map(|_| Line::default()).collect())
            }
            (Structure::Counter, By::Lock) => Self::LockedCounter(Mutex::new(0)),
            (Structure::FreeList, By::Rseq) => Self::RseqList(FreeList::new(n, NODES)),
            (Structure::FreeList, By::Shards) => Self::ShardedList(
                (0..n).map(|_| Line::default()).collect(),
                (0..NODES).map(|_| AtomicU32::new(0)).collect(),
            ),
            (Structure::FreeList, By::Lock) => Self::LockedList(Mutex::default()),
            (Structure::Ring, By::Rseq) => Self::RseqRing(Rings::new(n)),
            (Structure::Ring, By::Shards) => Self::ShardedRing((0..n).map(|_| Line::default()).collect()),
            (Structure::Ring, By::Lock) => Self::LockedRing(Mutex::default()),
        }
    }

    /// Gives the calling thread's shard something to work on: `own` nodes that nobody else has.
    fn stock(&self, thread: Thread, own: impl Iterator<Item = u32>) {
        for node in own {
            match self {
                Self::RseqList(list) => _ = list.push(thread, node),
                Self::ShardedList(shards, links) => shard(shards, thread).push(links, node),
                Self::LockedList(list) => lock(list).push(node),
                _ => {}
            }
        }
    }

    #[inline]
    fn operate(&self, thread: Thread) {
        match self {
            Self::RseqCounter(c) => _ = c.add(thread),
            Self::ShardedCounter(c) => _ = c[slot()].0.fetch_add(1, Ordering::Relaxed),
            Self::LockedCounter(c) => *lock(c) += 1,
            Self::RseqList(list) => {
                if let Some(node) = list.pop(thread) {
                    list.push(thread, black_box(node));
                }
            }
            Self::ShardedList(shards, links) => {
                if let Some(node) = shard(shards, thread).pop(links) {
                    shard(shards, thread).push(links, black_box(node));
                }
            }
            Self::LockedList(list) => {
                let node = lock(list).pop();
                if let Some(node) = node {
                    lock(list).push(black_box(node));
                }
            }
            Self::RseqRing(rings) => {
                rings.push(thread, 1);
                black_box(rings.pop(thread));
            }
            Self::ShardedRing(shards) => {
                lock(shard(shards, thread)).push_back(1);
                black_box(lock(shard(shards, thread)).pop_front());
            }
            Self::LockedRing(ring) => {
                lock(ring).push_back(1);
                black_box(lock(ring).pop_front());
            }
        }
    }
}

/// The shard of the CPU that we are on, or were.
fn shard<T>(shards: &[Line<T>], thread: Thread) -> &T {
    &shards[thread.cpu_id() as usize % shards.len()].0
}

/// Nanoseconds of CPU time that an operation costs: `threads` threads work for `time`, on at most as many
/// CPUs as we may use.
///
/// # Errors
/// There is no rseq.
pub fn cost(structure: Structure, by: By, threads: usize, time: Duration) -> Result<f64, RseqError> {
    Thread::current()?;
    let work = Work::new(structure, by);
    let (start, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let cpus = crate::cpus::allowed().map_or(1, |c| c.len()).min(threads);
    std::thread::scope(|s| {
        let threads: Vec<_> = (0..threads as u32)
            .map(|t| {
                let (work, start, stop) = (&work, &start, &stop);
                s.spawn(move || {
                    let thread = Thread::current();
                    if let Ok(thread) = thread {
                        work.stock(thread, (t * 4 % NODES)..(t * 4 % NODES + 4).min(NODES));
                    }
                    start.wait();
                    let (thread, mut n) = (thread?, 0u64);
                    while !stop.load(Ordering::Relaxed) {
                        (0..64).for_each(|_| work.operate(thread));
                        n += 64;
                    }
                    Ok(n)
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let mut operations = 0;
        for thread in threads {
            operations += thread.join().expect("no thread panics")?;
        }
        Ok(began.elapsed().as_nanos() as f64 * cpus as f64 / operations as f64)
    })
}
