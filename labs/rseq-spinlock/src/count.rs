//! Three counters under three kinds of trouble, and what an increment costs in peace.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kit::SysError;
use nix::unistd::{Pid, gettid};

use crate::cpus;
use crate::percpu::{Counter, possible_cpus, usable};
use crate::sys::rseq::{RseqError, Thread};
use crate::sys::sections::{ByCid, ByCpu, Try};
use crate::sys::{child, membarrier, signal};

/// How to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The per-CPU counter without rseq: load, add, store, and the kernel knows nothing of it.
    Plain,
    /// One atomic for all.
    Atomic,
    /// The per-CPU counter with rseq.
    Rseq,
}

/// What disturbs the two counting threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Both are on one CPU: the scheduler preempts them.
    Preemption,
    /// A signal every 50 µs or so, to each.
    Signals,
    /// They are moved to the other CPU every 100 µs or so.
    Migration,
    /// Another CPU runs their sections down with membarrier(2), every 50 µs or so.
    Membarrier,
}

/// Aborts by cause. The kernel does not say why it aborted; this is what had changed since the attempt began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aborts {
    /// Neither of the others: preempted, or run down by membarrier(2).
    pub preempted: u64,
    /// The thread has handled a signal.
    pub signalled: u64,
    /// The thread is on another CPU.
    pub migrated: u64,
}

impl Aborts {
    /// All of them.
    pub fn sum(self) -> u64 {
        self.preempted + self.signalled + self.migrated
    }

    fn add(&mut self, other: Self) {
        self.preempted += other.preempted;
        self.signalled += other.signalled;
        self.migrated += other.migrated;
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Increments that the threads made.
    pub made: u64,
    /// What the counter says.
    pub counted: u64,
    /// Attempts that the kernel sent to the abort handler.
    pub aborts: Aborts,
    /// How often there was trouble: signals sent, moves made; 0 for preemption, which is the scheduler's.
    pub troubles: u64,
}

impl Counted {
    /// Increments that are gone.
    pub fn lost(&self) -> u64 {
        self.made.saturating_sub(self.counted)
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// There is no rseq.
    #[error(transparent)]
    Rseq(#[from] RseqError),
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The experiment needs two CPUs.
    #[error("only one CPU to run on; this needs two")]
    OneCpu,
}

enum Counters {
    Plain(Counter<ByCpu, false>),
    Atomic(AtomicU64),
    Rseq(Counter<ByCpu>),
}

/// Two threads count for `time`, in trouble.
///
/// # Errors
/// No rseq; migration with one CPU; sched_setaffinity(2).
pub fn count(which: Which, trouble: Trouble, time: Duration) -> Result<Counted, CountError> {
    Thread::current()?;
    let cpus = cpus::allowed()?;
    if matches!(trouble, Trouble::Migration | Trouble::Membarrier) && cpus.len() < 2 {
        return Err(CountError::OneCpu);
    }
    if trouble == Trouble::Signals {
        signal::on_signal(None)?;
    }
    let n = possible_cpus();
    let counters = match which {
        Which::Plain => Counters::Plain(Counter::new(n)),
        Which::Atomic => Counters::Atomic(AtomicU64::new(0)),
        Which::Rseq => Counters::Rseq(Counter::new(n)),
    };
    let stop = AtomicBool::new(false);
    let tids = [AtomicI32::new(0), AtomicI32::new(0)];
    let (parts, troubles) = std::thread::scope(|s| {
        let threads = [0, 1].map(|i| {
            let (counters, tids, stop, cpus) = (&counters, &tids, &stop, &cpus);
            s.spawn(move || -> Result<(u64, Aborts), CountError> {
                if matches!(trouble, Trouble::Preemption | Trouble::Membarrier) {
                    cpus::settle(cpus::ME, cpus[0])?;
                }
                let thread = Thread::current()?;
                tids[i].store(gettid().as_raw(), Ordering::Relaxed);
                Ok(work(counters, thread, stop))
            })
        });
        let troubles = make(trouble, &tids, &cpus, time);
        stop.store(true, Ordering::Relaxed);
        (threads.map(|t| t.join().expect("no thread panics")), troubles)
    });
    let mut result = Counted { made: 0, counted: 0, aborts: Aborts::default(), troubles };
    for part in parts {
        let (made, aborts) = part?;
        result.made += made;
        result.aborts.add(aborts);
    }
    result.counted = match counters {
        Counters::Plain(c) => c.sum(),
        Counters::Atomic(c) => c.into_inner(),
        Counters::Rseq(c) => c.sum(),
    };
    Ok(result)
}

/// One thread counts until told to stop.
fn work(counters: &Counters, thread: Thread, stop: &AtomicBool) -> (u64, Aborts) {
    let (mut made, mut aborts) = (0, Aborts::default());
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..100 {
            match counters {
                Counters::Plain(c) => _ = c.try_add(thread),
                Counters::Atomic(c) => _ = c.fetch_add(1, Ordering::Relaxed),
                Counters::Rseq(c) => add_traced(c, thread, &mut aborts),
            }
        }
        made += 100;
    }
    (made, aborts)
}

/// Adds 1 and finds out why attempts were aborted.
fn add_traced(counter: &Counter<ByCpu>, thread: Thread, aborts: &mut Aborts) {
    loop {
        let (cpu, signals) = (thread.cpu_id(), signal::handled());
        match counter.try_add(thread) {
            Try::Aborted if signal::handled() != signals => aborts.signalled += 1,
            Try::Aborted if thread.cpu_id() != cpu => aborts.migrated += 1,
            Try::Aborted => aborts.preempted += 1,
            _ => return,
        }
    }
}

/// Makes trouble for `time`; how often.
fn make(trouble: Trouble, tids: &[AtomicI32; 2], cpus: &[usize], time: Duration) -> u64 {
    if trouble == Trouble::Membarrier {
        // From another CPU: the system call itself is an interruption of the caller's own.
        return std::thread::scope(|s| {
            let there =
                s.spawn(|| cpus::pin(cpus::ME, cpus[1]).map_or(0, |()| disturb(trouble, tids, cpus, time)));
            there.join().expect("no thread panics")
        });
    }
    disturb(trouble, tids, cpus, time)
}

fn disturb(trouble: Trouble, tids: &[AtomicI32; 2], cpus: &[usize], time: Duration) -> u64 {
    let until = Instant::now() + time;
    let mut n = 0;
    while Instant::now() < until {
        if trouble == Trouble::Preemption {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            break;
        }
        for (i, tid) in tids.iter().map(|t| t.load(Ordering::Relaxed)).enumerate().filter(|&(_, t)| t != 0) {
            let thread = Pid::from_raw(tid);
            match trouble {
                Trouble::Signals => signal::send(thread),
                Trouble::Membarrier if membarrier::abort_sections_on(cpus[0] as u32).is_err() => continue,
                Trouble::Membarrier => {}
                // A cpuset that changed meanwhile may forbid the CPU: then this move is none.
                _ if cpus::pin(thread, cpus[(n as usize / 2 + i) % cpus.len()]).is_err() => continue,
                _ => {}
            }
            n += 1;
        }
        std::thread::sleep(Duration::from_micros(if trouble == Trouble::Signals { 20 } else { 50 }));
    }
    n
}

/// Nanoseconds for one increment, a sample for each round. The rounds of all kinds are interleaved.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    /// A thread-local variable: what could not be cheaper.
    pub local: Vec<f64>,
    /// rseq, slot by CPU.
    pub rseq: Vec<f64>,
    /// rseq, slot by concurrency id; empty before Linux 6.3.
    pub rseq_cid: Vec<f64>,
    /// An atomic that nobody else uses.
    pub atomic: Vec<f64>,
    /// rseq in two threads on two CPUs at once; empty with one CPU.
    pub rseq_two: Vec<f64>,
    /// One atomic in two threads on two CPUs at once; empty with one CPU.
    pub atomic_two: Vec<f64>,
}

/// Measures the costs in `rounds` rounds of `adds` increments each.
///
/// # Errors
/// No rseq; sched_setaffinity(2).
pub fn costs(rounds: usize, adds: u32) -> Result<Costs, CountError> {
    thread_local! {
        static LOCAL: Cell<u64> = const { Cell::new(0) };
    }
    let thread = usable::<ByCpu>()?;
    let by_cid = usable::<ByCid>().is_ok();
    let cpus = cpus::allowed()?;
    let n = possible_cpus();
    let (by_cpu, cid, shared) = (Counter::<ByCpu>::new(n), Counter::<ByCid>::new(n), AtomicU64::new(0));
    let mut pair = cpus.first_chunk::<2>().copied();
    let mut costs = Costs::default();
    for _ in 0..rounds {
        costs.local.push(each(adds, || {
            LOCAL.with(|l| {
                l.set(l.get() + 1);
                // Keeps the compiler from adding them up.
                black_box(l);
            });
        }));
        costs.rseq.push(each(adds, || _ = by_cpu.add(thread)));
        if by_cid {
            costs.rseq_cid.push(each(adds, || _ = cid.add(thread)));
        }
        costs.atomic.push(each(adds, || _ = shared.fetch_add(1, Ordering::Relaxed)));
        if let Some(two) = pair {
            let rseq = on_two(two, adds, |thread| _ = by_cpu.add(thread))?;
            let atomic = on_two(two, adds, |_| _ = shared.fetch_add(1, Ordering::Relaxed))?;
            if let Some((rseq, atomic)) = rseq.zip(atomic) {
                costs.rseq_two.push(rseq);
                costs.atomic_two.push(atomic);
            } else {
                // One of the two has been taken from us: what follows would be no comparison.
                pair = None;
            }
        }
    }
    Ok(costs)
}

fn each(n: u32, mut add: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..n {
        add();
    }
    start.elapsed().as_nanos() as f64 / f64::from(n)
}

/// Two threads on two CPUs, at the same time; the mean of both. None if one of the CPUs is not to be had.
fn on_two(cpus: [usize; 2], n: u32, add: impl Fn(Thread) + Sync) -> Result<Option<f64>, CountError> {
    let start = Barrier::new(2);
    let results = std::thread::scope(|s| {
        let threads = cpus.map(|cpu| {
            let (start, add) = (&start, &add);
            s.spawn(move || {
                let there = cpus::settle(cpus::ME, cpu);
                let thread = Thread::current();
                start.wait();
                let (there, thread) = (there?, thread?);
                Ok((there == cpu).then(|| each(n, || add(thread))))
            })
        });
        threads.map(|t| t.join().expect("no thread panics"))
    });
    let [a, b]: [Result<Option<f64>, CountError>; 2] = results;
    Ok(a?.zip(b?).map(|(a, b)| (a + b) / 2.0))
}

/// How many slots a process with one thread touches that counts on every CPU it may use: by CPU, and by concurrency id.
///
/// It is a child of ours: a second thread, even a sleeping one, may bring a second id. None if it cannot be told.
///
/// # Errors
/// No rseq, or no `mm_cid`; sched_getaffinity(2).
pub fn slots_used() -> Result<Option<(u8, u8)>, CountError> {
    usable::<ByCid>()?;
    let cpus = cpus::allowed()?;
    let used = |by_cid| {
        let n = possible_cpus();
        let (cpu, cid) = (Counter::<ByCpu>::new(n), Counter::<ByCid>::new(n));
        child::fork_and_count(|| {
            roam(&cpu, &cid, &cpus);
            u8::try_from(if by_cid { cid.used() } else { cpu.used() }).unwrap_or(u8::MAX)
        })
    };
    Ok(used(false).zip(used(true)))
}

fn roam(by_cpu: &Counter<ByCpu>, by_cid: &Counter<ByCid>, cpus: &[usize]) {
    let Ok(thread) = Thread::current() else { return };
    for &there in cpus {
        // One that a cpuset has taken away meanwhile is left out.
        if cpus::pin(cpus::ME, there).is_ok() {
            by_cpu.add(thread);
            by_cid.add(thread);
        }
    }
}
