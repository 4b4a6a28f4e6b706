//! The view `offcpu`: where threads leave the CPU, and how long they are away.
//!
//! A time begins when a thread is switched away from and ends when it is switched to, so what it waits for a CPU after
//! it was woken is in it. Times that have not ended when the trace does are taken in as they are then. Who is away from
//! before the trace until after it is not seen.

use std::collections::{BTreeMap, HashMap};

use aya::maps::{MapData, StackTraceMap};

use crate::error::TraceError;
use crate::filter::Filter;
use crate::kallsyms::Kallsyms;
use crate::profile::{kernel_frames, user_frames};
use crate::ring::{Record, Ring};
use crate::stacks::{Frame, Kind, Stack, joined};
use crate::symbols::{Program, Symbols};
use crate::tracer::{Plan, Tracer};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/offcpu.bpf.o");

/// Where stacks and times come together.
pub const HERE: kit::Place = kit::here!();

// As in bpf/offcpu.bpf.c.
const MORE: u32 = 1 << 31;
const NO_STACK: u32 = u32::MAX;
const STACK_LOST: u32 = u32::MAX - 1;

/// Why a thread was not on a CPU: `enum state` of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It slept, and a signal would have woken it: S.
    Sleeping,
    /// It slept, and no signal would have: D, mostly for a disk or a lock.
    Uninterruptible,
    /// A thread of the kernel that had nothing to do: I.
    Idle,
    /// By a signal, a debugger, or parked.
    Stopped,
    /// It could have gone on, but others were let on its CPU.
    Runnable,
}

impl State {
    /// All of them, by their number in the program.
    pub const ALL: [Self; 5] =
        [Self::Sleeping, Self::Uninterruptible, Self::Idle, Self::Stopped, Self::Runnable];

    /// In a word or two.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sleeping => "sleeping",
            Self::Uninterruptible => "uninterruptible",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
            Self::Runnable => "preempted",
        }
    }
}

/// What to measure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whose times.
    pub filter: Filter,
    /// Only times of at least so many nanoseconds.
    pub slower_than: u64,
    /// Only times of at most so many nanoseconds.
    pub faster_than: Option<u64>,
}

/// Times with the same stack, in the same state, of threads of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The process.
    pub tgid: u32,
    /// The thread's name.
    pub comm: String,
    /// Why it was away.
    pub state: State,
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
    /// The longest.
    pub max: u64,
    /// How many had not ended when the trace did.
    pub open: u64,
    /// Where: the thread's name first, then its program, the kernel, the state.
    pub frames: Vec<Frame>,
}

/// A running measurement.
#[derive(Debug)]
pub struct Offcpu {
    tracer: Tracer,
    news: Ring,
    symbols: Symbols,
    /// Stacks that have been read, by number.
    stacks: HashMap<u32, Vec<u64>>,
}

/// `struct key`, as bytes.
type Key = [u8; 40];

struct Parts {
    program: Program,
    user: u32,
    kernel: u32,
    state: State,
    comm: String,
}

impl Parts {
    fn of(key: &[u8]) -> Self {
        let mut r = Record(key);
        let (mm, tgid, user, kernel, state) = (r.u64(), r.u32(), r.u32(), r.u32(), r.u32());
        let state = *State::ALL.get(state as usize).unwrap_or(&State::Stopped);
        Self { program: (tgid, mm), user, kernel, state, comm: r.text(16) }
    }
}

impl Offcpu {
    /// Attaches; every time that begins from the return on is measured.
    pub fn start(o: &Options) -> Result<Self, TraceError> {
        let mut tracer = Tracer::start(&Plan {
            object: OBJECT,
            hooks: &["sched_switch"],
            filter: o.filter.clone(),
            constants: vec![
                ("slower_than", o.slower_than.to_ne_bytes().to_vec()),
                ("faster_than", o.faster_than.unwrap_or(u64::MAX).to_ne_bytes().to_vec()),
            ],
            ..Plan::default()
        })?;
        let news = tracer.ring("news")?;
        Ok(Self { tracer, news, symbols: Symbols::default(), stacks: HashMap::new() })
    }

    /// What is attached.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Where stacks that are new are told.
    pub fn news(&self) -> &Ring {
        &self.news
    }

    /// Looks at processes with new stacks while they are there.
    pub fn take(&mut self) -> Result<(), TraceError> {
        let mut news: Vec<Parts> = Vec::new();
        self.news.drain(|record| news.push(Parts::of(record.0)));
        for Parts { program, user, .. } in news {
            self.read_stack(user)?;
            if let Some(stack) = self.stacks.get(&user) {
                self.symbols.see(program, stack);
            }
        }
        Ok(())
    }

    /// Takes in the times that have not ended, as long as they are now. They are not counted again when they end.
    pub fn sweep(&mut self) -> Result<(), TraceError> {
        self.tracer.sweep("sweep")
    }

    /// Stacks for which there was no room, and times whose end was not seen.
    pub fn notes(&self) -> Result<Notes, TraceError> {
        let notes: Vec<u64> = self.tracer.array("notes", |copies: &[u64]| copies.iter().sum())?;
        Ok(Notes { stacks_lost: notes[0], unseen: notes[1] })
    }

    fn read_stack(&mut self, id: u32) -> Result<(), TraceError> {
        if matches!(id, NO_STACK | STACK_LOST) || self.stacks.contains_key(&id) {
            return Ok(());
        }
        let name = if id & MORE == 0 { "stacks" } else { "more_stacks" };
        let map: StackTraceMap<&MapData> = StackTraceMap::try_from(self.tracer.map(name)?)?;
        let stack = map.get(&(id & !MORE), 0)?;
        self.stacks.insert(id, stack.frames().iter().map(|f| f.ip).collect());
        Ok(())
    }

    /// The times so far, longest in all first; without names if `kernel` is not given.
    pub fn read(&mut self, kernel: Option<&Kallsyms>) -> Result<Vec<Row>, TraceError> {
        let totals: BTreeMap<Key, [u64; 4]> = self.tracer.hash("totals")?;
        let mut rows = Vec::new();
        for (key, [count, ns, max, open]) in totals.into_iter().filter(|(_, total)| total[0] > 0) {
            let parts = Parts::of(&key);
            let frames = match kernel {
                Some(kernel) => self.frames(&parts, kernel)?,
                None => Vec::new(),
            };
            let Parts { program: (tgid, _), state, comm, .. } = parts;
            rows.push(Row { tgid, comm, state, count, ns, max, open, frames });
        }
        rows.sort_by(|a, b| b.ns.cmp(&a.ns).then_with(|| a.frames.cmp(&b.frames)));
        Ok(rows)
    }

    fn frames(&mut self, parts: &Parts, kernel: &Kallsyms) -> Result<Vec<Frame>, TraceError> {
        self.read_stack(parts.user)?;
        self.read_stack(parts.kernel)?;
        let mut frames = vec![Frame::new(parts.comm.clone(), Kind::Thread)];
        if let Some(stack) = self.stacks.get(&parts.user) {
            frames.extend(user_frames(&self.symbols, parts.program, stack));
        }
        if let Some(stack) = self.stacks.get(&parts.kernel) {
            let mut in_kernel = kernel_frames(kernel, stack);
            // The innermost are the tracer's own and the scheduler's: the same in all stacks.
            while in_kernel.len() > 1 && in_kernel.last().is_some_and(|f| is_switching(&f.name)) {
                in_kernel.pop();
            }
            frames.extend(in_kernel);
        }
        for (id, which) in [(parts.user, "program's"), (parts.kernel, "kernel's")] {
            if id == STACK_LOST {
                frames.push(Frame::new(format!("[no room for the {which} stack]"), Kind::Nameless));
            }
        }
        frames.push(Frame::new(parts.state.word(), Kind::State));
        Ok(frames)
    }
}

fn is_switching(name: &str) -> bool {
    let tracer = ["bpf_", "__bpf_", "__traceiter_", "__probestub_"];
    let scheduler = ["__schedule", "schedule", "preempt_schedule", "io_schedule", "__cond_resched"];
    tracer.iter().chain(&scheduler).any(|p| name.starts_with(p))
}

/// What is to be known about the times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// Stacks for which there was no room.
    pub stacks_lost: u64,
    /// Times that are not measured since the kernel called no program where they ended.
    pub unseen: u64,
}

/// The rows as stacks, weighed in nanoseconds.
pub fn stacks(rows: &[Row]) -> Vec<Stack> {
    joined(rows.iter().map(|r| Stack { frames: r.frames.clone(), weight: r.ns }))
}
