//! The lab's own parts, by Criterion: opening a core, unwinding it, naming what was found.

use std::path::{Path, PathBuf};
use std::process::Command;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use elf_core::Core;
use elf_core::catch::Victim;
use elf_core::s4_memory::Lookup;
use elf_core::s7_symbols::Symbols;
use elf_core::victim::{self, Crash};

/// A core of this program as the victim.
fn core(dir: &Path, crash: Crash, threads: usize) -> Option<PathBuf> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(["--victim", crash.name(), &threads.to_string()]);
    std::fs::create_dir_all(dir).ok()?;
    Some(Victim::start(command, crash, dir).ok()?.core(dir).ok()?.0)
}

fn stages(c: &mut Criterion) {
    let dir = std::env::temp_dir().join(format!("elf-core-bench-{}", std::process::id()));
    let mut group = c.benchmark_group("elf-core");
    for (name, crash, threads) in [
        ("8 threads", Crash::Segv, 8),
        ("64 threads", Crash::Segv, 64),
        ("deep recursion", Crash::StackOverflow, 0),
    ] {
        // Where neither the kernel nor ptrace gives a core there is nothing to measure.
        let Some(path) = core(&dir.join(name.replace(' ', "-")), crash, threads) else { continue };
        let Ok(mut core) = Core::open(&path) else { continue };
        group.throughput(Throughput::Elements(core.process.threads.len() as u64));
        group.bench_with_input(BenchmarkId::new("open", name), &path, |b, path| {
            b.iter(|| Core::open(path).map(|c| c.process.threads.len()));
        });
        let memory = core.memory(&Lookup::default());
        let held = memory.segments().iter().filter(|s| s.is_load()).map(|s| s.filesz).sum();
        group.throughput(Throughput::Bytes(held));
        group.bench_function(BenchmarkId::new("search", name), |b| {
            b.iter(|| memory.search(b"in no core, it is to be hoped", usize::MAX).len());
        });
        let traces = core.backtraces(&memory);
        let frames = traces.iter().flatten().map(|t| t.frames.len()).sum::<usize>();
        group.throughput(Throughput::Elements(frames as u64));
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("unwind all", name), |b| b.iter(|| core.backtraces(&memory)));
        group.bench_function(BenchmarkId::new("name all, with lines", name), |b| {
            b.iter(|| {
                let mut symbols = Symbols::new(&memory, None, true);
                traces.iter().flatten().flat_map(|t| &t.frames).map(|f| symbols.frame(f).len()).sum::<usize>()
            });
        });
    }
    group.finish();
    // A few files of our own in the temporary directory.
    let _ = std::fs::remove_dir_all(dir);
}

criterion_group!(benches, stages);

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
