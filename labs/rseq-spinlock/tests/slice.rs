//! The rseq-aware lock asks for a longer time slice while it is held, and only then. This kernel grants none, or
//! not when told to: the test plays its part. A process of its own, because asking is turned on for all of it.

#![allow(missing_docs, reason = "test")]

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use kit::testing::watchdog;
use nix::unistd::{Pid, gettid};
use rseq_spinlock::Lock;
use rseq_spinlock::locks::RseqAware;
use rseq_spinlock::sys::rseq::Thread;
use rseq_spinlock::sys::signal;
use rseq_spinlock::sys::slice::{Slice, grants};

#[test]
fn the_holder_asks_and_gives_back_what_it_was_granted() {
    let _dog = watchdog(180);
    let thread = match Thread::current() {
        Ok(thread) => thread,
        Err(e) => kit::skip!("rseq", "{e}"),
    };
    let lock = Lock::<RseqAware, u32>::new(0);
    if Slice::enable(thread).is_err() {
        // Before anyone has turned it on, nobody asks.
        let guard = lock.lock();
        assert!(!Slice::simulated(thread).asks());
        drop(guard);
    }
    let slice = Slice::simulated(thread);

    let before = grants();
    let guard = lock.lock();
    assert!(slice.asks());
    drop(guard);
    assert!(!slice.asks());
    assert!(!slice.grant(), "nobody asks, nobody gets");

    // The slice ends inside: granted, and given back with the lock.
    let guard = lock.lock();
    assert!(slice.grant());
    drop(guard);
    assert_eq!(grants() - before, 1);
    slice.grant();

    // Granted, and taken off all the same: nothing to give back.
    let guard = lock.lock();
    assert!(slice.grant());
    assert!(!slice.grant());
    drop(guard);
    assert_eq!(grants() - before, 1);

    a_waiter_does_not_ask(&lock);
}

/// How often the waiter was looked at, and whether it asked: bit 0 stands for a yes.
static LOOKS: AtomicU32 = AtomicU32::new(0);

fn look() {
    if let Ok(thread) = Thread::current() {
        LOOKS.fetch_add(2, Ordering::Relaxed);
        LOOKS.fetch_or(u32::from(Slice::simulated(thread).asks()), Ordering::Relaxed);
    }
}

/// Only whoever holds the lock may run on. A signal handler looks at a waiter while it waits.
fn a_waiter_does_not_ask(lock: &Lock<RseqAware, u32>) {
    signal::on_signal(Some(look)).expect("sigaction");
    let guard = lock.lock();
    let tid = AtomicI32::new(0);
    std::thread::scope(|s| {
        s.spawn(|| {
            tid.store(gettid().as_raw(), Ordering::Relaxed);
            *lock.lock() += 1;
        });
        // Until it sleeps: the count of sleepers is above three flags.
        while sleepers(lock) == 0 {
            std::thread::yield_now();
        }
        while LOOKS.load(Ordering::Relaxed) == 0 {
            signal::send(Pid::from_raw(tid.load(Ordering::Relaxed)));
            std::thread::yield_now();
        }
        assert_eq!(LOOKS.load(Ordering::Relaxed) & 1, 0, "it asked while it waited");
        drop(guard);
    });
}

fn sleepers(lock: &Lock<RseqAware, u32>) -> u32 {
    let all = format!("{lock:?}");
    let state = all.split("state: ").nth(1).and_then(|rest| rest.split([',', ' ', '}']).next());
    state.and_then(|state| state.parse::<u32>().ok()).expect("the lock shows its state") >> 3
}
