//! How the cost grows: with threads, and with frames.

use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use elf_core::Core;
use elf_core::catch::Victim;
use elf_core::core_file;
use elf_core::s4_memory::{Lookup, Memory};
use elf_core::victim::Crash;
use kit::Session;
use kit::event::{Lines, Scale, Table};

use crate::show_walk::Scratch;

/// Cores of more and more threads, read and unwound; then of more and more frames of one stack.
pub fn growth(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("Does the cost follow what there is to read?", core_file::HERE);
    let counts: &[usize] = if s.quick() { &[8, 32] } else { &[16, 64, 256, 1000] };
    let scratch = Scratch::new()?;
    let bar = s.progress(counts.len() as u64, "cores");
    let mut table =
        Table::new(["threads", "frames", "list ms", "us each", "backtraces ms", "us a frame"]).right(0..6);
    let (mut list, mut unwind) = (Vec::new(), Vec::new());
    for &threads in counts {
        let (opened, unwound, core, frames) = read(&scratch, Crash::Segv, threads - 2)?;
        let n = core.process.threads.len();
        list.push((n as f64, opened));
        unwind.push((n as f64, unwound));
        table.push([
            n.to_string(),
            frames.to_string(),
            format!("{opened:.2}"),
            format!("{:.1}", opened * 1e3 / n as f64),
            format!("{unwound:.2}"),
            format!("{:.2}", unwound * 1e3 / frames.max(1) as f64),
        ]);
        bar.add(1);
    }
    drop(bar);
    let (_, deep, _, frames) = read(&scratch, Crash::StackOverflow, 0)?;
    s.table(table);
    s.say(format!(
        "One stack of {frames} frames: {deep:.0} ms, {:.2} us a frame.",
        deep * 1e3 / frames as f64
    ));
    let each = |points: &[(f64, f64)], i: usize| points[i].1 / points[i].0;
    let last = list.len() - 1;
    let (a, b) = (each(&list, last) / each(&list, 0), each(&unwind, last) / each(&unwind, 0));
    s.lines(
        Lines::new("cost by number of threads", "threads", "ms")
            .scales(Scale::Log, Scale::Log)
            .series("list", list)
            .series("backtraces", unwind),
    );
    s.say(format!("A thread costs **{a:.1}** times as much to list and {b:.1} times as much to unwind among many as among few."));
    s.say("1.0 is linear; below it, what is looked up once is shared.");
    s.metric("growth_list", "ratio", a);
    s.metric("growth_backtrace", "ratio", b);
    s.so("the cost follows the notes and the frames, not the size of the core", "--crash stack-overflow");
    Ok(())
}

/// The core of a new victim: milliseconds to open and to unwind it, the core, and how many frames it has.
fn read(scratch: &Scratch, crash: Crash, threads: usize) -> anyhow::Result<(f64, f64, Core, usize)> {
    let dir = scratch.0.join(format!("{}-{threads}", crash.name()));
    std::fs::create_dir(&dir)?;
    let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
    command.args(["--victim", crash.name(), "--threads-of-victim", &threads.to_string()]);
    let (path, _) = Victim::start(command, crash, &dir)?.core(&dir)?;
    let (opened, mut core) = best(|| Ok(Core::open(&path)?))?;
    let memory: Memory = core.memory(&Lookup::default());
    let (unwound, traces) = best(|| Ok(core.backtraces(&memory)))?;
    let frames = traces.iter().flatten().map(|t| t.frames.len()).sum();
    Ok((opened, unwound, core, frames))
}

/// The quickest of three, in milliseconds, and what it returned.
fn best<T>(mut f: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let mut best: Option<(f64, T)> = None;
    for _ in 0..3 {
        let started = Instant::now();
        let value = f()?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        if best.as_ref().is_none_or(|(b, _)| took < *b) {
            best = Some((took, value));
        }
    }
    best.context("nothing was measured")
}
