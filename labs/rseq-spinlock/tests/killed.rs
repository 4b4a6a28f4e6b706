//! Processes are killed in the middle of sections on memory that they share.
//!
//! A section shows nothing before its commit, so whoever dies in it has done all or nothing. For locks there is no
//! such test: a lock whose holder is killed stays held, as with std; only the kernel's robust futex list could tell.

#![allow(missing_docs, reason = "test")]

#[path = "support/sys/shared.rs"]
mod shared;

use std::sync::atomic::{AtomicU64, Ordering};

use rseq_spinlock::cpus;
use rseq_spinlock::percpu::possible_cpus;
use rseq_spinlock::sys::ops::counter_add;
use rseq_spinlock::sys::rseq::Thread;
use rseq_spinlock::sys::sections::{ByCpu, Try};

/// By CPU number: concurrency ids are a process's own, so two processes may have the same at the same time.
#[test]
fn a_process_killed_inside_has_counted_or_not() {
    let _dog = kit::testing::watchdog(180);
    if let Err(e) = Thread::current() {
        kit::skip!("rseq", "{e}");
    }
    // Children inherit it: all in one slot.
    cpus::pin(cpus::ME, cpus::allowed().expect("affinity")[0]).expect("allowed");
    let n = possible_cpus();
    let (counts, words) = shared::counts(n + 2);
    let (counts, tallies) = (&counts[..n], &words[n..]);
    let sum = |words: &[shared::Words]| words.iter().map(|w| w[0].load(Ordering::Relaxed)).sum::<u64>();
    let mut killed = 0;
    for _ in 0..10 {
        let before: Vec<u64> = tallies.iter().map(|t| t[0].load(Ordering::Relaxed)).collect();
        let children = [0, 1].map(|i| {
            let tally: &AtomicU64 = &tallies[i][0];
            shared::Child::fork(move || {
                let Ok(thread) = Thread::current() else { return };
                if counter_add::<ByCpu, true>(thread, counts) == Try::Done {
                    tally.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        // Until each has worked beside the other.
        while tallies.iter().zip(&before).any(|(t, before)| t[0].load(Ordering::Relaxed) < before + 100_000) {
            std::thread::yield_now();
        }
        killed += children.len() as u64;
        drop(children);
        // Each may have died between its commit and its tally.
        let (counted, tallied) = (sum(&words[..n]), sum(tallies));
        assert!((tallied..=tallied + killed).contains(&counted), "{counted} counted, {tallied} made");
    }
}
