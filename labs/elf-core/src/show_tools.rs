//! What makes cores and compares them: diff, gcore, collect.

use std::path::Path;
use std::time::{Duration, Instant};

use elf_core::collect::{Collector, Way};
use elf_core::gcore::{self, Stopped};
use elf_core::s4_memory::Lookup;
use elf_core::{Core, collect, diff};
use kit::Session;
use kit::event::Table;

use crate::{Options, words};

/// What changed between two snapshots.
pub fn diff(s: &mut Session, a: &Path, b: &Path) -> anyhow::Result<()> {
    let nothing = Lookup { none: true, ..Lookup::default() };
    let (mut old, mut new) = (Core::open(a)?, Core::open(b)?);
    let (old_memory, new_memory) = (old.memory(&nothing), new.memory(&nothing));
    s.step_at("What changed between two snapshots", diff::HERE);
    let bar = s.progress(old_memory.segments().iter().map(|s| s.filesz).sum(), "comparing");
    let d = diff::diff((&old, &old_memory), (&new, &new_memory), |n| bar.add(n));
    drop(bar);
    let mut table = Table::new(["thread", "register", "before", "after"]).right([0, 2, 3]);
    for c in d.registers.iter().take(40) {
        table.push([
            c.tid.to_string(),
            c.register.to_owned(),
            format!("{:x}", c.before),
            format!("{:x}", c.after),
        ]);
    }
    if !d.registers.is_empty() {
        s.table(table);
    }
    let mut table = Table::new(["from", "pages", "in"]).right([0, 1]);
    for (start, n) in d.pages.iter().take(40) {
        let name = new
            .process
            .file_at(*start)
            .map_or_else(|| "anonymous memory".to_owned(), |f| f.path.display().to_string());
        table.push([
            format!("{start:x}"),
            n.to_string(),
            words::cut(&elf_core::source::printable(&name), 44),
        ]);
    }
    if !d.pages.is_empty() {
        s.table(table);
    }
    let pages: u64 = d.pages.iter().map(|(_, n)| n).sum();
    s.say(format!(
        "**{pages}** of {} pages differ, in {} runs; {} registers; {} threads born, {} gone.",
        d.compared,
        d.pages.len(),
        d.registers.len(),
        d.born.len(),
        d.gone.len()
    ));
    s.metric("pages_changed", "pages", pages as f64);
    s.metric("pages_compared", "pages", d.compared as f64);
    s.metric("registers_changed", "registers", d.registers.len() as f64);
    s.so("two snapshots show what a program changes while it runs", "--gcore PID, twice");
    Ok(())
}

/// A snapshot of a running process.
pub fn gcore(s: &mut Session, pid: i32, out: Option<&Path>) -> anyhow::Result<()> {
    let default = format!("core.{pid}");
    let path = out.unwrap_or(Path::new(&default));
    s.step_at(format!("Stop process {pid} for a moment, and write it down"), gcore::HERE);
    let started = Instant::now();
    let stopped = Stopped::all_of(pid)?;
    let stop = started.elapsed();
    let written = stopped.write(path)?;
    drop(stopped);
    let total = started.elapsed();
    s.say(format!(
        "All {} threads stood still after {:.2} ms, and went on after **{:.1} ms**.",
        written.threads,
        stop.as_secs_f64() * 1e3,
        total.as_secs_f64() * 1e3
    ));
    s.say(format!(
        "{}: {} long, {} of it data, {} mappings.",
        path.display(),
        words::size(written.bytes),
        words::size(written.data),
        written.mappings
    ));
    s.metric("threads", "threads", written.threads as f64);
    s.metric("stopped_ms", "ms", total.as_secs_f64() * 1e3);
    s.so(
        "a core needs no crash: ptrace stops, /proc shows",
        format!("--core {}, --diff A B", path.display()),
    );
    Ok(())
}

/// Collects cores until Ctrl-C or `--count`.
pub fn collect(s: &mut Session, o: &Options, dir: &Path) -> anyhow::Result<()> {
    let way = if o.socket { Way::Socket } else { Way::Pipe };
    s.step_at("Have the kernel bring every core of this machine", collect::HERE);
    let program = std::env::current_exe()?;
    let mut collector = Collector::start(way, dir, &program)?;
    let now = std::fs::read_to_string(collect::CORE_PATTERN).unwrap_or_default();
    s.say(format!(
        "core_pattern is now `{}`; it is put back when this ends, however it ends.",
        now.trim_end()
    ));
    let mut left = o.count.unwrap_or(usize::MAX);
    while left > 0 {
        // On Ctrl-C the process ends here; the guardian sees its pipe close and restores the setting.
        let Some(core) = collector.next(Duration::from_secs(1))? else { continue };
        left -= 1;
        let cause = Core::open(&core.path).map(|mut c| {
            let memory = c.memory(&Lookup::default());
            format!("{} {}", c.process.program.as_ref().map_or("?", |p| &p.name), c.cause(&memory, None))
        });
        s.say(format!(
            "**{}**: {}, {}",
            core.path.display(),
            words::size(core.bytes),
            cause.unwrap_or_else(|e| e.to_string())
        ));
    }
    s.so("core_pattern can name a file, a program or a socket", "--core FILE");
    Ok(())
}
