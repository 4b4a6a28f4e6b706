//! How many instructions the CPU-only parts take on fixed input: counted by callgrind, the same on every machine that has
//! the same compiler and C library. `cargo xtask bench --instructions` runs it and holds the counts.
//!
//! Each function called `counted_…` is one count, all that it calls included.

#[path = "../shared/core_in_memory.rs"]
mod core_in_memory;

use std::hint::black_box;

use bpf_trace::disasm;
use bpf_trace::histogram::Histogram;
use bpf_trace::names;
use bpf_trace::ring::Record;
use bpf_trace::s1_by_hand::insn;
use elf_core::s1_header::{Header, read_segments};
use elf_core::s2_notes::read_notes;
use elf_core::s3_process::Process;
use elf_core::source::Source;

fn main() {
    let source = Source::bytes(core_in_memory::core(THREADS));
    let mut problems = Vec::new();
    let header = Header::read(&source, &mut problems).expect("the core that was just written");
    let segments = read_segments(&source, &header, &mut problems);
    let notes = read_notes(&source, &header, &segments, &mut problems);
    assert_eq!(notes.len(), THREADS + 2, "{problems:?}");

    counted_elf_core_header_and_1000_segments(&source);
    counted_elf_core_walk_of_66_notes(&source, &header, &segments);
    counted_elf_core_decode_of_64_threads(&source, &header, &notes);

    let values: Vec<u64> = (0..10_000_u64).map(|i| 100 + (i * i * i) % 9973 * (1 + i % 7)).collect();
    counted_bpf_trace_histogram_of_10000(&values);
    let mut histogram = Histogram::default();
    values.iter().for_each(|v| histogram.buckets[Histogram::bucket_of(*v)] += 1);
    counted_bpf_trace_percentiles(&histogram);
    let record: Vec<u8> = (0..16 + 4 * 160).map(|i| (i % 3) as u8).collect();
    counted_bpf_trace_decode_of_1000_histograms(&record);
    counted_bpf_trace_names_of_all_calls();
    let code = [insn(0x62, 10, 0, -4, 0), insn(0x85, 0, 0, 0, 1), insn(0x15, 0, 0, 2, 0)].repeat(200);
    counted_bpf_trace_disassembly_of_600(&code);
}

const THREADS: usize = 64;

#[inline(never)]
fn counted_elf_core_header_and_1000_segments(source: &Source) {
    let mut problems = Vec::new();
    let header = Header::read(source, &mut problems).expect("a header");
    black_box(read_segments(source, &header, &mut problems));
}

#[inline(never)]
fn counted_elf_core_walk_of_66_notes(
    source: &Source,
    header: &Header,
    segments: &[elf_core::s1_header::Segment],
) {
    black_box(read_notes(source, header, segments, &mut Vec::new()));
}

#[inline(never)]
fn counted_elf_core_decode_of_64_threads(
    source: &Source,
    header: &Header,
    notes: &[elf_core::s2_notes::Note],
) {
    black_box(Process::read(source, header, notes, &mut Vec::new()));
}

#[inline(never)]
fn counted_bpf_trace_histogram_of_10000(values: &[u64]) {
    let mut h = Histogram::default();
    for v in values {
        h.buckets[Histogram::bucket_of(black_box(*v))] += 1;
    }
    black_box(h);
}

#[inline(never)]
fn counted_bpf_trace_percentiles(h: &Histogram) {
    for p in 0..=100 {
        black_box(h.percentile(black_box(f64::from(p) / 100.0)));
    }
}

#[inline(never)]
fn counted_bpf_trace_decode_of_1000_histograms(record: &[u8]) {
    let mut all = Histogram::default();
    for _ in 0..1000 {
        all.add(&Histogram::read(&mut Record(black_box(record))));
    }
    black_box(all);
}

#[inline(never)]
fn counted_bpf_trace_names_of_all_calls() {
    for nr in 0..450 {
        black_box(names::syscall(black_box(nr)));
    }
}

#[inline(never)]
fn counted_bpf_trace_disassembly_of_600(code: &[u64]) {
    black_box(disasm::listing(black_box(code)));
}
