//! Our reader against eu-readelf, eu-stack and gdb, program against program: from exec to exit, output to /dev/null.
//!
//! The program starts itself again as our reader (`--child list CORE`) and as the victim.

#[path = "../shared/scratch.rs"]
mod scratch;

use std::fs;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use benches::compare::{Asked, Comparison, Outcome, publish};
use benches::counts;
use elf_core::Core;
use elf_core::catch::Victim;
use elf_core::s3_process::REGISTER_NAMES;
use elf_core::s4_memory::Lookup;
use elf_core::s7_symbols::Symbols;
use elf_core::victim::{self, Crash};
use elf_core::writer::{Layout, Load};
use scratch::Scratch;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["--victim", crash, threads] => run_victim(crash, threads),
        ["--child", "list", core] => list(core.as_ref()),
        ["--child", "notes", core] => pread_notes(core.as_ref()),
        ["--child", "bt", core] => backtraces(core.as_ref(), false),
        ["--child", "bt-lines", core] => backtraces(core.as_ref(), true),
        ["--child", "rss", program, rest @ ..] => rss(program, rest),
        _ => compare(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "elf-core-peers: {e}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<()> {
    let asked = Asked::by_arguments();
    let dir = Scratch::new("elf-core-peers")?;
    let outcomes = all(asked, &dir.path);
    publish(
        asked,
        "elf-core",
        &outcomes?,
        &[
            "Cost: wall time of one program from fork to exit, output to /dev/null; memory: the largest resident set of it.",
            "Goals: threads, registers and mappings at or below half of eu-readelf -n; 16 MiB resident on cores of 4 and 256 GiB; \
             all backtraces of 64 threads at or below half of eu-stack, of 1000 at or below a third of gdb.",
            "The limit is one pread of all notes by an otherwise empty program.",
        ],
    )?;
    Ok(())
}

fn all(asked: Asked, dir: &Path) -> Result<Vec<Outcome>> {
    let me = std::env::current_exe()?;
    let me = me.to_str().ok_or("a path that is not UTF-8")?;
    let (few, many) = if asked.test { (6, 10) } else { (64, 1000) };
    // Two threads are not idle workers: main, and the one that dies.
    let small = core_of(me, dir, Crash::Segv, few - 2)?;
    let large = core_of(me, dir, Crash::Segv, many - 2)?;
    let (small, large) = (small.as_str(), large.as_str());
    let mut out = Vec::new();
    for (threads, core) in [(few, small), (many, large)] {
        let unfair =
            "to eu-readelf: it prints x87 and SSE registers too, and decodes every note; to us: nothing";
        out.push(
            Comparison::new(format!("list, {threads} threads: threads, registers, mappings"), "ms", unfair)
                .headline()
                .contender("ours", || time(me, &["--child", "list", core]))
                .counted(|| counts::of(&[me, "--child", "list", core]))
                .contender("eu-readelf -n", || time("eu-readelf", &["-n", core]))
                .counted(|| counts::of(&["eu-readelf", "-n", core]))
                .contender("one pread of the notes", || time(me, &["--child", "notes", core]))
                .counted(|| counts::of(&[me, "--child", "notes", core]))
                .run(asked, 40),
        );
    }
    let unfair = "eu-stack stops at 256 frames a thread (no thread here has as many); gdb reads all debug information that it finds, \
                  also of the C library, shows arguments and finds tail calls, which we do not";
    for (threads, core) in [(few, small), (many, large)] {
        let gdb = ["-q", "-nx", "-batch", "-ex", "thread apply all bt", me, core];
        let title = format!("backtraces of all {threads} threads, with function names");
        let mut comparison = Comparison::new(title, "ms", unfair)
            .contender("ours", || time(me, &["--child", "bt", core]))
            .counted(|| counts::of(&[me, "--child", "bt", core]));
        if threads == few {
            // Of 1000 threads it had not come to an end after two minutes, when this was written.
            comparison =
                comparison.headline().contender("eu-stack", || time("eu-stack", &["--core", core, "-e", me]));
        }
        let comparison = comparison
            .contender("gdb", || time("gdb", &gdb))
            .contender("ours, with lines and inlined functions", || time(me, &["--child", "bt-lines", core]));
        out.push(comparison.run(asked, if threads == few { 15 } else { 8 }));
    }
    for gib in [4_u64, 256] {
        let path = sparse(small, dir, gib << 30)?;
        let core = path.to_str().ok_or("a path that is not UTF-8")?;
        let title = |what| format!("list, {few} threads, sparse core of {gib} GiB: {what}");
        out.push(
            Comparison::new(
                title("resident memory"),
                "MiB",
                "the notes are the same ones, the memory is one hole",
            )
            .contender("ours", || megabytes(me, &[me, "--child", "list", core]))
            .contender("eu-readelf -n", || megabytes(me, &["eu-readelf", "-n", core]))
            .apart("memory, not time")
            .run(asked, 6),
        );
        out.push(
            Comparison::new(title("time"), "ms", "the notes are the same ones, the memory is one hole")
                .contender("ours", || time(me, &["--child", "list", core]))
                .contender("eu-readelf -n", || time("eu-readelf", &["-n", core]))
                .run(asked, 15),
        );
    }
    let deep = core_of(me, dir, Crash::StackOverflow, 0)?;
    out.push(
        Comparison::new(
            "one thread of 100,000 frames and more",
            "ms",
            "only ours: eu-stack stops at 256 frames, gdb was not tried",
        )
        .contender("ours", || time(me, &["--child", "bt", &deep]))
        .run(asked, 8),
    );
    Ok(out)
}

/// Starts this program as the victim and brings its core.
fn core_of(me: &str, dir: &Path, crash: Crash, threads: usize) -> Result<String> {
    let dir = dir.join(format!("{}-{threads}", crash.name()));
    fs::create_dir_all(&dir)?;
    let mut command = Command::new(me);
    command.args(["--victim", crash.name(), &threads.to_string()]);
    let (path, _) = Victim::start(command, crash, &dir)?.core(&dir)?;
    Ok(path.to_str().ok_or("a path that is not UTF-8")?.to_owned())
}

/// A core with the notes of `core` and one hole of `size` bytes for memory.
fn sparse(core: &str, dir: &Path, size: u64) -> Result<PathBuf> {
    let read = Core::open(core.as_ref())?;
    let notes = read.segments.iter().find(|s| s.is_note()).ok_or("no notes")?;
    let notes = read.source.read_vec(notes.offset, notes.filesz);
    let load = Load { vaddr: 0x1000_0000_0000, memsz: size, filesz: size, flags: 6 };
    let (head, _) = Layout { machine: 62, notes, loads: vec![load] }.head();
    let path = dir.join(format!("sparse-{size}"));
    let file = fs::File::create(&path)?;
    file.write_all_at(&head, 0)?;
    file.set_len(head.len() as u64 + size)?;
    Ok(path)
}

/// Milliseconds from fork to exit.
fn time(program: &str, args: &[&str]) -> std::result::Result<f64, String> {
    let started = Instant::now();
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let took = started.elapsed().as_secs_f64() * 1e3;
    match status {
        Ok(s) if s.success() => Ok(took),
        Ok(s) => Err(format!("{program}: {s}")),
        Err(e) => Err(benches::peers::failed(program, &e)),
    }
}

/// The largest resident set of a program, by way of a child that has no other children.
fn megabytes(me: &str, args: &[&str]) -> std::result::Result<f64, String> {
    if benches::peers::find(args[0]).is_none() {
        return Err(benches::peers::failed(args[0], &std::io::ErrorKind::NotFound.into()));
    }
    let out = Command::new(me).args(["--child", "rss"]).args(args).output().map_err(|e| e.to_string())?;
    String::from_utf8_lossy(&out.stdout).trim().parse().map_err(|_| {
        let said = String::from_utf8_lossy(&out.stderr);
        said.lines().last().unwrap_or("no size of the resident set").to_owned()
    })
}

fn rss(program: &str, args: &[&str]) -> Result<()> {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if !status.success() {
        return Err(format!("{program}: {status}").into());
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    writeln!(std::io::stdout(), "{}", usage.max_rss() as f64 / 1024.0)?;
    Ok(())
}

fn run_victim(crash: &str, threads: &str) -> Result<()> {
    let crash: Crash = crash.parse()?;
    Ok(victim::run(crash, threads.parse()?)?)
}

/// Threads with their registers, and mappings, as text.
fn list(core: &Path) -> Result<()> {
    let core = Core::open(core)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for thread in &core.process.threads {
        writeln!(out, "thread {} signal {}", thread.tid, thread.signal)?;
        if let Some(registers) = &thread.registers {
            for (name, value) in REGISTER_NAMES.iter().zip(registers.0) {
                out.write_all(&register(name, value))?;
            }
        }
    }
    for f in &core.process.files {
        writeln!(out, "{:x}-{:x} {:x} {}", f.start, f.end, f.offset, f.path.display())?;
    }
    Ok(out.flush()?)
}

/// A register's name and value in a line. By hand, because `{name:<8} {value:#018x}` pads character by character: that was
/// 2.3 of the 3.8 million instructions of the list of 64 threads.
fn register(name: &str, value: u64) -> [u8; 30] {
    let mut line = *b"           0x                \n";
    line[2..2 + name.len()].copy_from_slice(name.as_bytes());
    for (i, digit) in line[13..29].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (60 - 4 * i)) as usize & 15];
    }
    line
}

/// The least that any reader must do.
fn pread_notes(core: &Path) -> Result<()> {
    let file = fs::File::open(core)?;
    let mut header = [0; 64 + 56];
    file.read_exact_at(&mut header, 0)?;
    let word = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes);
    let mut notes = vec![0; word(64 + 32)? as usize];
    file.read_exact_at(&mut notes, word(64 + 8)?)?;
    std::hint::black_box(notes);
    Ok(())
}

fn backtraces(core: &Path, lines: bool) -> Result<()> {
    let mut core = Core::open(core)?;
    let memory = core.memory(&Lookup::default());
    let traces = core.backtraces(&memory);
    let mut symbols = Symbols::new(&memory, None, lines);
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (thread, trace) in core.process.threads.iter().zip(&traces) {
        writeln!(out, "TID {}:", thread.tid)?;
        for (i, frame) in trace.iter().flat_map(|t| &t.frames).enumerate() {
            for place in symbols.frame(frame).iter() {
                let line = place.line.as_deref().unwrap_or("");
                writeln!(out, "#{i:<3} {:#018x} {} {line}", frame.pc, place.function)?;
            }
        }
    }
    Ok(out.flush()?)
}
