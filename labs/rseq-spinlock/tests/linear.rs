//! Linearizability: each operation on a per-CPU structure takes effect at one moment between its call and its
//! return.
//!
//! Short histories are recorded, of a thread and of someone who comes in the middle of its operations: a signal
//! handler, or another thread on the same CPU; then we look for an order that a plain stack or queue could have had (Wing and Gong 1993).

#![allow(missing_docs, reason = "test")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::gettid;
use rseq_spinlock::cpus;
use rseq_spinlock::percpu::{FreeList, Rings, possible_cpus};
use rseq_spinlock::sys::rseq::Thread;
use rseq_spinlock::sys::signal;

/// An operation with what it returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Put(u32),
    Got(u32),
    Empty,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    from: u64,
    to: u64,
    op: Op,
}

/// Whether the calls have an order that respects time and that `last_in_first_out` (or first in) explains.
fn linearizable(calls: &[Call], lifo: bool) -> bool {
    fn search(calls: &[Call], done: u64, state: &mut VecDeque<u32>, lifo: bool) -> bool {
        if done.count_ones() as usize == calls.len() {
            return true;
        }
        let open = |i: usize| done & 1 << i == 0;
        // Only what was called before any open call returned can be next.
        let first_return = (0..calls.len()).filter(|&i| open(i)).map(|i| calls[i].to).min().unwrap_or(0);
        for i in (0..calls.len()).filter(|&i| open(i) && calls[i].from < first_return) {
            let before = state.clone();
            let possible = match calls[i].op {
                Op::Put(v) => {
                    state.push_back(v);
                    true
                }
                Op::Got(v) => (if lifo { state.pop_back() } else { state.pop_front() }) == Some(v),
                Op::Empty => state.is_empty(),
            };
            if possible && search(calls, done | 1 << i, state, lifo) {
                return true;
            }
            *state = before;
        }
        false
    }
    search(calls, 0, &mut VecDeque::new(), lifo)
}

#[test]
fn the_checker_can_tell() {
    let call = |from, to, op| Call { from, to, op };
    let stack = [call(0, 1, Op::Put(1)), call(2, 3, Op::Put(2)), call(4, 5, Op::Got(2))];
    assert!(linearizable(&stack, true));
    assert!(!linearizable(&stack, false));
    // Overlapping puts: either order will do.
    let overlap = [call(0, 3, Op::Put(1)), call(1, 2, Op::Put(2)), call(4, 5, Op::Got(1))];
    assert!(linearizable(&overlap, true) && linearizable(&overlap, false));
    // Got twice.
    let twice = [call(0, 1, Op::Put(1)), call(2, 3, Op::Got(1)), call(4, 5, Op::Got(1))];
    assert!(!linearizable(&twice, true));
}

const TIME: Duration = Duration::from_millis(500);

/// What the thread and the handler work on, and their log: fixed, because a handler must not allocate.
struct Shared {
    list: FreeList,
    rings: Rings,
    lifo: AtomicBool,
    /// Whether a round is on.
    active: AtomicBool,
    /// Whether the other thread may be at an operation. SeqCst, as `active`: one of the two sees the other's store.
    busy: AtomicBool,
    clock: AtomicU64,
    next: AtomicU32,
    log: [[AtomicU64; 3]; 24],
    value: AtomicU32,
}

static SHARED: OnceLock<Shared> = OnceLock::new();
/// One test at a time has it.
static ALONE: Mutex<()> = Mutex::new(());

impl Shared {
    fn new() -> Self {
        let n = possible_cpus();
        Self {
            list: FreeList::new(n, 64),
            rings: Rings::new(n),
            lifo: AtomicBool::new(true),
            active: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            clock: AtomicU64::new(0),
            next: AtomicU32::new(0),
            log: [const { [const { AtomicU64::new(0) }; 3] }; 24],
            value: AtomicU32::new(0),
        }
    }

    /// One operation, logged.
    fn operate(&self, thread: Thread, put: bool) {
        let i = self.next.fetch_add(1, Ordering::SeqCst) as usize;
        let Some(entry) = self.log.get(i) else { return };
        // A value of its own for each put; never a node that is on the list.
        let value = self.value.fetch_add(1, Ordering::SeqCst) % 64;
        let from = self.clock.fetch_add(1, Ordering::SeqCst);
        let got = match (self.lifo.load(Ordering::Relaxed), put) {
            (true, true) => self.list.push(thread, value).then_some(value),
            (true, false) => self.list.pop(thread),
            (false, true) => self.rings.push(thread, u64::from(value)).then_some(value),
            (false, false) => self.rings.pop(thread).map(|v| v as u32),
        };
        let to = self.clock.fetch_add(1, Ordering::SeqCst);
        let code = got.map_or(0, |v| 1 + u64::from(put) + 2 * u64::from(v));
        for (word, value) in entry.iter().zip([from, to, code]) {
            word.store(value, Ordering::SeqCst);
        }
    }

    /// The log as calls; and ready for the next round.
    fn take(&self) -> Vec<Call> {
        let n = self.next.swap(0, Ordering::SeqCst) as usize;
        let calls = self.log[..n.min(self.log.len())].iter().map(|entry| {
            let [from, to, code] = [0, 1, 2].map(|i| entry[i].load(Ordering::SeqCst));
            let value = |c: u64| ((c - 1) / 2) as u32;
            let op = match code {
                0 => Op::Empty,
                c if c % 2 == 0 => Op::Put(value(c)),
                c => Op::Got(value(c)),
            };
            Call { from, to, op }
        });
        let calls = calls.collect();
        self.list.clear();
        self.rings.clear();
        calls
    }
}

/// In the handler, or the other thread: a put and a take, in the middle of whatever the thread was doing.
fn interfere() {
    if let (Some(shared), Ok(thread)) = (SHARED.get(), Thread::current())
        && shared.active.load(Ordering::SeqCst)
    {
        shared.operate(thread, true);
        shared.operate(thread, false);
    }
}

/// A third thread wakes the second every now and then, which then preempts the first, on the same CPU.
#[test]
fn histories_of_two_threads_on_one_cpu_are_linearizable() {
    let _dog = kit::testing::watchdog(180);
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(e) = Thread::current() {
        kit::skip!("rseq", "{e}");
    }
    let shared = SHARED.get_or_init(Shared::new);
    let until = Instant::now() + TIME;
    let (rounds, _) = std::thread::scope(|s| {
        let other = s.spawn(move || {
            cpus::pin(cpus::ME, cpus::allowed().expect("affinity")[0]).expect("allowed");
            while Instant::now() < until {
                std::thread::park();
                shared.busy.store(true, Ordering::SeqCst);
                interfere();
                shared.busy.store(false, Ordering::SeqCst);
            }
        });
        let other = other.thread().clone();
        s.spawn(move || {
            while Instant::now() < until {
                other.unpark();
                std::thread::sleep(Duration::from_micros(20));
            }
            other.unpark();
        });
        rounds(shared, until)
    });
    // How often it comes in the middle is up to the scheduler: some hundred times a second. Without rseq, histories go
    // wrong within the half second.
    assert!(rounds > 0);
}

#[test]
fn histories_of_list_and_ring_are_linearizable() {
    let _dog = kit::testing::watchdog(180);
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(e) = Thread::current() {
        kit::skip!("rseq", "{e}");
    }
    let shared = SHARED.get_or_init(Shared::new);
    signal::on_signal(Some(interfere)).expect("sigaction");
    let (rounds, overlaps) = std::thread::scope(|s| {
        let (tid, until) = (gettid(), Instant::now() + TIME);
        s.spawn(move || {
            while Instant::now() < until {
                signal::send(tid);
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        rounds(shared, until)
    });
    signal::on_signal(None).expect("sigaction");
    assert!(rounds > 0 && overlaps > 0, "{rounds} rounds, {overlaps} with an operation inside another");
}

/// Rounds of twelve operations, each checked; how many, and in how many one operation ran inside another.
fn rounds(shared: &Shared, until: Instant) -> (u64, u64) {
    // On one CPU, or a put and its take are not on the same list.
    cpus::pin(cpus::ME, cpus::allowed().expect("affinity")[0]).expect("allowed");
    let thread = Thread::current().expect("checked");
    let (mut rounds, mut overlaps) = (0, 0);
    while Instant::now() < until {
        let lifo = rounds % 2 == 0;
        shared.lifo.store(lifo, Ordering::Relaxed);
        shared.active.store(true, Ordering::SeqCst);
        for i in 0..12 {
            shared.operate(thread, i % 3 != 2);
        }
        shared.active.store(false, Ordering::SeqCst);
        while shared.busy.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let calls = shared.take();
        overlaps += u64::from(calls.iter().any(|a| calls.iter().any(|b| a.from < b.from && b.to < a.to)));
        // A full log may miss operations: no verdict.
        if calls.len() < shared.log.len() {
            assert!(linearizable(&calls, lifo), "round {rounds}: {calls:?}");
        }
        rounds += 1;
    }
    (rounds, overlaps)
}
