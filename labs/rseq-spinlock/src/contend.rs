//! What a lock does under a load: threads that lock, add 1, unlock, and do a little work outside.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::raw::RawLock;
use crate::sync::spin_for;
use crate::sys::cell::Lock;
use crate::sys::clock::{ns_per_tick, ticks};
use crate::sys::rseq::Thread;
use crate::sys::slice::Slice;

/// Anything that runs a section exclusively: the zoo, and the peers in the benchmarks.
pub trait Section: Sync {
    /// Runs `f` on the data while nobody else can.
    fn with(&self, f: impl FnOnce(&mut u64));
}

impl<R: RawLock> Section for Lock<R, u64> {
    #[inline]
    fn with(&self, f: impl FnOnce(&mut u64)) {
        f(&mut self.lock());
    }
}

impl Section for std::sync::Mutex<u64> {
    #[inline]
    fn with(&self, f: impl FnOnce(&mut u64)) {
        f(&mut self.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

/// How to load it.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// How many threads; the scheduler places them.
    pub threads: usize,
    /// For how long.
    pub time: Duration,
    /// `pause` instructions outside the section, between two.
    pub outside: u32,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Sections run, by thread.
    pub shares: Vec<u64>,
    /// From the first section to the end of the last thread.
    pub elapsed: Duration,
    /// Waits for the lock in ns, one for each section.
    pub waits: Histogram<u64>,
    /// CPU time of all threads together, user and system.
    pub cpu: Duration,
    /// Context switches: the thread slept or yielded.
    pub voluntary: u64,
    /// Context switches: the thread was preempted.
    pub involuntary: u64,
    /// Whether the data counted every section.
    pub exact: bool,
}

impl Outcome {
    /// Sections run.
    pub fn sections(&self) -> u64 {
        self.shares.iter().sum()
    }

    /// Millions of sections a second.
    pub fn mops(&self) -> f64 {
        self.sections() as f64 / self.elapsed.as_secs_f64() / 1e6
    }

    /// Smallest share over largest: 1 is fair, 0 means that someone got nothing.
    pub fn fairness(&self) -> f64 {
        let most = self.shares.iter().max().copied().unwrap_or(0);
        let least = self.shares.iter().min().copied().unwrap_or(0);
        if most == 0 { 0.0 } else { least as f64 / most as f64 }
    }

    /// CPUs busy on average.
    pub fn cpus(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// The wait that a share `quantile` of sections does not exceed, in microseconds.
    pub fn wait_us(&self, quantile: f64) -> f64 {
        self.waits.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The longest wait, in milliseconds.
    pub fn max_wait_ms(&self) -> f64 {
        self.waits.max() as f64 / 1e6
    }
}

/// One thread's part.
struct Part {
    sections: u64,
    waits: Histogram<u64>,
    usage: Option<(Usage, Usage)>,
}

/// An empty histogram: 1 ns to 100 s, two digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 2).expect("these bounds are valid")
}

/// Loads a lock that guards a count of 0. `count` reads it afterwards.
pub fn contend<S: Section>(lock: &S, load: Load) -> Outcome {
    let ns = ns_per_tick();
    let stop = AtomicBool::new(false);
    let start = Barrier::new(load.threads + 1);
    let (parts, elapsed) = std::thread::scope(|s| {
        let threads: Vec<_> =
            (0..load.threads).map(|_| s.spawn(|| part(lock, load, ns, &start, &stop))).collect();
        start.wait();
        let began = Instant::now();
        std::thread::sleep(load.time);
        stop.store(true, Ordering::Relaxed);
        let parts: Vec<Part> = threads.into_iter().map(|t| t.join().expect("no thread panics")).collect();
        (parts, began.elapsed())
    });
    let mut counted = 0;
    lock.with(|n| counted = *n);
    sum_up(parts, elapsed, counted)
}

fn part<S: Section>(lock: &S, load: Load, ns: f64, start: &Barrier, stop: &AtomicBool) -> Part {
    // Makes the CPU known to the rseq-aware lock, and lets it ask for longer slices; where there is no rseq or
    // no such thing, it does without.
    let _ = Thread::current().map(Slice::enable);
    let mut part = Part { sections: 0, waits: histogram(), usage: None };
    start.wait();
    let before = getrusage(UsageWho::RUSAGE_THREAD).ok();
    while !stop.load(Ordering::Relaxed) {
        let asked = ticks();
        let mut got = 0;
        lock.with(|n| {
            got = ticks();
            *n += 1;
        });
        let wait = got.saturating_sub(asked) as f64 * ns;
        part.waits.saturating_record(wait as u64);
        part.sections += 1;
        spin_for(load.outside);
    }
    part.usage = before.zip(getrusage(UsageWho::RUSAGE_THREAD).ok());
    part
}

fn sum_up(parts: Vec<Part>, elapsed: Duration, counted: u64) -> Outcome {
    let mut waits = histogram();
    let (mut us, mut voluntary, mut involuntary) = (0, 0, 0);
    for part in &parts {
        waits.add(&part.waits).expect("same bounds");
        if let Some((before, after)) = &part.usage {
            let time = |u: &Usage| u.user_time().num_microseconds() + u.system_time().num_microseconds();
            us += time(after) - time(before);
            voluntary += after.voluntary_context_switches() - before.voluntary_context_switches();
            involuntary += after.involuntary_context_switches() - before.involuntary_context_switches();
        }
    }
    let shares: Vec<u64> = parts.iter().map(|p| p.sections).collect();
    let exact = shares.iter().sum::<u64>() == counted;
    Outcome {
        shares,
        elapsed,
        waits,
        cpu: Duration::from_micros(us as u64),
        voluntary: voluntary as u64,
        involuntary: involuntary as u64,
        exact,
    }
}
