//! The locks' own source, compiled against loom: every order in which two or three threads can interleave,
//! and every value a relaxed load may return, is tried.
//!
//! What is modelled and not real: a futex is a mutex and a condition variable; the asymmetric barriers are
//! two SeqCst fences; "which CPU am I on" is a constant for each model; turns never end, or at once. loom's
//! futex orders a little more than the kernel's promise, so an ordering that a sleeper relies on is tested
//! less strictly than the rest.

#![allow(missing_docs, reason = "test")]
#![allow(dead_code, reason = "the models use part of what they include")]

#[path = "../src/locks/mod.rs"]
mod locks;
#[path = "../src/raw.rs"]
mod raw;

/// The facade of `src/sync.rs`, modelled.
mod sync {
    use std::cell::Cell;
    use std::ops::Deref;

    pub use loom::sync::atomic::{AtomicU32, Ordering};

    pub const SLOTS: usize = 3;
    pub const LOOKS: u32 = 2;
    pub const SPINS: u32 = 1;
    pub const YIELDS: u32 = 1;
    pub const GLANCE: u32 = 1;

    thread_local! {
        // loom runs each model's threads as coroutines on one OS thread.
        static TURNS: Cell<bool> = const { Cell::new(false) };
        static CPUS: Cell<[Option<u32>; SLOTS]> = const { Cell::new([None; SLOTS]) };
    }

    loom::thread_local! {
        static SLOT: Cell<usize> = Cell::new(usize::MAX);
        static SPUN: Cell<u32> = Cell::new(0);
    }

    /// What the machine is like, for the models that follow on this thread.
    pub fn world(turns: bool, cpus: [Option<u32>; SLOTS]) {
        TURNS.set(turns);
        CPUS.set(cpus);
    }

    pub fn set_slot(slot: usize) {
        SLOT.with(|s| s.set(slot));
    }

    pub fn slot() -> usize {
        SLOT.with(Cell::get)
    }

    pub fn cpu() -> Option<u32> {
        CPUS.get()[slot()]
    }

    /// loom 0.7 lets a swap read its own thread's last swap although another thread has stored since: two
    /// spinning swaps never end. Setting a flag that is set already changes nothing, so here a swap stores
    /// only where it changes the value.
    #[derive(Debug)]
    pub struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value))
        }

        pub fn swap(&self, value: bool, order: Ordering) -> bool {
            self.0.compare_exchange(!value, value, order, Ordering::Relaxed).unwrap_or_else(|now| now)
        }
    }

    impl Deref for AtomicBool {
        type Target = loom::sync::atomic::AtomicBool;
        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    /// Lets the others run. Spinning on and on changes nothing, yet each round is another interleaving: after
    /// a few, we go on with this one and no longer branch off it.
    pub fn spin() {
        let n = SPUN.with(|s| s.replace(s.get() + 1));
        if n > 3 {
            loom::skip_branch();
        }
        loom::thread::yield_now();
    }

    pub fn spin_for(_: u32) {
        spin();
    }

    pub fn yield_cpu() {
        spin();
    }

    pub fn ask_for_time() {}

    pub fn no_more_time() {}

    pub fn now() -> u32 {
        0
    }

    /// Always or never: each release in a crowd hands over, or none does.
    pub fn turn_over(_: u32) -> bool {
        TURNS.get()
    }

    pub fn prepare_barriers() {}

    pub fn light_barrier() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    pub fn heavy_barrier() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    #[derive(Debug)]
    pub struct Futex {
        word: AtomicU32,
        bucket: loom::sync::Mutex<()>,
        sleepers: loom::sync::Condvar,
    }

    impl Futex {
        pub fn new(value: u32) -> Self {
            Self {
                word: AtomicU32::new(value),
                bucket: loom::sync::Mutex::new(()),
                sleepers: loom::sync::Condvar::new(),
            }
        }

        pub fn wait(&self, expected: u32) {
            let bucket = self.bucket.lock().unwrap();
            if self.word.load(Ordering::Relaxed) == expected {
                drop(self.sleepers.wait(bucket).unwrap());
            }
        }

        pub fn wake(&self, n: i32) {
            let _bucket = self.bucket.lock().unwrap();
            if n == 1 { self.sleepers.notify_one() } else { self.sleepers.notify_all() }
        }
    }

    impl Deref for Futex {
        type Target = AtomicU32;
        fn deref(&self) -> &AtomicU32 {
            &self.word
        }
    }
}

use loom::cell::UnsafeCell;
use loom::thread;
use raw::{RawLock, sealed::Sealed};
use sync::{AtomicU32, Ordering, set_slot, world};

/// A lock and a cell that loom watches: two accesses that nothing orders are an error.
struct Guarded<R> {
    lock: R,
    data: UnsafeCell<u32>,
    entered: AtomicU32,
}

/// `threads` threads enter `times` times each. Exclusion: loom watches the cell, and no entry is lost.
/// Progress: a lost wake-up is a deadlock, which loom reports.
fn model<R: RawLock + Send + 'static>(threads: usize, times: usize, preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;

    builder.check(move || {
        // Leaked, not counted: when loom reports a deadlock it unwinds, and dropping one of its Arcs then
        // panics again.
        let shared: &'static Guarded<R> = Box::leak(Box::new(Guarded {
            lock: R::new(),
            data: UnsafeCell::new(0),
            entered: AtomicU32::new(0),
        }));
        let enter = move || {
            for _ in 0..times {
                let token = shared.lock.acquire();
                shared.data.with_mut(|_| ());
                // Relaxed load and store: only the lock makes this an increment.
                let n = shared.entered.load(Ordering::Relaxed);
                shared.entered.store(n + 1, Ordering::Relaxed);
                shared.lock.release(token);
            }
        };
        let others: Vec<_> = (1..threads)
            .map(|slot| {
                thread::spawn(move || {
                    set_slot(slot);
                    enter();
                })
            })
            .collect();
        set_slot(0);
        enter();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.entered.load(Ordering::Relaxed) as usize, threads * times);
    });
}

/// Two threads twice, and three threads once.
fn check<R: RawLock + Send + 'static>() {
    model::<R>(2, 2, 3);
    model::<R>(3, 1, 2);
}

#[test]
fn tas() {
    check::<locks::Tas>();
}

#[test]
fn ttas() {
    check::<locks::Ttas>();
}

#[test]
fn backoff() {
    check::<locks::Backoff>();
}

#[test]
fn ticket() {
    check::<locks::Ticket>();
}

#[test]
fn mcs() {
    check::<locks::Mcs>();
}

#[test]
fn clh() {
    check::<locks::Clh>();
}

#[test]
fn futex() {
    check::<locks::FutexMutex>();
}

#[test]
fn adaptive() {
    check::<locks::Adaptive>();
}

#[test]
fn parking() {
    for turns in [false, true] {
        world(turns, [None; 3]);
        check::<locks::Parking>();
    }
}

#[test]
fn rseq_aware() {
    for turns in [false, true] {
        // All on one CPU, on different ones, unknown.
        for cpus in [[Some(0); 3], [Some(0), Some(1), Some(0)], [None; 3]] {
            world(turns, cpus);
            model::<locks::RseqAware>(2, 2, 3);
        }
        // Three threads take most of the time: only where both kinds of waiter meet.
        world(turns, [Some(0), Some(1), Some(0)]);
        model::<locks::RseqAware>(3, 1, 2);
    }
}

/// The model can fail: a mutex with two states, whose unlock wakes only if it saw a sleeper before it freed
/// the word.
#[derive(Debug)]
struct LosesWakeUps {
    held: sync::Futex,
    sleepers: AtomicU32,
}

impl Sealed for LosesWakeUps {}

impl RawLock for LosesWakeUps {
    type Token = ();
    const NAME: &'static str = "loses_wake_ups";

    fn new() -> Self {
        Self { held: sync::Futex::new(0), sleepers: AtomicU32::new(0) }
    }

    fn acquire(&self) {
        while self.held.swap(1, Ordering::Acquire) == 1 {
            self.sleepers.fetch_add(1, Ordering::Relaxed);
            self.held.wait(1);
            self.sleepers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn release(&self, (): ()) {
        let wake = self.sleepers.load(Ordering::Relaxed) > 0;
        self.held.store(0, Ordering::Release);
        if wake {
            self.held.wake(1);
        }
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lost_wake_up_is_found() {
    check::<LosesWakeUps>();
}

/// The model can fail: a lock whose release orders nothing.
#[derive(Debug)]
struct Unordered(sync::AtomicBool);

impl Sealed for Unordered {}

impl RawLock for Unordered {
    type Token = ();
    const NAME: &'static str = "unordered";

    fn new() -> Self {
        Self(sync::AtomicBool::new(false))
    }

    fn acquire(&self) {
        while self.0.swap(true, Ordering::Acquire) {
            sync::spin();
        }
    }

    fn release(&self, (): ()) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_missing_release_is_found() {
    check::<Unordered>();
}
