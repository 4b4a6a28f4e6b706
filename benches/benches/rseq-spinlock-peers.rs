//! The rseq-aware lock and the rseq counter against what one would use instead, in one run, interleaved.

#[path = "../peers/rseq_spinlock/sys.rs"]
mod sys;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use benches::compare::{Asked, Comparison, Outcome, publish};
use benches::noise::Watch;
use rseq_spinlock::Lock;
use rseq_spinlock::contend::{Load, Outcome as Contended, Section, contend};
use rseq_spinlock::count::{Costs, costs};
use rseq_spinlock::cpus;
use rseq_spinlock::locks::{Parking, RseqAware};

struct SpinCrate(spin::Mutex<u64>);

impl Section for SpinCrate {
    #[inline]
    fn with(&self, f: impl FnOnce(&mut u64)) {
        f(&mut self.0.lock());
    }
}

struct ParkingLot(parking_lot::Mutex<u64>);

impl Section for ParkingLot {
    #[inline]
    fn with(&self, f: impl FnOnce(&mut u64)) {
        f(&mut self.0.lock());
    }
}

/// What is done with a lock: the same for all.
trait Job {
    fn run<S: Section>(&self, lock: &S) -> f64;
}

/// All contenders with a job, ours first.
fn contest<J: Job>(of: Comparison<'_>, job: &J, (asked, full): (Asked, usize)) -> Outcome {
    of.contender("rseq-aware (ours)", || Ok(job.run(&Lock::<RseqAware, u64>::new(0))))
        .contender("the same without rseq (ours, parking)", || Ok(job.run(&Lock::<Parking, u64>::new(0))))
        .contender("std::sync::Mutex", || Ok(job.run(&std::sync::Mutex::new(0))))
        .contender("parking_lot::Mutex", || Ok(job.run(&ParkingLot(parking_lot::Mutex::new(0)))))
        .contender("spin::Mutex", || Ok(job.run(&SpinCrate(spin::Mutex::new(0)))))
        .contender("pthread_mutex_t", || Ok(job.run(&sys::Mutex::new(false))))
        .contender("pthread_mutex_t, adaptive", || Ok(job.run(&sys::Mutex::new(true))))
        .contender("pthread_spinlock_t", || Ok(job.run(&sys::Spin::new())))
        .run(asked, full)
}

/// Lock and unlock, alone.
struct Alone;

impl Job for Alone {
    fn run<S: Section>(&self, lock: &S) -> f64 {
        // Makes our CPU known, as in `contend`.
        let _ = rseq_spinlock::sys::rseq::Thread::current();
        const N: u32 = 100_000;
        let start = Instant::now();
        for _ in 0..N {
            lock.with(|n| *n += black_box(1));
        }
        start.elapsed().as_nanos() as f64 / f64::from(N)
    }
}

/// Under a load; what else was seen of it is kept, in the order of the runs.
struct Loaded {
    load: Load,
    seen: RefCell<VecDeque<Contended>>,
}

impl Job for Loaded {
    fn run<S: Section>(&self, lock: &S) -> f64 {
        let outcome = contend(lock, self.load);
        assert!(outcome.exact, "a section was lost");
        let cost = 1e3 / outcome.mops();
        self.seen.borrow_mut().push_back(outcome);
        cost
    }
}

/// One more look at the runs that another contest has made: [`Comparison`] calls in the same order again.
struct Again<'a> {
    seen: &'a RefCell<VecDeque<Contended>>,
    value: fn(&Contended) -> f64,
}

impl Job for Again<'_> {
    fn run<S: Section>(&self, _: &S) -> f64 {
        let mut seen = self.seen.borrow_mut();
        let outcome = seen.pop_front().expect("as many looks as runs");
        let value = (self.value)(&outcome);
        seen.push_back(outcome);
        value
    }
}

const CLOCKED: &str = "each section is timed by two reads of the time-stamp counter, about 17 ns that all pay; other work on the machine";

fn loaded(threads: usize, time: Duration, rounds: (Asked, usize)) -> Vec<Outcome> {
    let job = Loaded { load: Load { threads, time, outside: 0 }, seen: RefCell::default() };
    let again = |value| Again { seen: &job.seen, value };
    let title = format!("{threads} threads: one section");
    let sections = contest(Comparison::new(title, "ns", CLOCKED).headline(), &job, rounds);
    // The same runs, so the same noise.
    let noise = sections.noise.unwrap_or_default();
    let waits = Comparison::new(
        format!("{threads} threads: longest wait (the same runs)"),
        "ms",
        "a thread that is preempted before it asks twice counts as waiting; so do all",
    );
    let waits = contest(waits.with_noise(noise), &again(Contended::max_wait_ms), rounds);
    let shares = Comparison::new(
        format!("{threads} threads: unfairness, 1 - smallest share / largest (the same runs)"),
        "1",
        "short runs: a thread that never got a CPU has a share of 0",
    );
    let shares = contest(shares.with_noise(noise), &again(|o| 1.0 - o.fairness()), rounds);
    vec![sections, waits, shares]
}

/// The rseq counter against a thread-local and an atomic, alone and on two CPUs.
fn counters(asked: Asked, full: usize) -> Vec<Outcome> {
    let watch = Watch::begin();
    let (all, missing) = match costs(asked.rounds(full) + 1, 200_000) {
        Ok(all) => (all, None),
        Err(e) => (Costs::default(), Some(format!("{e} (see cargo xtask doctor rseq-spinlock)"))),
    };
    let noise = watch.end();
    let compare = |title: &str, who: &[(&str, &Vec<f64>)]| {
        let unfair = "the thread-local can be read by no other thread; the rounds are in order, not shuffled";
        let comparison = Comparison::new(title, "ns", unfair).headline().with_noise(noise);
        who.iter()
            .fold(comparison, |c, (name, samples)| {
                let why = missing.as_deref().unwrap_or("this machine cannot do it");
                let mut samples = samples.iter();
                c.contender(*name, move || samples.next().copied().ok_or_else(|| why.to_owned()))
            })
            .run(asked, full)
    };
    let Costs { local, rseq, rseq_cid, atomic, rseq_two, atomic_two } = &all;
    vec![
        compare(
            "One increment, one thread",
            &[
                ("rseq by CPU (ours)", rseq),
                ("rseq by mm_cid (ours)", rseq_cid),
                ("thread-local", local),
                ("atomic", atomic),
            ],
        ),
        compare(
            "One increment, two threads on two CPUs",
            &[("rseq (ours)", rseq_two), ("one shared atomic", atomic_two)],
        ),
    ]
}

fn main() -> io::Result<()> {
    let asked = Asked::by_arguments();
    let cores = cpus::allowed().map_or(1, |c| c.len());
    let (short, long) = if asked.test { (5, 5) } else { (30, 400) };
    let mut outcomes = counters(asked, 40);
    let alone = Comparison::new(
        "Lock and unlock, nobody else",
        "ns",
        "Rust's locks are inlined, C's are calls; glibc's would be cheaper in a process that never had a second thread",
    );
    outcomes.push(contest(alone, &Alone, (asked, 60)));
    outcomes.extend(loaded(2, Duration::from_millis(short), (asked, 40)));
    outcomes.extend(loaded(8 * cores, Duration::from_millis(long), (asked, 10)));
    publish(asked, "rseq-spinlock", &outcomes, &NOTES)
}

const NOTES: [&str; 4] = [
    "goals: the rseq counter at or below 3.6 ns, within 1.25 of a thread-local, and a tenth of one shared atomic on \
     two CPUs",
    "goals: alone and with two threads no dearer than spin; with 8 threads a CPU a fifth of spin's cost or less, and \
     no longer waits than parking_lot",
    "the second row is the same lock without the holder's CPU in its word: what differs is what rseq's hint is worth",
    "with more threads than CPUs the longest wait is mostly the run queue's: compare it within this run only, and \
     look at the load at the top",
];
