//! Spec of exercise 2: the MCS lock, under a model checker that tries every interleaving.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex2.rs"]
mod exercise;
#[allow(dead_code, reason = "a starter uses nothing yet")]
mod word;

/// What the exercise builds on, modelled; and who waits where, watched.
#[allow(dead_code, reason = "a starter uses nothing yet")]
mod sync {
    use std::cell::Cell;
    use std::ops::Deref;

    use super::watch::{BEFORE, LAST, ME, ROUNDS, WAITED_AT};
    #[allow(unused_imports, reason = "a starter uses nothing yet")]
    pub use super::word::Ordering;
    use super::word::Word;
    use kit::spec::property;

    /// Rounds of one wait after which nobody believes that it will end.
    const MANY: u32 = 300;

    pub struct AtomicU32(Word);

    impl AtomicU32 {
        pub fn new(value: u32) -> Self {
            Self(Word::new(value))
        }
    }

    /// Every access passes here. A word that was the last before two rounds of `spin` is one that is waited at.
    impl Deref for AtomicU32 {
        type Target = Word;
        fn deref(&self) -> &Self::Target {
            LAST.with(|last| last.set(std::ptr::from_ref(self).addr()));
            &self.0
        }
    }

    /// Lets the other threads run.
    pub fn spin() {
        let rounds = ROUNDS.with(|n| n.replace(n.get() + 1));
        property(
            "who waits is called in the end",
            "what if somebody joins between your look and what you do then?",
        )
        .holds(rounds < MANY, "an end of the wait", format!("more than {MANY} rounds"));
        let (me, place) = (ME.with(Cell::get), LAST.with(Cell::get));
        if BEFORE.with(|before| before.replace(place)) == place {
            let other = WAITED_AT.with_borrow_mut(|map| *map.entry(place).or_insert(me));
            property(
                "nobody waits at a word at which another thread waits",
                "in whose node is what you look at?",
            )
            .holds(
                other == me,
                format!("thread {me} at a word of its own"),
                format!("thread {other} has waited there, too"),
            );
        }
        // Further rounds change nothing, yet each is another interleaving: go on with this one.
        if rounds > 3 {
            loom::skip_branch();
        }
        loom::thread::yield_now();
    }
}

/// What `sync` watches. Not in there, where the exercise could say that it is another thread.
#[allow(dead_code, reason = "a starter uses nothing yet")]
mod watch {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    loom::thread_local! {
        pub static ME: Cell<u32> = Cell::new(0);
        // The word accessed last; and that before the last `spin`.
        pub static LAST: Cell<usize> = Cell::new(0);
        pub static BEFORE: Cell<usize> = Cell::new(0);
        pub static ROUNDS: Cell<u32> = Cell::new(0);
    }

    thread_local! {
        // loom runs each model's threads as coroutines on one OS thread.
        pub static WAITED_AT: RefCell<BTreeMap<usize, u32>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Says which thread this is, for the watch, and that it waits for something new.
    pub fn i_am(me: u32) {
        ME.with(|cell| cell.set(me));
        BEFORE.with(|before| before.set(0));
    }

    pub fn forget() {
        WAITED_AT.with_borrow_mut(BTreeMap::clear);
    }
}

use exercise::Mcs;
use kit::spec::property;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use watch::{forget, i_am};

/// A lock and what it guards. Leaked: when loom finds something it unwinds, and must not drop what it watches.
struct Shared {
    lock: Mcs,
    inside: AtomicU32,
    guarded: UnsafeCell<u32>,
}

/// `threads` threads, each of which calls `enter` so many times, in every interleaving with at most so many preemptions.
fn explore(threads: u32, times: u32, preemptions: usize, enter: fn(&'static Shared, u32)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        forget();
        let all: &'static Shared = Box::leak(Box::new(Shared {
            lock: Mcs::new(threads),
            inside: AtomicU32::new(0),
            guarded: UnsafeCell::new(0),
        }));
        let run = move |me| {
            (0..times).for_each(|_| {
                i_am(me);
                enter(all, me);
            });
        };
        let others: Vec<_> = (1..threads).map(|me| thread::spawn(move || run(me))).collect();
        run(0);
        others.into_iter().for_each(|other| other.join().expect("no thread panics"));
    });
}

/// One thread does all: no interleavings.
fn alone(test: fn()) {
    loom::model(test);
}

/// Leaked, as above.
fn lock(threads: u32) -> &'static Mcs {
    Box::leak(Box::new(Mcs::new(threads)))
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex2.rs"]
fn first_come_first_served() {
    kit::spec::run(|| {
        alone(|| {
            let lock = lock(4);
            let free = property(
                "who finds the queue empty holds the lock, and nobody else does",
                "what was the tail before?",
            );
            free.same([true, false, false, false], [2, 0, 3, 1].map(|me| lock.join(me)));
            let order = property(
                "an unlock calls the next in the order of arrival",
                "who told whom that it comes next?",
            );
            for (holder, next, waiting) in [(2, 0, &[0, 3, 1][..]), (0, 3, &[3, 1]), (3, 1, &[1])] {
                order
                    .same(vec![false; waiting.len()], waiting.iter().map(|me| lock.is_called(*me)).collect());
                lock.unlock(holder);
                order.same((next, true), (next, lock.is_called(next)));
            }
            lock.unlock(1);
            free.same(true, lock.join(3));
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex2.rs"]
fn a_node_can_be_used_again() {
    kit::spec::run(|| {
        alone(|| {
            let lock = lock(3);
            let what = property(
                "what a node said last time does not count",
                "which words of it are as you left them?",
            );
            for round in 0..3 {
                what.same((round, true, false), (round, lock.join(0), lock.join(1)));
                what.same((round, false), (round, lock.is_called(1)));
                lock.unlock(0);
                what.same((round, true), (round, lock.is_called(1)));
                lock.unlock(1);
                // Nobody is behind it this time.
                what.same((round, true), (round, lock.join(0)));
                lock.unlock(0);
                what.same((round, true), (round, lock.join(2)));
                lock.unlock(2);
            }
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex2.rs"]
fn try_lock_leaves_nothing_behind() {
    kit::spec::run(|| {
        alone(|| {
            let lock = lock(3);
            let free = property("try_lock takes a lock that is free", "when is the lock free?");
            free.same(true, lock.try_lock(0));
            let held = property(
                "a try_lock that fails changes nothing",
                "what does a swap do that a compare_exchange does not?",
            );
            held.same(false, lock.try_lock(1));
            held.same((false, false), (lock.join(2), lock.try_lock(1)));
            lock.unlock(0);
            held.same(true, lock.is_called(2));
            held.same(false, lock.try_lock(1));
            lock.unlock(2);
            free.same(true, lock.try_lock(1));
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex2.rs"]
fn one_at_a_time() {
    kit::spec::run(|| {
        let enter = |all: &'static Shared, me| {
            let alone =
                property("one thread at a time is inside", "may anything happen between looking and taking?");
            all.lock.lock(me);
            alone.same(0, all.inside.fetch_add(1, Ordering::Relaxed));
            all.inside.fetch_sub(1, Ordering::Relaxed);
            all.lock.unlock(me);
        };
        explore(2, 2, 3, enter);
        explore(3, 1, 2, enter);
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex2.rs"]
fn nobody_is_forgotten() {
    kit::spec::run(|| {
        let named = || {
            property(
                "who has joined is called, also if it joined while the holder left",
                "the queue looks empty: is it, and may it change before you say so?",
            )
            .holds(true, "", "");
        };
        named();
        explore(2, 2, 3, |all, me| {
            all.lock.lock(me);
            all.lock.unlock(me);
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex2.rs"]
fn each_waits_at_a_word_of_its_own() {
    kit::spec::run(|| {
        property(
            "nobody waits at a word at which another thread waits",
            "in whose node is what you look at?",
        )
        .holds(true, "", "");
        explore(3, 1, 2, |all, me| {
            all.lock.lock(me);
            all.lock.unlock(me);
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex2.rs"]
fn what_the_holder_wrote_is_seen() {
    kit::spec::run(|| {
        property(
            "what was written under the lock is seen by the next holder",
            "by which store does the next holder learn that it is called, or that the queue is empty?",
        )
        .holds(true, "", "");
        let enter = |all: &'static Shared, me| {
            // loom watches the cell: two accesses that nothing orders are an error.
            all.lock.lock(me);
            all.guarded.with_mut(|_| ());
            all.lock.unlock(me);
            if all.lock.try_lock(me) {
                all.guarded.with_mut(|_| ());
                all.lock.unlock(me);
            }
        };
        explore(2, 1, 3, enter);
    });
}
