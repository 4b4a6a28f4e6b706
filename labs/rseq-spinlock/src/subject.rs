//! The operations that are interfered with, and how to tell that nothing went wrong.
//!
//! Each subject is a structure, an operation that is interrupted, another that a signal handler does to the
//! same structure meanwhile, and what must be true afterwards. Without rseq, each of them goes wrong at some
//! instruction.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::resource::{UsageWho, getrusage};

use crate::percpu::{Counter, CpuLock, FreeList, Rings, possible_cpus};
use crate::sys::rseq::Thread;
use crate::sys::sections::{ByCpu, Kind, Try};
use crate::sys::signal::on_signal;

/// Which operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Add 1; the handler adds 1. Afterwards: 2.
    CounterAdd,
    /// Push node 0; the handler pushes node 1. Afterwards both are there.
    ListPush,
    /// Pop; the handler pops two and pushes the first back (ABA). Afterwards each node is in one place.
    ListPop,
    /// Append; the handler appends. Afterwards both are there.
    RingPush,
    /// Take; the handler takes. Afterwards: not the same one.
    RingPop,
    /// Take the lock; the handler tries. Afterwards one of them has it.
    LockTake,
}

/// All of them.
pub const SUBJECTS: [Subject; 6] = [
    Subject::CounterAdd,
    Subject::ListPush,
    Subject::ListPop,
    Subject::RingPush,
    Subject::RingPop,
    Subject::LockTake,
];

impl Subject {
    /// The section that it is about.
    pub fn kind(self) -> Kind {
        match self {
            Self::CounterAdd => Kind::CounterAdd,
            Self::ListPush => Kind::ListPush,
            Self::ListPop => Kind::ListPop,
            Self::RingPush => Kind::RingPush,
            Self::RingPop => Kind::RingPop,
            Self::LockTake => Kind::LockTake,
        }
    }

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::CounterAdd => "counter add",
            Self::ListPush => "list push",
            Self::ListPop => "list pop",
            Self::RingPush => "ring push",
            Self::RingPop => "ring pop",
            Self::LockTake => "lock take",
        }
    }
}

/// One operation, done.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// How often it was aborted.
    pub aborts: u32,
    /// How often the scheduler preempted the thread meanwhile.
    pub preempted: u32,
    /// Whether the structure is right.
    pub right: bool,
}

/// All structures, each with a slot for every CPU.
struct Structures<const ARMED: bool> {
    counter: Counter<ByCpu, ARMED>,
    list: FreeList<ByCpu, ARMED>,
    rings: Rings<ByCpu, ARMED>,
    lock: CpuLock<ARMED>,
}

impl<const ARMED: bool> Structures<ARMED> {
    fn new() -> Self {
        let n = possible_cpus();
        Self {
            counter: Counter::new(n),
            list: FreeList::new(n, NODES),
            rings: Rings::new(n),
            lock: CpuLock::new(n),
        }
    }
}

static ARMED: OnceLock<Structures<true>> = OnceLock::new();
static UNARMED: OnceLock<Structures<false>> = OnceLock::new();

/// Nodes of the list.
const NODES: u32 = 3;
/// Nothing taken.
const NOTHING: u32 = u32::MAX;

/// What the handler is to do: subject * 2 + armed.
static NOW: AtomicU32 = AtomicU32::new(0);
/// How often it did, and what it has taken.
static MEANWHILE: AtomicU32 = AtomicU32::new(0);
static TAKEN: AtomicU32 = AtomicU32::new(NOTHING);

/// Makes what the child must not allocate. Call before fork.
///
/// # Errors
/// There is no rseq.
pub fn prepare() -> Result<(), crate::sys::rseq::RseqError> {
    Thread::current()?;
    ARMED.get_or_init(Structures::new);
    UNARMED.get_or_init(Structures::new);
    Ok(())
}

/// Does the operation once, with our signal's handler ready to interfere; then empties the structure again.
/// Allocates nothing.
///
/// # Panics
/// Without a [`prepare`].
pub fn run(subject: Subject, armed: bool) -> Done {
    NOW.store(
        SUBJECTS.iter().position(|&s| s == subject).unwrap_or(0) as u32 * 2 + u32::from(armed),
        Ordering::Relaxed,
    );
    MEANWHILE.store(0, Ordering::Relaxed);
    TAKEN.store(NOTHING, Ordering::Relaxed);
    let _ = on_signal(Some(meanwhile));
    if armed { run_on(subject, ARMED.get()) } else { run_on(subject, UNARMED.get()) }
}

/// Preemptions of this thread so far.
fn preemptions() -> u32 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |u| u.involuntary_context_switches() as u32)
}

/// Repeats an attempt until it is not aborted; how often it was.
fn aborts(mut attempt: impl FnMut() -> Try) -> u32 {
    let mut n = 0;
    while attempt() == Try::Aborted {
        n += 1;
    }
    n
}

fn run_on<const A: bool>(subject: Subject, all: Option<&'static Structures<A>>) -> Done {
    let (all, thread) = (all.expect("prepared"), Thread::current().expect("prepared"));
    let mut before = 0;
    let (mut tried, mut taken) = (Try::Aborted, NOTHING);
    match subject {
        Subject::CounterAdd => before = all.counter.sum(),
        Subject::ListPop => {
            (0..NODES).rev().all(|node| all.list.push(thread, node));
        }
        Subject::RingPop => {
            (0..3).all(|value| all.rings.push(thread, value));
        }
        _ => {}
    }
    let preempted = preemptions();
    let aborts = match subject {
        Subject::CounterAdd => aborts(|| all.counter.try_add(thread)),
        Subject::ListPush => aborts(|| all.list.try_push(thread, 0)),
        Subject::ListPop => aborts(|| {
            (tried, taken) = all.list.try_pop(thread);
            tried
        }),
        Subject::RingPush => aborts(|| all.rings.try_push(thread, 10)),
        Subject::RingPop => aborts(|| {
            let value;
            (tried, value) = all.rings.try_pop(thread);
            taken = value as u32;
            tried
        }),
        Subject::LockTake => aborts(|| {
            (tried, _) = all.lock.try_take(thread);
            tried
        }),
    };
    let preempted = preemptions() - preempted;
    let interfered = MEANWHILE.load(Ordering::Relaxed);
    let theirs = TAKEN.load(Ordering::Relaxed);
    let ours = if tried == Try::Done { taken } else { NOTHING };
    // Seen by value: a bit for each, and a count, so that one that is twice there shows.
    let (mut seen, mut count) = (0u32, 0u32);
    let mut see = |value: u32| {
        seen |= 1 << (value % 32);
        count += 1;
    };
    let right = match subject {
        Subject::CounterAdd => all.counter.sum() - before == u64::from(1 + interfered),
        Subject::ListPush => {
            all.list.for_each(&mut see);
            count == 1 + interfered && seen == if interfered > 0 { 0b11 } else { 0b01 }
        }
        Subject::ListPop => {
            [ours, theirs].into_iter().filter(|&v| v != NOTHING).for_each(&mut see);
            all.list.for_each(&mut see);
            count == NODES && seen == 0b111
        }
        Subject::RingPush => {
            all.rings.for_each(|value| see(value as u32));
            count == 1 + interfered
        }
        Subject::RingPop => {
            [ours, theirs].into_iter().filter(|&v| v != NOTHING).for_each(&mut see);
            all.rings.for_each(|value| see(value as u32));
            count == 3 && seen == 0b111
        }
        Subject::LockTake => u32::from(tried == Try::Done) + u32::from(theirs != NOTHING) == all.lock.held(),
    };
    all.list.clear();
    all.rings.clear();
    all.lock.clear();
    Done { aborts, preempted, right }
}

/// What the handler does, on the structure that its thread was just working on.
fn meanwhile() {
    let now = NOW.load(Ordering::Relaxed);
    let subject = SUBJECTS[now as usize / 2 % SUBJECTS.len()];
    if now % 2 == 1 { meanwhile_on(subject, ARMED.get()) } else { meanwhile_on(subject, UNARMED.get()) }
}

fn meanwhile_on<const A: bool>(subject: Subject, all: Option<&'static Structures<A>>) {
    let (Some(all), Ok(thread)) = (all, Thread::current()) else { return };
    MEANWHILE.fetch_add(1, Ordering::Relaxed);
    match subject {
        Subject::CounterAdd => {
            all.counter.add(thread);
        }
        Subject::ListPush => {
            all.list.push(thread, 1);
        }
        Subject::ListPop => {
            let first = all.list.pop(thread);
            let second = all.list.pop(thread);
            if let Some(node) = first {
                all.list.push(thread, node);
            }
            TAKEN.store(second.unwrap_or(NOTHING), Ordering::Relaxed);
        }
        Subject::RingPush => {
            all.rings.push(thread, 20);
        }
        Subject::RingPop => {
            TAKEN.store(all.rings.pop(thread).map_or(NOTHING, |v| v as u32), Ordering::Relaxed)
        }
        Subject::LockTake => {
            if let (Try::Done, cpu) = all.lock.try_take(thread) {
                TAKEN.store(cpu, Ordering::Relaxed);
            }
        }
    }
}
