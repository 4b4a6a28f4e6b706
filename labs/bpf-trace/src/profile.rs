//! The view `profile`: what the CPUs are doing, asked by a clock on each of them.
//!
//! A sample is what the clock interrupted: the thread, its stack in the kernel and that in its program. The more of
//! all samples a function is in, the more of the time it takes.

use std::collections::{BTreeMap, BTreeSet};

use aya::programs::Program;
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use kit::SysError;

use crate::error::{TraceError, refused};
use crate::filter::Filter;
use crate::kallsyms::Kallsyms;
use crate::ring::{Record, Ring};
use crate::stacks::{Frame, Kind, Stack, joined};
use crate::symbols::{self, Symbols};
use crate::tracer::{Link, Means, Plan, Tracer};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/profile.bpf.o");

/// Where the clocks are set.
pub const HERE: kit::Place = kit::here!();

/// Frames that a stack is cut to.
pub const DEPTH: usize = 127;

/// What to sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whose time.
    pub filter: Filter,
    /// Samples a second on each CPU.
    pub frequency: u64,
}

/// Equal samples.
type Key = (symbols::Program, String, Vec<u64>, Vec<u64>);

/// A running profile.
#[derive(Debug)]
pub struct Profile {
    tracer: Tracer,
    ring: Ring,
    symbols: Symbols,
    samples: BTreeMap<Key, u64>,
    threads: BTreeSet<u32>,
}

impl Profile {
    /// Sets a clock on each CPU.
    ///
    /// # Errors
    ///
    /// EINVAL: a frequency above kernel.perf_event_max_sample_rate.
    pub fn start(o: &Options) -> Result<Self, TraceError> {
        let mut tracer =
            Tracer::start(&Plan { object: OBJECT, filter: o.filter.clone(), ..Plan::default() })?;
        let Program::PerfEvent(program) = tracer.program_mut("cpu_clock")? else {
            return Err(TraceError::Object("cpu_clock is not for perf events".into()));
        };
        program.load().map_err(|e| refused(&e))?;
        let cpus = aya::util::online_cpus().map_err(|(what, e)| SysError::io(what.to_owned())(e))?;
        let mut links: Vec<Link> = Vec::new();
        for cpu in cpus {
            let event = PerfEventConfig::Software(SoftwareEvent::CpuClock);
            let scope = PerfEventScope::AllProcessesOneCpu { cpu };
            let policy = SamplePolicy::Frequency(o.frequency);
            let link = program.attach(event, scope, policy, true).and_then(|id| program.take_link(id));
            links.push(Box::new(link.map_err(|e| {
                let mut e = refused(&e);
                e.call = "perf_event_open(PERF_COUNT_SW_CPU_CLOCK)".into();
                if e.errno == libc::EINVAL {
                    return e.with_detail("see kernel.perf_event_max_sample_rate for the highest frequency");
                }
                e
            })?));
        }
        links.into_iter().for_each(|link| tracer.keep(link));
        tracer.note("cpu_clock", "cpu-clock", Means::PerfEvent)?;
        let ring = tracer.ring("samples")?;
        let (symbols, samples) = (Symbols::default(), BTreeMap::new());
        Ok(Self { tracer, ring, symbols, samples, threads: BTreeSet::new() })
    }

    /// What is attached.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Where samples come from.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Takes in the samples that are there, and looks at their processes while these are there, too.
    pub fn take(&mut self) {
        let Self { ring, symbols, samples, threads, .. } = self;
        ring.drain(|mut record| {
            let (tgid, tid, mm) = (record.u32(), record.u32(), record.u64());
            let comm = record.text(16);
            let (kernel, user) = (record.u32() as usize, record.u32() as usize);
            let mut kernel = Record(record.bytes(kernel));
            let mut user = Record(record.bytes(user));
            let addresses = |r: &mut Record<'_>| (0..r.0.len() / 8).map(|_| r.u64()).collect::<Vec<u64>>();
            let (kernel, user) = (addresses(&mut kernel), addresses(&mut user));
            symbols.see((tgid, mm), &user);
            threads.insert(tid);
            *samples.entry(((tgid, mm), comm, kernel, user)).or_default() += 1;
        });
    }

    /// Samples taken in so far.
    pub fn count(&self) -> u64 {
        self.samples.values().sum()
    }

    /// Threads that have been seen.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Times that a clock found its CPU idle.
    pub fn idle(&self) -> Result<u64, TraceError> {
        let idle: Vec<u64> = self.tracer.array("idle", |copies: &[u64]| copies.iter().sum())?;
        Ok(idle.iter().sum())
    }

    /// Samples by thread, without their stacks: most first.
    pub fn by_process(&self) -> Vec<(u32, String, u64)> {
        let mut all: BTreeMap<(u32, &str), u64> = BTreeMap::new();
        for (((tgid, _), comm, _, _), n) in &self.samples {
            *all.entry((*tgid, comm)).or_default() += n;
        }
        let mut all: Vec<_> = all.into_iter().map(|((id, comm), n)| (id, comm.to_owned(), n)).collect();
        all.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
        all
    }

    /// The samples' stacks with names, of `pid` or of all, heaviest first.
    pub fn stacks(&self, kernel: &Kallsyms, pid: Option<u32>) -> Vec<Stack> {
        let samples = self.samples.iter().filter(|((program, ..), _)| pid.is_none_or(|p| p == program.0));
        joined(samples.map(|((program, comm, in_kernel, in_user), n)| {
            let mut frames = vec![Frame::new(comm.clone(), Kind::Thread)];
            frames.extend(user_frames(&self.symbols, *program, in_user));
            frames.extend(kernel_frames(kernel, in_kernel));
            Stack { frames, weight: *n }
        }))
    }
}

/// The program's part of a stack, first caller first. The kernel hands it over the other way round.
pub(crate) fn user_frames(symbols: &Symbols, program: symbols::Program, stack: &[u64]) -> Vec<Frame> {
    let mut frames: Vec<Frame> =
        stack.iter().enumerate().map(|(i, address)| symbols.frame(program, *address, i > 0)).collect();
    if stack.len() >= DEPTH {
        frames.push(Frame::new("[cut off here]", Kind::Nameless));
    }
    frames.reverse();
    // A chain of addresses that mean nothing says no more than one.
    frames.dedup_by(|a, b| a == b && a.kind == Kind::Nameless);
    frames
}

/// The kernel's part.
pub(crate) fn kernel_frames(kernel: &Kallsyms, stack: &[u64]) -> Vec<Frame> {
    let name = |(i, address): (usize, &u64)| {
        Frame::new(kernel.name(address.wrapping_sub(u64::from(i > 0))), Kind::Kernel)
    };
    let mut frames: Vec<Frame> = stack.iter().enumerate().map(name).collect();
    frames.reverse();
    frames.dedup_by(|a, b| a == b && a.name.starts_with('['));
    frames
}
