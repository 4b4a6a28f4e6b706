//! Spec of exercise 1: a ticket lock, under a model checker that tries every interleaving.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex1.rs"]
mod exercise;

/// What the exercise builds on, modelled.
mod sync {
    pub use loom::sync::atomic::{AtomicU32, Ordering};

    /// Lets the other threads run.
    pub fn spin() {
        loom::thread::yield_now();
    }
}

use exercise::TicketLock;
use kit::spec::property;
use loom::cell::UnsafeCell;
use loom::thread;
use sync::{AtomicU32, Ordering};

/// A lock and what it guards. Leaked: when loom finds something it unwinds, and must not drop what it watches.
struct Shared {
    lock: TicketLock,
    inside: AtomicU32,
    guarded: UnsafeCell<u32>,
}

fn shared(first: u32) -> &'static Shared {
    Box::leak(Box::new(Shared {
        lock: TicketLock::starting_at(first),
        inside: AtomicU32::new(0),
        guarded: UnsafeCell::new(0),
    }))
}

/// Every interleaving of `model` with at most three preemptions.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex1.rs"]
fn numbers_differ() {
    kit::spec::run(|| {
        explore(|| {
            let differ = property(
                "two threads never draw the same number",
                "which one instruction both reads and adds?",
            );
            let all = shared(0);
            let other = thread::spawn(|| -> u32 { all.lock.draw() });
            let mine: u32 = all.lock.draw();
            let theirs = other.join().expect("draw does not panic");
            differ.holds(mine != theirs, "two different numbers", format!("both drew {mine}"));
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex1.rs"]
fn one_at_a_time() {
    kit::spec::run(|| {
        explore(|| {
            let all = shared(0);
            let enter = || {
                let alone = property(
                    "one thread at a time is inside",
                    "may anything happen between looking and taking?",
                );
                all.lock.lock();
                alone.same(0, all.inside.fetch_add(1, Ordering::Relaxed));
                all.inside.fetch_sub(1, Ordering::Relaxed);
                all.lock.unlock();
            };
            let other = thread::spawn(enter);
            enter();
            other.join().expect("the other thread does not panic");
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex1.rs"]
fn what_the_holder_wrote_is_seen() {
    kit::spec::run(|| {
        explore(|| {
            property(
                "what was written under the lock is seen by the next holder",
                "which store does the next holder's load pair with, and how are the two ordered?",
            )
            .holds(true, "", "");
            let all = shared(0);
            let enter = || {
                all.lock.lock();
                // loom watches the cell: two accesses that nothing orders are an error.
                all.guarded.with_mut(|_| ());
                all.lock.unlock();
            };
            let other = thread::spawn(enter);
            if all.lock.try_lock() {
                all.guarded.with_mut(|_| ());
                all.lock.unlock();
            }
            enter();
            other.join().expect("the other thread does not panic");
        });
    });
}

/// Draws three numbers and lets them in; returns the order in which they were called.
fn order(first: u32) -> Vec<u32> {
    let lock = TicketLock::starting_at(first);
    let numbers: [u32; 3] = [lock.draw(), lock.draw(), lock.draw()];
    let mut called = Vec::new();
    for _ in numbers {
        called.extend(numbers.iter().copied().filter(|n| -> bool { lock.is_called(*n) }));
        lock.unlock();
    }
    called
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex1.rs"]
fn first_come_first_served() {
    kit::spec::run(|| {
        explore(|| {
            property(
                "numbers are called one by one, in the order drawn",
                "what does unlock do to the number?",
            )
            .same(vec![7, 8, 9], order(7));
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex1.rs"]
fn numbers_wrap_around() {
    kit::spec::run(|| {
        explore(|| {
            property("the lock works on when its numbers wrap around", "what comes after u32::MAX?")
                .same(vec![u32::MAX - 1, u32::MAX, 0], order(u32::MAX - 1));
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/rseq-spinlock/exercises/ex1.rs"]
fn try_lock_leaves_nothing_behind() {
    kit::spec::run(|| {
        explore(|| {
            let all = shared(u32::MAX);
            let free = property("try_lock takes a lock that is free", "when is the lock free?");
            free.same(true, all.lock.try_lock());
            property("try_lock does not take a lock that is held", "when is the lock free?")
                .same(false, all.lock.try_lock());
            let waits: u32 = all.lock.draw();
            all.lock.unlock();
            let next = "a number that was drawn must be used: can it be drawn only if it is called at once?";
            property("a try_lock that fails changes nothing", next).holds(
                all.lock.is_called(waits),
                format!("{waits}, drawn after a try_lock failed, is called next"),
                "it is not called",
            );
            property("try_lock goes before nobody who waits", "when is the lock free?")
                .same(false, all.lock.try_lock());
            all.lock.unlock();
            free.same(true, all.lock.try_lock());
        });
    });
}
