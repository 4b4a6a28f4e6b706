//! The view `uprobe`: calls of a function in user space, and how long they took.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use aya::programs::Program;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeScope};
use kit::SysError;

use crate::error::{TraceError, refused};
use crate::filter::Filter;
use crate::histogram::Histogram;
use crate::ring::text;
use crate::syscalls::By;
use crate::target::Target;
use crate::tracer::{Means, Plan, Tracer};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/uprobe.bpf.o");

/// Where a function is probed.
pub const HERE: kit::Place = kit::here!();

/// What to count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whose calls. With a process, no other gets the breakpoint.
    pub filter: Filter,
    /// By what.
    pub by: By,
    /// Only calls that took at least so many nanoseconds.
    pub slower_than: u64,
    /// Most processes (or threads) that are kept; 0: the object's own limit.
    pub entries: u32,
}

/// Calls by one process or thread, or by all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Process or thread; 0 for all together.
    pub id: u32,
    /// Its name.
    pub comm: String,
    /// How often the function was entered.
    pub calls: u64,
    /// Returns of which no begin is known: of calls that began before the trace, or more than 64 calls deep.
    pub untimed: u64,
    /// How long the others took.
    pub latency: Histogram,
}

impl Row {
    /// Calls that have not come back: they still run, or left by another way (exit, exec, longjmp, an exception).
    pub fn out(&self) -> u64 {
        self.calls.saturating_sub(self.latency.count() + self.untimed)
    }
}

/// A running count.
#[derive(Debug)]
pub struct Uprobe {
    tracer: Tracer,
}

impl Uprobe {
    /// Attaches; from the return on, nothing is missed.
    pub fn start(target: &Target, o: &Options) -> Result<Self, TraceError> {
        let timing = target.offset == 0;
        let word = |n: u32| n.to_ne_bytes().to_vec();
        let by = match o.by {
            By::Syscall => 0,
            By::Process => 1,
            By::Thread => 2,
        };
        let entries = ["calls", "latencies", "comms"].map(|map| (map, o.entries));
        let mut tracer = Tracer::start(&Plan {
            object: OBJECT,
            hooks: &[],
            filter: o.filter.clone(),
            constants: vec![
                ("by", word(by)),
                ("timing", word(timing.into())),
                ("slower_than", o.slower_than.to_ne_bytes().to_vec()),
            ],
            entries: if o.entries == 0 { Vec::new() } else { entries.to_vec() },
            means: None,
        })?;
        // Returns first: a call that is seen to begin is then seen to end.
        for (program, wanted) in [("leave", timing), ("enter", true)] {
            if wanted {
                attach(&mut tracer, program, target, o.filter.pid)?;
            }
        }
        Ok(Self { tracer })
    }

    /// What is attached.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// The counts so far, most frequent first.
    pub fn read(&self) -> Result<Vec<Row>, TraceError> {
        let t = &self.tracer;
        let sum = |copies: &[[u64; 2]]| copies.iter().fold([0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
        let calls: BTreeMap<u32, [u64; 2]> = t.per_cpu("calls", sum)?;
        let mut latencies: BTreeMap<u32, Histogram> = t.per_cpu("latencies", Histogram::joined)?;
        let comms: BTreeMap<u32, [u8; 16]> = t.hash("comms")?;
        let row = |(id, [calls, untimed]): (u32, [u64; 2])| Row {
            id,
            comm: comms.get(&id).map(|c| text(c)).unwrap_or_default(),
            calls,
            untimed,
            latency: latencies.remove(&id).unwrap_or_default(),
        };
        let mut rows: Vec<Row> = calls.into_iter().map(row).collect();
        rows.sort_by_key(|r| (std::cmp::Reverse(r.calls), r.id));
        Ok(rows)
    }
}

/// What a refusal of the breakpoint means.
fn cannot(e: SysError) -> SysError {
    let why = match e.errno {
        libc::EACCES | libc::EPERM => {
            "a breakpoint takes CAP_SYS_ADMIN in newer kernels, in older ones CAP_PERFMON\n  fix: run it as root (--elevate)"
        }
        libc::ESRCH => "the process has ended meanwhile",
        _ => return e,
    };
    SysError::new("perf_event_open(uprobe)", e.errno).with_detail(why)
}

fn attach(tracer: &mut Tracer, name: &str, target: &Target, pid: Option<u32>) -> Result<(), TraceError> {
    let scope = match pid.and_then(NonZeroU32::new) {
        Some(pid) => UProbeScope::OneProcess(pid),
        None => UProbeScope::AllProcesses,
    };
    let mut links = Vec::new();
    let Program::UProbe(program) = tracer.program_mut(name)? else {
        return Err(TraceError::Object(format!("{name} is no uprobe")));
    };
    program.load()?;
    for function in &target.functions {
        let at = UProbeAttachLocation::AbsoluteOffset(function.place);
        let link = program.attach(at, &target.path, scope).and_then(|id| program.take_link(id));
        links.push(link.map_err(|e| cannot(refused(&e)))?);
    }
    links.into_iter().for_each(|link| tracer.keep(Box::new(link)));
    let hook = target.functions.first().map_or("", |f| f.name.as_str());
    tracer.note(name, if name == "leave" { "its return" } else { hook }, Means::Uprobe)
}
