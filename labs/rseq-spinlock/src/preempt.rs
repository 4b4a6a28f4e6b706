//! Lock-holder preemption on demand: who holds, who spins, who sleeps, and what it costs.
//!
//! ```text
//! CPU a   holder: lock, wake the others, … preempted … , unlock
//! CPU a   intruder: SCHED_FIFO, so it takes the CPU the moment that the holder wakes it; computes for a while
//! CPU a   waiter 1: can run only while the holder does not
//! CPU b   waiters 2, 3
//! ```
//!
//! Without the right to SCHED_FIFO the holder sleeps inside its section instead: off its CPU all the same.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kit::SysError;
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

use crate::cpus;
use crate::raw::RawLock;
use crate::sync::Futex;
use crate::sys::cell::Lock;
use crate::sys::rseq::Thread;
use crate::sys::sched;

/// How the holder is taken off its CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By a thread with real-time priority.
    Preempted,
    /// It sleeps: we may not have real-time priority.
    Sleeps,
}

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Holds the lock and runs.
    Holds,
    /// Holds the lock and does not run.
    Off,
    /// Waits and burns CPU time.
    Spins,
    /// Waits and does not: asleep, or not given a CPU.
    Waits,
    /// Computes: the intruder.
    Computes,
}

/// From when to when, in microseconds from the holder's lock.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// Begin.
    pub from: f64,
    /// End.
    pub to: f64,
    /// What.
    pub doing: Doing,
}

/// One thread's part.
#[derive(Debug, Clone)]
pub struct Actor {
    /// What it is called.
    pub name: String,
    /// Where it stayed.
    pub cpu: usize,
    /// What it did.
    pub stretches: Vec<Stretch>,
}

impl Actor {
    /// To its CPU, or to another if that is not to be had any more.
    fn settle(&mut self) -> Result<(), SysError> {
        self.cpu = cpus::settle(cpus::ME, self.cpu)?;
        Ok(())
    }
}

/// One preemption.
#[derive(Debug, Clone)]
pub struct Scene {
    /// How the holder lost its CPU.
    pub how: How,
    /// Holder first, then the intruder, then the waiters.
    pub actors: Vec<Actor>,
    /// How long the holder was off its CPU, in microseconds.
    pub off_us: f64,
    /// What the waiters waited, all together, in microseconds.
    pub waited_us: f64,
    /// What they burnt of that, in microseconds of CPU time.
    pub burnt_us: f64,
    /// When the last waiter was through.
    pub end_us: f64,
}

/// How it is to be played.
#[derive(Debug, Clone, Copy)]
pub struct Play {
    /// What the intruder computes, or the holder sleeps.
    pub burst: Duration,
    /// A simulation of the slice extension: whoever would take the holder's CPU looks whether the holder has
    /// asked for time, and if so stays back for [`GRANT`]. What Linux 7.0 does in the kernel, done by the
    /// intruders themselves.
    pub deferred: bool,
}

/// What an extension grants: 50 µs. Linux 7.0 grants 5 by default.
pub const GRANT: Duration = Duration::from_micros(50);

/// What the holder has left to do in its section when it is preempted: less than a grant.
const REST: Duration = Duration::from_micros(20);

/// A gap between two looks at the clock: we did not run.
const GAP: Duration = Duration::from_micros(100);

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let t = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, |t| t.num_nanoseconds());
    Duration::from_nanos(t as u64)
}

/// What the actors share.
struct Stage<R> {
    lock: Lock<R, u32>,
    /// 1: the holder is inside, begin to wait.
    inside: Futex,
    /// 1: intrude.
    intrude: Futex,
    /// The holder asks for time.
    asks: AtomicBool,
    /// There is no real-time priority: the holder must sleep.
    sleep: AtomicBool,
    ready: Barrier,
    began: Instant,
    /// The holder's CPU.
    home: usize,
}

impl<R> Stage<R> {
    /// The simulation: whoever would take the holder's CPU lets it finish first.
    fn stay_back(&self, cpu: usize) {
        if cpu == self.home && self.asks.load(Ordering::Acquire) {
            std::thread::sleep(GRANT);
        }
    }

    fn us(&self) -> f64 {
        self.began.elapsed().as_nanos() as f64 / 1e3
    }
}

fn await_one(gate: &Futex) {
    while gate.load(Ordering::Acquire) == 0 {
        gate.wait(0);
    }
}

fn open(gate: &Futex) {
    gate.store(1, Ordering::Release);
    gate.wake(i32::MAX);
}

/// Plays it once with a lock of kind `R`.
///
/// # Errors
/// sched_setaffinity(2).
pub fn play<R: RawLock>(play: Play) -> Result<Scene, SysError> {
    let cpus = cpus::allowed()?;
    let (a, b) = (cpus[0], cpus.get(1).copied().unwrap_or(cpus[0]));
    let stage = Stage::<R> {
        lock: Lock::new(0),
        inside: Futex::new(0),
        intrude: Futex::new(0),
        asks: AtomicBool::new(false),
        sleep: AtomicBool::new(false),
        ready: Barrier::new(5),
        began: Instant::now(),
        home: a,
    };
    let actor = |name: &str, cpu| Actor { name: name.into(), cpu, stretches: Vec::new() };
    let (how, holder, intruder, waiters) = std::thread::scope(|s| {
        let stage = &stage;
        let intruder = s.spawn(move || intrude(stage, play, actor("intruder", a)));
        let waiters = [("waiter 1", a), ("waiter 2", b), ("waiter 3", b)]
            .map(|(n, cpu)| s.spawn(move || wait(stage, actor(n, cpu))));
        let holder = s.spawn(move || hold(stage, play, actor("holder", a)));
        let (how, intruder) = intruder.join().expect("no thread panics");
        (
            how,
            holder.join().expect("no thread panics"),
            intruder,
            waiters.map(|w| w.join().expect("no thread panics")),
        )
    });
    let (holder, zero) = holder?;
    let mut scene = Scene {
        how,
        actors: vec![holder, intruder?],
        off_us: 0.0,
        waited_us: 0.0,
        burnt_us: 0.0,
        end_us: 0.0,
    };
    for waiter in waiters {
        scene.actors.push(waiter?);
    }
    for stretch in scene.actors.iter_mut().flat_map(|a| &mut a.stretches) {
        stretch.from -= zero;
        stretch.to -= zero;
        let took = stretch.to - stretch.from;
        match stretch.doing {
            Doing::Off => scene.off_us += took,
            Doing::Spins => scene.burnt_us += took,
            _ => {}
        }
        if matches!(stretch.doing, Doing::Spins | Doing::Waits) {
            scene.waited_us += took;
        }
        scene.end_us = scene.end_us.max(stretch.to);
    }
    Ok(scene)
}

/// The holder; also when it got the lock.
fn hold<R: RawLock>(stage: &Stage<R>, play: Play, mut me: Actor) -> Result<(Actor, f64), SysError> {
    let pinned = me.settle();
    let _ = Thread::current();
    stage.ready.wait();
    // All others sleep by then.
    std::thread::sleep(Duration::from_millis(1));
    stage.asks.store(play.deferred, Ordering::Relaxed);
    let mut guard = stage.lock.lock();
    let mut at = stage.us();
    let zero = at;
    let mut last = Instant::now();
    let mut ran = Duration::ZERO;
    open(&stage.inside);
    open(&stage.intrude);
    if stage.sleep.load(Ordering::Relaxed) {
        std::thread::sleep(play.burst);
    }
    while ran < REST {
        let now = Instant::now();
        let gap = now - last;
        if gap > GAP {
            let back = stage.us();
            let off = gap.as_nanos() as f64 / 1e3;
            me.stretches.push(Stretch { from: at, to: back - off, doing: Doing::Holds });
            me.stretches.push(Stretch { from: back - off, to: back, doing: Doing::Off });
            at = back;
        } else {
            ran += gap;
        }
        last = now;
    }
    *guard += 1;
    drop(guard);
    stage.asks.store(false, Ordering::Release);
    me.stretches.push(Stretch { from: at, to: stage.us(), doing: Doing::Holds });
    pinned.map(|()| (me, zero))
}

fn wait<R: RawLock>(stage: &Stage<R>, mut me: Actor) -> Result<Actor, SysError> {
    let pinned = me.settle();
    let _ = Thread::current();
    stage.ready.wait();
    await_one(&stage.inside);
    stage.stay_back(me.cpu);
    let (from, cpu) = (stage.us(), cpu_time());
    let guard = stage.lock.lock();
    let (to, burnt) = (stage.us(), (cpu_time() - cpu).as_nanos() as f64 / 1e3);
    // The order within the wait is not observed: shown as if it span first.
    let middle = (from + burnt).min(to);
    me.stretches.push(Stretch { from, to: middle, doing: Doing::Spins });
    me.stretches.push(Stretch { from: middle, to, doing: Doing::Waits });
    drop(guard);
    me.stretches.push(Stretch { from: to, to: stage.us(), doing: Doing::Holds });
    pinned.map(|()| me)
}

fn intrude<R: RawLock>(stage: &Stage<R>, play: Play, mut me: Actor) -> (How, Result<Actor, SysError>) {
    let pinned = me.settle();
    let how = if sched::real_time().is_ok() { How::Preempted } else { How::Sleeps };
    stage.sleep.store(how == How::Sleeps, Ordering::Relaxed);
    stage.ready.wait();
    await_one(&stage.intrude);
    if how == How::Preempted {
        stage.stay_back(me.cpu);
        let (from, until) = (stage.us(), Instant::now() + play.burst);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        me.stretches.push(Stretch { from, to: stage.us(), doing: Doing::Computes });
    }
    (how, pinned.map(|()| me))
}
