//! Each lock on the machine as it is: more threads than cores, panics, moved data.

#![allow(missing_docs, reason = "test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rseq_spinlock::locks::{Adaptive, Backoff, Clh, FutexMutex, Mcs, Parking, RseqAware, Tas, Ticket, Ttas};
use rseq_spinlock::sys::rseq::Thread;
use rseq_spinlock::{Lock, RawLock};

/// Eight threads enter until time is up; two plain fields that only the lock keeps equal.
fn excludes<R: RawLock>() {
    let _dog = kit::testing::watchdog(180);
    let lock: Lock<R, (u64, u64)> = Lock::new((0, 0));
    let stop = AtomicBool::new(false);
    let entered: u64 = std::thread::scope(|s| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                s.spawn(|| {
                    let _ = Thread::current();
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let mut both = lock.lock();
                        assert_eq!(both.0, both.1);
                        both.0 += 1;
                        both.1 += 1;
                        n += 1;
                    }
                    n
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(60));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|t| t.join().expect("no thread panics")).sum()
    });
    assert_eq!(lock.into_inner(), (entered, entered), "{}", R::NAME);
}

/// A panic inside unwinds through the guard; the next thread gets in.
fn unlocks_on_panic<R: RawLock>() {
    let _dog = kit::testing::watchdog(180);
    let lock: Lock<R, u32> = Lock::new(0);
    let panicked = std::thread::scope(|s| {
        s.spawn(|| {
            let mut n = lock.lock();
            *n += 1;
            std::panic::resume_unwind(Box::new("inside"));
        })
        .join()
    });
    assert!(panicked.is_err());
    *lock.lock() += 1;
    assert_eq!(lock.into_inner(), 2);
}

/// Two locks held at once: queue nodes of one are not those of the other.
fn nests<R: RawLock>() {
    let _dog = kit::testing::watchdog(180);
    let (a, b): (Lock<R, u32>, Lock<R, u32>) = (Lock::new(0), Lock::new(0));
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                for _ in 0..100 {
                    let mut outer = a.lock();
                    *b.lock() += 1;
                    *outer += 1;
                }
            });
        }
    });
    assert_eq!((a.into_inner(), b.into_inner()), (200, 200));
}

/// Threads end right after their last section, others take their slots and with them their queue nodes.
fn serves_threads_that_come_and_go<R: RawLock>() {
    let _dog = kit::testing::watchdog(180);
    const THREADS: u64 = 60;
    let lock: Lock<R, u64> = Lock::new(0);
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..THREADS {
                    let short = std::thread::scope(|s| {
                        s.spawn(|| {
                            let _ = Thread::current();
                            (0..5).for_each(|_| *lock.lock() += 1);
                        })
                        .join()
                    });
                    short.expect("no thread panics");
                }
            });
        }
    });
    assert_eq!(lock.into_inner(), 3 * THREADS * 5);
}

macro_rules! each_lock {
    ($($name:ident: $lock:ty),*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn excludes_with_more_threads_than_cores() {
                excludes::<$lock>();
            }

            #[test]
            fn a_guard_unlocks_on_panic() {
                unlocks_on_panic::<$lock>();
            }

            #[test]
            fn threads_come_and_go() {
                serves_threads_that_come_and_go::<$lock>();
            }

            #[test]
            fn two_locks_nest() {
                nests::<$lock>();
            }
        }
    )*};
}

each_lock!(
    tas: Tas, ttas: Ttas, backoff: Backoff, ticket: Ticket, mcs: Mcs, clh: Clh,
    futex: FutexMutex, adaptive: Adaptive, parking: Parking, rseq: RseqAware
);

/// A guard that is forgotten stays locked, as with std: nobody else ever gets in, and nothing else breaks.
#[test]
fn a_forgotten_guard_stays_locked() {
    let _dog = kit::testing::watchdog(180);
    let lock = RseqAware::new();
    std::thread::scope(|s| s.spawn(|| lock.acquire()).join().expect("no panic"));
    // The holder is gone. Its word is still there, and reading it touches no memory of the dead thread.
    assert!(format!("{lock:?}").contains("word"));
}

#[test]
fn slots_come_back_when_threads_end() {
    let _dog = kit::testing::watchdog(180);
    for _ in 0..3 * rseq_spinlock::sync::SLOTS {
        std::thread::spawn(rseq_spinlock::sync::slot).join().expect("a slot is free again");
    }
}
