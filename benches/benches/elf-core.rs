//! The lab's own parts, by Criterion: notes, opening a core, searching it, unwinding it, naming what was found.

#[path = "../shared/core_in_memory.rs"]
mod core_in_memory;
#[path = "../shared/scratch.rs"]
mod scratch;

use std::collections::HashSet;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group};
use elf_core::catch::Victim;
use elf_core::s1_header::{Header, read_segments};
use elf_core::s2_notes::read_notes;
use elf_core::s3_process::Process;
use elf_core::s4_memory::Lookup;
use elf_core::s6_unwind::Frame;
use elf_core::s7_symbols::Symbols;
use elf_core::source::Source;
use elf_core::victim::{self, Crash};
use elf_core::{Core, disasm};
use scratch::Scratch;

/// A core of this program as the victim.
fn core(dir: &Path, crash: Crash, threads: usize) -> Option<PathBuf> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(["--victim", crash.name(), &threads.to_string()]);
    std::fs::create_dir_all(dir).ok()?;
    Some(Victim::start(command, crash, dir).ok()?.core(dir).ok()?.0)
}

fn stages(c: &mut Criterion) {
    let dir = Scratch::new("elf-core-bench").expect("a folder in the temporary one");
    for (name, crash, threads) in [
        ("8 threads", Crash::Segv, 8),
        ("64 threads", Crash::Segv, 64),
        ("deep recursion", Crash::StackOverflow, 0),
    ] {
        // Where neither the kernel nor ptrace gives a core there is nothing to measure.
        let Some(path) = core(&dir.path.join(name.replace(' ', "-")), crash, threads) else { continue };
        stages_of(c, name, &path);
    }
}

fn stages_of(c: &mut Criterion, name: &str, path: &Path) {
    let mut group = c.benchmark_group("elf-core");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3)).sample_size(50);
    let mut core = Core::open(path).expect("a core that was just written");
    group.throughput(Throughput::Elements(core.process.threads.len() as u64));
    group.bench_function(BenchmarkId::new("open", name), |b| {
        b.iter(|| Core::open(path).expect("the same core"));
    });
    let memory = core.memory(&Lookup::default());
    // What the file holds: its holes are skipped.
    let held = memory.segments().iter().filter(|s| s.is_load()).map(|s| s.filesz).sum::<u64>();
    let on_disk = 512 * std::fs::metadata(path).map_or(u64::MAX, |m| m.blocks());
    group.throughput(Throughput::Bytes(held.min(on_disk)));
    group.bench_function(BenchmarkId::new("search", name), |b| {
        b.iter(|| memory.search(b"in no core, it is to be hoped", usize::MAX).len());
    });
    let traces = core.backtraces(&memory);
    let frames: Vec<&Frame> = traces.iter().flatten().flat_map(|t| &t.frames).collect();
    // These take up to a second each.
    group.sample_size(10);
    group.throughput(Throughput::Elements(frames.len() as u64));
    group.bench_function(BenchmarkId::new("unwind all", name), |b| b.iter(|| core.backtraces(&memory)));
    // The tables of a file are read when the first name in it is asked for. Addresses that were asked for once are
    // known, so each round begins anew, and only what it is about is timed.
    let loaded = || {
        let mut symbols = Symbols::new(&memory, None, true);
        frames.iter().for_each(|f| _ = symbols.function_range(f.pc));
        symbols
    };
    group.bench_function(BenchmarkId::new("name all, with lines", name), |b| {
        b.iter_batched_ref(
            loaded,
            |symbols| frames.iter().map(|f| symbols.frame(f).len()).sum::<usize>(),
            BatchSize::PerIteration,
        );
    });
    let modules: HashSet<u64> =
        frames.iter().filter_map(|f| memory.module(f.pc)).map(|m| m.range.0).collect();
    group.throughput(Throughput::Elements(modules.len() as u64));
    group.bench_function(BenchmarkId::new("load symbols and lines", name), |b| b.iter(loaded));
    // The view of the instruction that failed: five before it, five behind it.
    let pc = core.dead_thread().and_then(|t| t.registers.as_ref()).expect("a dead thread").rip();
    let start = Symbols::new(&memory, None, false).function_range(pc).map(|(start, _)| start);
    group.throughput(Throughput::Elements(disasm::around(&memory, pc, start, 5, 5).len() as u64));
    group.sample_size(50);
    group.bench_function(BenchmarkId::new("disassemble", name), |b| {
        b.iter(|| disasm::around(&memory, pc, start, 5, 5));
    });
    group.finish();
}

/// Notes alone, of cores that are in memory: no file, no victim.
fn notes(c: &mut Criterion) {
    let mut group = c.benchmark_group("elf-core/notes");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(50);
    for threads in [64_usize, 1000] {
        let source = Source::bytes(core_in_memory::core(threads));
        let mut problems = Vec::new();
        let header = Header::read(&source, &mut problems).expect("the core that was just written");
        let segments = read_segments(&source, &header, &mut problems);
        let notes = read_notes(&source, &header, &segments, &mut problems);
        assert_eq!(notes.len(), threads + 2, "{problems:?}");
        let size = format!("{threads} threads");
        group.throughput(Throughput::Elements(notes.len() as u64));
        group.bench_function(BenchmarkId::new("walk", &size), |b| {
            b.iter(|| read_notes(black_box(&source), &header, &segments, &mut Vec::new()));
        });
        group.throughput(Throughput::Elements(threads as u64));
        group.bench_function(BenchmarkId::new("decode", &size), |b| {
            b.iter(|| Process::read(black_box(&source), &header, &notes, &mut Vec::new()));
        });
    }
    group.finish();
}

criterion_group!(benches, notes, stages);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, victim, crash, threads] = args.as_slice()
        && victim == "--victim"
    {
        if let (Ok(crash), Ok(threads)) = (crash.parse(), threads.parse()) {
            // Whatever goes wrong shows as a core that is missing.
            let _ = victim::run(crash, threads);
        }
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
