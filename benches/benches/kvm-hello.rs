//! What the lab's parts cost, by Criterion: a machine from nothing to nothing, each kind of exit, a walk through page
//! tables, restoring a snapshot.
#![allow(clippy::print_stderr, reason = "a bench says on standard error what it could not measure")]

use std::time::Duration;

use criterion::{Criterion, Throughput};
use kvm_hello::cost::{self, Way};
use kvm_hello::dirty::{self, Method};
use kvm_hello::hello::{self, Watch};
use kvm_hello::mode::Mode;
use kvm_hello::paging::{Format, Tables};
use kvm_hello::snapshot::Snapshot;

fn main() {
    if let Err(e) = kvm_hello::machine::Machine::new() {
        eprintln!("kvm-hello: not measured: {e}");
        return;
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    parts(&mut criterion);
    criterion.final_summary();
}

fn parts(c: &mut Criterion) {
    let mut group = c.benchmark_group("kvm-hello");
    group.throughput(Throughput::Elements(1));
    group.bench_function("machine, hello, gone", |b| {
        b.iter(|| {
            let run =
                hello::run(Mode::Real, Watch::Nothing, Duration::ZERO).expect("a machine is built and run");
            assert!(run.well(), "the guest says hello, and its result is right");
        });
    });
    for way in [Way::Port, Way::Mmio, Way::Ioeventfd, Way::Coalesced] {
        group.bench_function(way.title(), |b| {
            b.iter_custom(|n| {
                // Criterion asks for n events; a batch holds several.
                let samples = n.div_ceil(u64::from(way.batch())).max(1);
                let cost = cost::measure(way, samples as usize).expect("the guest leaves as it should");
                let mean = cost.samples.iter().sum::<u64>() as f64 / cost.samples.len() as f64;
                Duration::from_secs_f64(mean * n as f64 * 1e-9)
            });
        });
    }
    let long = Mode::Long.machine().expect("a machine in 64-bit mode");
    let tables = Tables::existing(long.memory(), Format::FourLevels);
    group.bench_function("walk of four tables", |b| {
        b.iter(|| tables.walk(Mode::Long.result_address()).physical)
    });
    group.finish();

    let mut booted = dirty::booted(Method::Nothing).expect("the guest boots");
    let snapshot = Snapshot::take(&mut booted).expect("a snapshot");
    let mut group = c.benchmark_group("kvm-hello/restore 32 MiB");
    group.throughput(Throughput::Bytes(32 << 20));
    group.sample_size(20);
    group.bench_function("copy", |b| b.iter(|| snapshot.restore_copy().expect("a snapshot is restored")));
    group.bench_function("copy-on-write", |b| {
        b.iter(|| snapshot.restore_cow().expect("a snapshot is restored"))
    });
    group.finish();

    let mut group = c.benchmark_group("kvm-hello/dirty pages of 32 MiB");
    // Each time a guest boots first, which is not timed.
    group.sample_size(10);
    group.throughput(Throughput::Elements(dirty::predicted().len() as u64));
    for (name, method) in [("log", Method::Log), ("ring", Method::Ring)] {
        if let Err(e) = dirty::track(method) {
            eprintln!("kvm-hello: dirty {name}: not measured: {e}");
            continue;
        }
        group.bench_function(name, |b| {
            b.iter_custom(|n| {
                let one = |_| {
                    let tracked = dirty::track(method).expect("it has just worked");
                    assert!(tracked.exact(), "all pages that were written are named, and no others");
                    tracked.collect
                };
                (0..n).map(one).sum()
            });
        });
    }
    group.finish();
}
