//! Arguments and narration; the mechanism is in the library.

mod show_growth;
mod show_tools;
mod show_views;
mod show_walk;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use elf_core::s4_memory::Lookup;
use elf_core::victim::{self, Crash};
use elf_core::{Core, collect};
use kit::Session;

/// What this lab can be asked.
#[derive(Debug, Args)]
pub struct Options {
    /// How the victim dies: segv, abort, stack-overflow, div0, deadlock-kill or uaf
    #[arg(long, value_name = "HOW", default_value = "segv", conflicts_with = "core")]
    crash: Crash,
    /// Take the victim's core by our own gcore even where the kernel would write one
    #[arg(long, conflicts_with = "core")]
    by_gcore: bool,
    /// How many idle worker threads the victim has
    #[arg(long, value_name = "N", default_value_t = 3)]
    workers: usize,
    /// Read this core
    #[arg(long, value_name = "FILE")]
    core: Option<PathBuf>,
    /// The program that the core is of, if it is not where it was
    #[arg(long, value_name = "FILE", requires = "core")]
    exe: Option<PathBuf>,
    /// Look for the mapped files below this directory
    #[arg(long, value_name = "DIR", requires = "core")]
    sysroot: Option<PathBuf>,
    /// Threads and their registers
    #[arg(long)]
    threads: bool,
    /// All notes, decoded
    #[arg(long)]
    notes: bool,
    /// Mappings and the files behind them
    #[arg(long)]
    maps: bool,
    /// Bytes of memory: address and length, as 0x7ffd1000,64
    #[arg(long, value_name = "ADDR,LEN", value_parser = words::range)]
    memory: Option<(u64, u64)>,
    /// Find text, or bytes written as 0x0a0b0c, in memory
    #[arg(long, value_name = "BYTES|TEXT")]
    search: Option<String>,
    /// Backtraces of all threads
    #[arg(long)]
    bt: bool,
    /// All of these; --core with --json alone means it too
    #[arg(long)]
    all: bool,
    /// How the cost grows with threads and frames
    #[arg(long, conflicts_with = "core")]
    growth: bool,
    /// What changed between two cores of one process
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["core", "memory", "search"])]
    diff: Option<Vec<PathBuf>>,
    /// Write a core of a running process, which goes on
    #[arg(long, value_name = "PID", conflicts_with_all = ["core", "diff"])]
    gcore: Option<i32>,
    /// Where --gcore writes to (default: core.PID)
    #[arg(long, value_name = "FILE", requires = "gcore")]
    out: Option<PathBuf>,
    /// Collect every core of this machine into a directory until Ctrl-C; changes core_pattern meanwhile
    #[arg(long, value_name = "DIR", conflicts_with_all = ["core", "diff", "gcore"])]
    collect: Option<PathBuf>,
    /// Collect through the coredump socket (Linux 6.16) instead of a pipe
    #[arg(long, requires = "collect")]
    socket: bool,
    /// Stop collecting after so many cores
    #[arg(long, value_name = "N", requires = "collect")]
    count: Option<usize>,
}

impl Options {
    fn lookup(&self) -> Lookup {
        Lookup { sysroot: self.sysroot.clone(), exe: self.exe.clone(), none: false }
    }

    fn any_view(&self) -> bool {
        self.all
            || self.threads
            || self.notes
            || self.maps
            || self.bt
            || self.memory.is_some()
            || self.search.is_some()
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match hidden(&arguments) {
        Some(code) => code,
        None => kit::main!(run),
    }
}

/// What only this lab, its tests and the kernel call: they must print nothing of their own.
fn hidden(arguments: &[String]) -> Option<ExitCode> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ok = match arguments.as_slice() {
        ["--victim", crash, "--threads-of-victim", n] => {
            crash.parse().ok().zip(n.parse().ok()).is_some_and(|(crash, n)| victim::run(crash, n).is_ok())
        }
        ["--store-core", dir, pid, _signal] => {
            pid.parse().is_ok_and(|pid| collect::store(std::io::stdin().lock(), dir.as_ref(), pid).is_ok())
        }
        ["--guard-core-pattern", new] => {
            collect::guard(new);
            true
        }
        _ => return None,
    };
    Some(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    if let Some(files) = &o.diff {
        return show_tools::diff(s, &files[0], &files[1]);
    }
    if o.growth {
        return show_growth::growth(s);
    }
    if let Some(pid) = o.gcore {
        return show_tools::gcore(s, pid, o.out.as_deref());
    }
    if let Some(dir) = &o.collect {
        return show_tools::collect(s, o, dir);
    }
    match &o.core {
        Some(path) => show_walk::file(s, o, path),
        None => show_walk::victim(s, o),
    }
}

/// Says what is wrong with a file that was read nevertheless.
fn problems(s: &mut Session, core: &Core) {
    const MOST: usize = 8;
    for problem in core.problems.iter().take(MOST) {
        s.missing(problem.to_string(), "the file itself; everything else is shown", "");
    }
    if core.problems.len() > MOST {
        s.say(format!("… and {} more things that are wrong with this file.", core.problems.len() - MOST));
    }
}
