//! Arguments and narration; the mechanism is in the library.

mod show_aborts;
mod show_anatomy;
mod show_counters;
mod show_locks;
mod show_percpu;
mod show_preempt;

use std::process::ExitCode;
use std::time::Duration;

use kit::{Session, Unavailable};
use rseq_spinlock::sys::rseq::{RseqError, Thread};
use rseq_spinlock::sys::slice::Slice;

#[derive(Debug, clap::Args)]
struct Options {
    /// Every lock under 1, 2, cores, 4 and 8 times as many threads: throughput, waits, fairness, CPU
    #[arg(long, group = "view")]
    locks: bool,
    /// Take the holder off its CPU, and see who pays
    #[arg(long, group = "view")]
    preempt: bool,
    /// Counter, free list and ring per CPU, against shards and one lock
    #[arg(long, group = "view")]
    percpu: bool,
    /// Abort on purpose, by preemption, signal, migration and membarrier, and count
    #[arg(long, group = "view")]
    trace_aborts: bool,
    /// One critical section: descriptor, instructions, and what happens at each
    #[arg(long, group = "view")]
    anatomy: bool,
    /// With --anatomy: which section
    #[arg(long, value_enum, default_value_t, requires = "anatomy")]
    section: show_anatomy::Section,
    /// With --locks: these numbers of threads
    #[arg(long, value_name = "N,N", value_delimiter = ',', requires = "locks", value_parser = clap::value_parser!(u16).range(1..=250))]
    threads: Vec<u16>,
    /// With --locks: milliseconds for each lock and number of threads
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    time: u64,
}

fn main() -> ExitCode {
    kit::main!(run)
}

fn run(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let thread = Thread::current().map_err(unavailable)?;
    if o.locks {
        show_locks::show(s, &o.threads, Duration::from_millis(o.time))
    } else if o.preempt {
        show_preempt::show(s, thread)
    } else if o.percpu {
        show_percpu::show(s)
    } else if o.trace_aborts {
        show_aborts::show(s)
    } else if o.anatomy {
        show_anatomy::show(s, o.section)
    } else {
        show_counters::show(s, thread)
    }
}

/// No rseq for this thread: what to do about it.
fn unavailable(e: RseqError) -> Unavailable {
    let fix = match &e {
        RseqError::Missing(_) | RseqError::NotKept(_) => {
            vec![
                "fix: Linux 4.18 with CONFIG_RSEQ; in a container, a seccomp profile that allows rseq(2)"
                    .into(),
            ]
        }
        RseqError::Taken(_) => {
            vec!["fix: unset GLIBC_TUNABLES, or the LD_PRELOAD that registers rseq itself".into()]
        }
        RseqError::TooSmall { .. } => vec!["fix: Linux 4.18; 6.3 for mm_cid".into()],
    };
    Unavailable { what: "cannot use restartable sequences".into(), why: e.to_string(), fix }
}

/// The slice extension, or a word in the narration that there is none here.
fn slice(s: &mut Session, thread: Thread) -> Option<Slice> {
    Slice::enable(thread)
        .inspect_err(|e| {
            s.missing("the time-slice extension", e.to_string(), "Linux 7.0; --preempt simulates it");
        })
        .ok()
}
