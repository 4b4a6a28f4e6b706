//! What the lab does outside the kernel, by Criterion: decoding what programs have kept, its histogram, its names;
//! and from an object file to programs that are attached.

use std::hint::black_box;
use std::time::Duration;

use bpf_trace::disasm;
use bpf_trace::elf_symbols::ElfSymbols;
use bpf_trace::flame::Node;
use bpf_trace::histogram::{self, Histogram};
use bpf_trace::json::Lines;
use bpf_trace::kallsyms::Kallsyms;
use bpf_trace::names;
use bpf_trace::open::{Open, Words};
use bpf_trace::ring::Record;
use bpf_trace::s1_by_hand::insn;
use bpf_trace::stacks::{self, Frame, Kind, Stack};
use bpf_trace::syscalls::{Options, Syscalls};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Latencies from 100 ns up, as system calls have them: most are short, few are long.
fn values() -> Vec<u64> {
    (0..10_000_u64).map(|i| 100 + (i * i * i) % 9973 * (1 + i % 7)).collect()
}

fn histogram_of(values: &[u64]) -> Histogram {
    let mut h = Histogram::default();
    for v in values {
        h.buckets[Histogram::bucket_of(*v)] += 1;
        h.sum += v;
        h.max = h.max.max(*v);
    }
    h
}

/// `struct calls` as the kernel hands it over: count, failed, histogram.
fn encoded(h: &Histogram) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [h.count(), 0, h.sum, h.max] {
        bytes.extend(word.to_ne_bytes());
    }
    for bucket in &h.buckets {
        bytes.extend((*bucket as u32).to_ne_bytes());
    }
    bytes
}

/// `struct event` of `bpf/open.bpf.c`: an openat by a path that is relative to a folder, and succeeds.
fn open_event() -> Vec<u8> {
    let mut bytes = Vec::new();
    let (at, ns, flags, resolve) = (123_456_789_012_u64, 0_u64, libc::O_CLOEXEC as u64, 0_u64);
    for word in [at, ns, flags, resolve] {
        bytes.extend(word.to_ne_bytes());
    }
    let (mode, openat, result, dirfd) = (0_i32, 257_i32, 3_i32, libc::AT_FDCWD);
    let (pid, tid, uid, names_cut) = (4242_i32, 4242_i32, 1000_i32, 0_i32);
    for word in [mode, openat, result, dirfd, pid, tid, uid, names_cut] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(b"cargo\0\0\0\0\0\0\0\0\0\0\0");
    let (path, names) = (b"target/release/deps/libcore.rlib\0", b"benchtop\0src\0user\0home\0\0");
    bytes.extend((path.len() as u32).to_ne_bytes());
    bytes.extend((names.len() as u32).to_ne_bytes());
    bytes.extend(path);
    bytes.extend(names);
    bytes
}

fn decoding(c: &mut Criterion) {
    let record = encoded(&histogram_of(&values()));
    let mut group = c.benchmark_group("bpf-trace/decode");
    for rows in [1_usize, 100] {
        group.throughput(Throughput::Bytes((rows * record.len()) as u64));
        group.bench_function(format!("calls, {rows} rows"), |b| {
            b.iter(|| {
                let mut all = Histogram::default();
                for _ in 0..rows {
                    let mut r = Record(black_box(&record));
                    black_box((r.u64(), r.u64()));
                    all.add(&Histogram::read(&mut r));
                }
                all
            });
        });
    }
    // The way of an event from the ring to the file: the goal is a million a second, tracing included.
    let event = open_event();
    let (mut words, mut lines) = (Words::default(), Lines::default());
    group.throughput(Throughput::Elements(1));
    group.bench_function("an open, to a line of JSON", |b| {
        b.iter(|| {
            lines.text.clear();
            Open::read(Record(black_box(&event))).json(0, &mut words, &mut lines);
            lines.text.len()
        });
    });
    let line = b"/usr/lib/x86_64-linux-gnu/libc.so.6\0\0\0\0\0";
    group.throughput(Throughput::Elements(1));
    group.bench_function("text", |b| b.iter(|| Record(black_box(line)).text(line.len())));
    group.finish();
}

fn histograms(c: &mut Criterion) {
    let values = values();
    let full = histogram_of(&values);
    let mut group = c.benchmark_group("bpf-trace/histogram");
    group.throughput(Throughput::Elements(values.len() as u64));
    group.bench_function("bucket_of", |b| {
        b.iter(|| values.iter().map(|v| Histogram::bucket_of(black_box(*v))).sum::<usize>());
    });
    group.throughput(Throughput::Elements(histogram::BUCKETS as u64));
    group.bench_function("percentile", |b| b.iter(|| full.percentile(black_box(0.99))));
    group.bench_function("powers", |b| b.iter(|| black_box(&full).powers()));
    group.finish();
}

/// 10,000 stacks of 8 to 39 frames with a common trunk, as `profile` finds them: many are equal.
fn sampled() -> Vec<Stack> {
    let frame = |level: usize, branch: usize| {
        let kind = if level > 24 { Kind::Kernel } else { Kind::User };
        Frame::new(format!("library::module_{branch}::function_{level}"), kind)
    };
    let one = |i: usize| {
        let (depth, branch) = (8 + i % 32, i % 50);
        let frames = (0..depth).map(|level| frame(level, if level < 6 { 0 } else { branch })).collect();
        Stack { frames, weight: 1 + (i % 3) as u64 }
    };
    (0..10_000).map(one).collect()
}

fn stacks(c: &mut Criterion) {
    let sampled = sampled();
    let joined = stacks::joined(sampled.iter().cloned());
    let mut group = c.benchmark_group("bpf-trace/stacks");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3)).sample_size(20);
    group.throughput(Throughput::Elements(sampled.len() as u64));
    group.bench_function("join equal ones", |b| {
        b.iter_batched(|| sampled.clone(), stacks::joined, BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(joined.len() as u64));
    group.bench_function("fold", |b| b.iter(|| stacks::folded(black_box(&joined), 1).len()));
    group.bench_function("flame graph's tree", |b| b.iter(|| Node::tree("all", black_box(&joined)).weight));
    group.finish();
}

fn symbols(c: &mut Criterion) {
    // As many functions as a kernel has, at addresses that are not asked for in order.
    const FUNCTIONS: u64 = 100_000;
    const BASE: u64 = 0xffff_ffff_8100_0000;
    let text: String = (0..FUNCTIONS)
        .map(|i| format!("{:016x} t some_function_of_the_kernel_{i}\n", BASE + i * 64))
        .collect();
    let kernel = Kallsyms::parse(&text);
    let addresses: Vec<u64> = (0..1000_u64).map(|i| BASE + i * 7919 % FUNCTIONS * 64 + 17).collect();
    let me = std::fs::read("/proc/self/exe").expect("this program can be read");
    let program = ElfSymbols::read(&*me).expect("this program is an ELF file");
    let mut group = c.benchmark_group("bpf-trace/symbols");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3)).sample_size(20);
    group.throughput(Throughput::Elements(FUNCTIONS));
    group.bench_function("read kallsyms", |b| b.iter(|| Kallsyms::parse(black_box(&text))));
    group.throughput(Throughput::Elements(addresses.len() as u64));
    group.bench_function("kernel function", |b| {
        b.iter(|| addresses.iter().map(|a| kernel.name(black_box(*a)).len()).sum::<usize>());
    });
    group.throughput(Throughput::Bytes(me.len() as u64));
    group.bench_function("read an ELF file's tables", |b| b.iter(|| ElfSymbols::read(black_box(&*me))));
    // Between the first and the last function there are few gaps.
    let all: Vec<u64> = (0..me.len() as u64).step_by(me.len() / 1000 + 1).collect();
    group.throughput(Throughput::Elements(all.len() as u64));
    group.bench_function("program's function", |b| {
        b.iter(|| {
            let found = |offset: &&u64| program.address(**offset).and_then(|a| program.function(a)).is_some();
            all.iter().filter(found).count()
        });
    });
    group.finish();
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("bpf-trace/names");
    group.throughput(Throughput::Elements(1));
    group.bench_function("syscall", |b| b.iter(|| names::syscall(black_box(257))));
    group.bench_function("syscall_number", |b| b.iter(|| names::syscall_number(black_box("openat"))));
    group.bench_function("errno", |b| b.iter(|| names::errno(black_box(2))));
    group.finish();
}

fn disassembly(c: &mut Criterion) {
    // Of each class one: store, move, add, call, jump, atomic, exit.
    let code: Vec<u64> = [
        insn(0x62, 10, 0, -4, 0),
        insn(0xbf, 2, 10, 0, 0),
        insn(0x07, 2, 0, 0, -4),
        insn(0x85, 0, 0, 0, 1),
        insn(0x15, 0, 0, 2, 0),
        insn(0xdb, 0, 1, 0, 0),
        insn(0x95, 0, 0, 0, 0),
    ]
    .repeat(100);
    let mut group = c.benchmark_group("bpf-trace/disassemble");
    group.throughput(Throughput::Elements(code.len() as u64));
    group.bench_function("700 instructions", |b| b.iter(|| disasm::listing(black_box(&code)).len()));
    group.finish();
}

fn starts(c: &mut Criterion) {
    // Where programs cannot be loaded there is nothing to measure: `cargo xtask doctor bpf-trace` says why.
    if Syscalls::start(&Options::default()).is_err() {
        return;
    }
    let mut group = c.benchmark_group("bpf-trace/start");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1));
    for (name, timing) in [("counts", false), ("latency", true)] {
        let o = Options { timing, ..Options::default() };
        group.bench_function(name, |b| {
            b.iter(|| Syscalls::start(&o).expect("programs attach, as they just did"))
        });
    }
    let view = Syscalls::start(&Options::default()).expect("it has just worked");
    group.bench_function("read the maps", |b| b.iter(|| view.read().expect("the maps can be read").len()));
    group.finish();
}

criterion_group!(benches, decoding, histograms, stacks, symbols, lookups, disassembly, starts);
criterion_main!(benches);
