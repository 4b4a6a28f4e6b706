//! Spec of exercise 4: spin, then park, under a model checker that tries every interleaving.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex4.rs"]
mod exercise;
#[allow(dead_code, reason = "a starter uses nothing yet")]
mod word;

/// What the exercise builds on, modelled, and counted.
#[allow(dead_code, reason = "a starter uses nothing yet")]
mod sync {
    use std::ops::Deref;

    use super::counted::{SPUN, WAITS, WAKES, WOKEN};
    #[allow(unused_imports, reason = "a starter uses nothing yet")]
    pub use super::word::Ordering;
    use super::word::Word;
    use loom::sync::{Condvar, Mutex};

    /// Looks at a held lock before a waiter parks.
    pub const SPINS: u32 = 2;

    /// A word on which threads sleep: a mutex and a condition variable.
    pub struct Futex {
        word: Word,
        bucket: Mutex<()>,
        sleepers: Condvar,
    }

    impl Futex {
        pub fn new(value: u32) -> Self {
            Self { word: Word::new(value), bucket: Mutex::new(()), sleepers: Condvar::new() }
        }

        pub fn wait(&self, expected: u32) {
            WAITS.set(WAITS.get() + 1);
            let bucket = self.bucket.lock().expect("nobody panics in here");
            if self.word.load(Ordering::Relaxed) == expected {
                drop(self.sleepers.wait(bucket).expect("nobody panics in here"));
            }
        }

        pub fn wake(&self, n: i32) {
            WAKES.set(WAKES.get() + 1);
            WOKEN.set(WOKEN.get().max(n));
            let _bucket = self.bucket.lock().expect("nobody panics in here");
            if n == 1 { self.sleepers.notify_one() } else { self.sleepers.notify_all() }
        }
    }

    impl Deref for Futex {
        type Target = Word;
        fn deref(&self) -> &Self::Target {
            &self.word
        }
    }

    /// Between two looks. The model checker lets the others run in between, or not: it tries both.
    pub fn spin() {
        let spun = SPUN.with(|n| n.replace(n.get() + 1));
        super::not_for_ever(spun);
    }
}

/// What `sync` counts. Not in there, where the exercise could count as well.
mod counted {
    use std::cell::Cell;

    thread_local! {
        // loom runs each model's threads as coroutines on one OS thread.
        pub static WAITS: Cell<u32> = const { Cell::new(0) };
        pub static WAKES: Cell<u32> = const { Cell::new(0) };
        /// The most that one call wanted to wake.
        pub static WOKEN: Cell<i32> = const { Cell::new(0) };
    }

    loom::thread_local! {
        /// Of this thread.
        pub static SPUN: Cell<u32> = Cell::new(0);
    }

    /// Forgets what was counted.
    pub fn start() {
        WAITS.set(0);
        WAKES.set(0);
        WOKEN.set(0);
    }
}

use std::cell::Cell;

use counted::{SPUN, WAITS, WAKES, WOKEN};
use exercise::Mutex;
use kit::spec::property;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use sync::SPINS;

/// Who spins this often has not the intention to park.
fn not_for_ever(spun: u32) {
    property("a waiter looks at most SPINS times, then it parks", "what counts the looks?").holds(
        spun < 50,
        format!("{SPINS} looks for each lock"),
        format!("{spun} looks of one thread"),
    );
}

/// A lock and what it guards. Leaked: when loom finds something it unwinds, and must not drop what it watches.
struct Shared {
    lock: Mutex,
    inside: AtomicU32,
    guarded: UnsafeCell<u32>,
}

fn shared() -> &'static Shared {
    Box::leak(Box::new(Shared { lock: Mutex::new(), inside: AtomicU32::new(0), guarded: UnsafeCell::new(0) }))
}

/// Every interleaving with at most so many preemptions.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        counted::start();
        model();
    });
}

/// `threads` threads, each of which calls `enter` so many times.
fn all_enter(threads: u32, times: u32, preemptions: usize, enter: fn(&'static Shared)) {
    explore(preemptions, move || {
        let all = shared();
        let run = move || (0..times).for_each(|_| enter(all));
        let others: Vec<_> = (1..threads).map(|_| thread::spawn(run)).collect();
        run();
        others.into_iter().for_each(|other| other.join().expect("no thread panics"));
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex4.rs"]
fn alone_it_never_enters_the_kernel() {
    kit::spec::run(|| {
        explore(0, || {
            let all = shared();
            for _ in 0..3 {
                all.lock.lock();
                all.lock.unlock();
            }
            property(
                "where nobody waits there is no system call",
                "how does unlock know that nobody sleeps?",
            )
            .same((0, 0), (WAITS.get(), WAKES.get()));
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex4.rs"]
fn one_at_a_time() {
    kit::spec::run(|| {
        let enter = |all: &'static Shared| {
            let alone =
                property("one thread at a time is inside", "may anything happen between looking and taking?");
            all.lock.lock();
            alone.same(0, all.inside.fetch_add(1, Ordering::Relaxed));
            all.inside.fetch_sub(1, Ordering::Relaxed);
            all.lock.unlock();
        };
        all_enter(2, 1, 3, enter);
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex4.rs"]
fn what_the_holder_wrote_is_seen() {
    kit::spec::run(|| {
        property(
            "what was written under the lock is seen by the next holder",
            "which store does the next holder's access pair with, and how are the two ordered?",
        )
        .holds(true, "", "");
        let enter = |all: &'static Shared| {
            // loom watches the cell: two accesses that nothing orders are an error.
            if all.lock.try_lock() {
                all.guarded.with_mut(|_| ());
                all.lock.unlock();
            }
            all.lock.lock();
            all.guarded.with_mut(|_| ());
            all.lock.unlock();
        };
        all_enter(2, 1, 3, enter);
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex4.rs"]
fn no_wake_up_is_lost() {
    kit::spec::run(|| {
        property(
            "no thread sleeps for ever (\"deadlock\" below: one does)",
            "who wakes the second sleeper? And what if one goes to sleep while the lock is being given up?",
        )
        .holds(true, "", "");
        let enter = |all: &'static Shared| {
            all.lock.lock();
            all.lock.unlock();
        };
        all_enter(2, 2, 2, enter);
        all_enter(3, 1, 2, enter);
    });
}

/// A thread that locks once; how often it has looked.
fn waiter(all: &'static Shared) -> thread::JoinHandle<u32> {
    thread::spawn(move || {
        all.lock.lock();
        let spun = SPUN.with(Cell::get);
        all.lock.unlock();
        spun
    })
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex4.rs"]
fn it_spins_and_then_parks() {
    kit::spec::run(|| {
        // Over all interleavings: whether a waiter got the lock without parking, and after how many looks one parked.
        static WITHOUT: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        static PARKED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        explore(3, || {
            let all = shared();
            all.lock.lock();
            let waiter = waiter(all);
            all.lock.unlock();
            let spun = waiter.join().expect("it does not panic");
            property("a waiter looks at most SPINS times, then it parks", "what counts the looks?").holds(
                spun <= SPINS,
                format!("at most {SPINS} looks"),
                spun,
            );
            let parked = WAITS.get() > 0;
            if parked {
                PARKED.store(true, std::sync::atomic::Ordering::Relaxed);
                property("a waiter looks SPINS times before it parks", "when does it give up?")
                    .same(SPINS, spun);
            }
            if spun > 0 && !parked {
                WITHOUT.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        });
        property(
            "a lock that is given up soon is taken without a system call",
            "what does a waiter do between two looks?",
        )
        .holds(
            WITHOUT.load(std::sync::atomic::Ordering::Relaxed),
            "an interleaving in which it is",
            "none",
        );
        property("a waiter parks in the end", "what does it do after the last look?").holds(
            PARKED.load(std::sync::atomic::Ordering::Relaxed),
            "an interleaving in which it does",
            "none",
        );
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex4.rs"]
fn try_lock_leaves_nothing_behind() {
    kit::spec::run(|| {
        explore(2, || {
            let all = shared();
            let free = property("try_lock takes a lock that is free, and only that", "when is it free?");
            free.same((true, false), (all.lock.try_lock(), all.lock.try_lock()));
            let waiter = waiter(all);
            property(
                "a try_lock that fails forgets no sleeper (\"deadlock\" below: one sleeps for ever)",
                "what does the state say when somebody sleeps, and what does it say after your try_lock?",
            )
            .same(false, all.lock.try_lock());
            all.lock.unlock();
            waiter.join().expect("it does not panic");
            free.same(true, all.lock.try_lock());
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex4.rs"]
fn one_is_woken_at_a_time() {
    kit::spec::run(|| {
        explore(1, || {
            let all = shared();
            all.lock.lock();
            let waiters = [waiter(all), waiter(all)];
            all.lock.unlock();
            for waiter in waiters {
                waiter.join().expect("it does not panic");
            }
            property("a wake-up is for one thread", "how many can have the lock?").holds(
                WOKEN.get() <= 1,
                "wake(1)",
                format!("wake({})", WOKEN.get()),
            );
            property("an unlock wakes once at most", "what does a second call tell that the first did not?")
                .holds(WAKES.get() <= 3, "3 unlocks, at most 3 calls", format!("{} calls", WAKES.get()));
        });
    });
}
