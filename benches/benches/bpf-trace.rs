//! What the lab does outside the kernel, by Criterion: decoding what programs have kept, its histogram, its names;
//! and from an object file to programs that are attached.

use std::hint::black_box;

use bpf_trace::disasm;
use bpf_trace::histogram::{self, Histogram};
use bpf_trace::names;
use bpf_trace::ring::Record;
use bpf_trace::s1_by_hand::insn;
use bpf_trace::syscalls::{Options, Syscalls};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

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

criterion_group!(benches, decoding, histograms, lookups, disassembly, starts);
criterion_main!(benches);
