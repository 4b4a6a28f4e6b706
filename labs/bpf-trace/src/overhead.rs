//! What a traced call costs, against an untraced one: in turn, round by round, by the same process.

use kit::SysError;
use kit::stats::Ratio;

use crate::error::TraceError;
use crate::filter::Filter;
use crate::s1_by_hand::{self, Counter};
use crate::sys::bpf::{self, Code};
use crate::syscalls::{By, Options, Syscalls};
use crate::workload::Caller;

/// Where it is measured.
pub const HERE: kit::Place = kit::here!();

/// What may be attached while the calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Nothing: the reference.
    Nothing,
    /// A program that only returns, at the exit of each call: the least that tracing costs.
    Empty,
    /// Stage 1: one counter for all.
    ByHand,
    /// The view `syscalls`, by process.
    Counts,
    /// The same with latency: two programs.
    Latency,
}

impl Load {
    /// All of them, the reference first.
    pub const ALL: [Self; 5] = [Self::Nothing, Self::Empty, Self::ByHand, Self::Counts, Self::Latency];

    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "untraced",
            Self::Empty => "empty, at the exit",
            Self::ByHand => "step 1, at the entry",
            Self::Counts => "by process, call, error",
            Self::Latency => "with a latency histogram",
        }
    }

    /// Its name in metrics.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Nothing => "untraced",
            Self::Empty => "empty",
            Self::ByHand => "by_hand",
            Self::Counts => "counts",
            Self::Latency => "latency",
        }
    }

    /// Attaches; what is returned keeps it attached.
    fn attach(self) -> Result<Box<dyn std::any::Any>, TraceError> {
        let view = |timing| {
            let o = Options { by: By::Process, timing, filter: Filter::default(), ..Options::default() };
            Syscalls::start(&o)
        };
        Ok(match self {
            Self::Nothing => Box::new(()),
            Self::Empty => {
                let code = [s1_by_hand::insn(0xb7, 0, 0, 0, 0), s1_by_hand::insn(0x95, 0, 0, 0, 0)];
                let program = bpf::prog_load(Code::raw_tp(&code), 0).program?;
                Box::new(bpf::attach(std::os::fd::AsFd::as_fd(&program), Some(c"sys_exit"))?)
            }
            Self::ByHand => Box::new(Counter::start()?),
            Self::Counts => Box::new(view(false)?),
            Self::Latency => Box::new(view(true)?),
        })
    }
}

/// What was measured: nanoseconds a call, a round each.
#[derive(Debug, Clone)]
pub struct Overhead {
    /// What was attached, and the rounds.
    pub rounds: Vec<(Load, Vec<f64>)>,
}

impl Overhead {
    /// Measures all of [`Load::ALL`] in turn, `rounds` times, with `pairs` pairs of calls each. After each round
    /// `progress` is called.
    ///
    /// A round is many short parts, of which the fastest counts: what else runs on the machine only ever adds.
    pub fn measure(
        caller: &mut Caller,
        rounds: usize,
        pairs: u32,
        mut progress: impl FnMut(),
    ) -> Result<Self, TraceError> {
        let mut all: Vec<(Load, Vec<f64>)> = Load::ALL.iter().map(|l| (*l, Vec::new())).collect();
        for _ in 0..rounds {
            for (load, times) in &mut all {
                let _attached = load.attach()?;
                times.push(fastest(caller, pairs)?);
            }
            progress();
        }
        Ok(Self { rounds: all })
    }

    /// A load against the reference.
    pub fn ratio(&self, load: Load) -> Option<Ratio> {
        Ratio::paired(self.of(load), self.of(Load::Nothing))
    }

    /// The rounds of a load.
    pub fn of(&self, load: Load) -> &[f64] {
        self.rounds.iter().find(|(l, _)| *l == load).map_or(&[], |(_, rounds)| rounds)
    }
}

fn fastest(caller: &mut Caller, pairs: u32) -> Result<f64, SysError> {
    /// Pairs in a part: short enough that some are not interrupted.
    const PART: u32 = 500;
    let mut least = f64::INFINITY;
    for _ in 0..pairs.div_ceil(PART) {
        least = least.min(caller.ns_a_call(PART)?);
    }
    Ok(least)
}
