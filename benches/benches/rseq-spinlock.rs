//! Increments, list and ring operations by rseq, and each lock of the zoo, alone and with two threads.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use rseq_spinlock::contend::{Load, contend};
use rseq_spinlock::cpus;
use rseq_spinlock::locks::{Adaptive, Backoff, Clh, FutexMutex, Mcs, Parking, RseqAware, Tas, Ticket, Ttas};
use rseq_spinlock::percpu::{CounterByCid, CounterByCpu, CpuLock, FreeList, Rings, possible_cpus, usable};
use rseq_spinlock::sys::sections::{ByCid, ByCpu};
use rseq_spinlock::{Lock, RawLock};

thread_local! {
    static LOCAL: Cell<u64> = const { Cell::new(0) };
}

fn sections(c: &mut Criterion) {
    // Nothing to measure without rseq: `cargo xtask doctor rseq-spinlock` says why.
    let Ok(thread) = usable::<ByCpu>() else { return };
    let n = possible_cpus();
    let mut g = c.benchmark_group("rseq-spinlock/increment");
    g.throughput(Throughput::Elements(1));
    g.bench_function("local", |b| {
        b.iter(|| {
            LOCAL.with(|l| {
                l.set(l.get() + 1);
                black_box(l);
            });
        });
    });
    let counter = CounterByCpu::new(n);
    g.bench_function("rseq", |b| b.iter(|| counter.add(thread)));
    if usable::<ByCid>().is_ok() {
        let counter = CounterByCid::new(n);
        g.bench_function("rseq_cid", |b| b.iter(|| counter.add(thread)));
    }
    let atomic = AtomicU64::new(0);
    g.bench_function("atomic", |b| b.iter(|| atomic.fetch_add(1, Ordering::Relaxed)));
    g.finish();

    let mut g = c.benchmark_group("rseq-spinlock/percpu");
    g.throughput(Throughput::Elements(1));
    let list: FreeList = FreeList::new(n, 8);
    (0..8).for_each(|node| _ = list.push(thread, node));
    g.bench_function("list_pop_push", |b| b.iter(|| list.pop(thread).map(|node| list.push(thread, node))));
    let rings: Rings = Rings::new(n);
    g.bench_function("ring_push_pop", |b| b.iter(|| (rings.push(thread, 1), rings.pop(thread))));
    let lock: CpuLock = CpuLock::new(n);
    g.bench_function("cpu_lock", |b| b.iter(|| drop(lock.lock(thread))));
    g.finish();
}

fn alone<R: RawLock>(g: &mut BenchmarkGroup<'_, WallTime>) {
    let lock = Lock::<R, u64>::new(0);
    g.bench_function(R::NAME, |b| b.iter(|| *lock.lock() += black_box(1)));
}

fn locks(c: &mut Criterion) {
    let _ = usable::<ByCpu>();
    let mut g = c.benchmark_group("rseq-spinlock/alone");
    g.throughput(Throughput::Elements(1));
    alone::<Tas>(&mut g);
    alone::<Ttas>(&mut g);
    alone::<Backoff>(&mut g);
    alone::<Ticket>(&mut g);
    alone::<Mcs>(&mut g);
    alone::<Clh>(&mut g);
    alone::<FutexMutex>(&mut g);
    alone::<Adaptive>(&mut g);
    alone::<Parking>(&mut g);
    alone::<RseqAware>(&mut g);
    g.finish();
}

/// Two threads that want nothing but the lock, for as long as it takes to come to about as many sections as asked for.
fn contended<R: RawLock>(g: &mut BenchmarkGroup<'_, WallTime>) {
    g.bench_function(R::NAME, |b| {
        b.iter_custom(|n| {
            // Starting threads is not timed, but would be most of a shorter run.
            let time = Duration::from_nanos(100 * n).max(Duration::from_millis(5));
            let lock = Lock::<R, u64>::new(0);
            let outcome = contend(&lock, Load { threads: 2, time, outside: 0 });
            assert!(outcome.exact, "no section is lost");
            outcome.elapsed.mul_f64(n as f64 / outcome.sections().max(1) as f64)
        });
    });
}

fn two_threads(c: &mut Criterion) {
    // On one CPU they would only take turns.
    if cpus::allowed().map_or(1, |c| c.len()) < 2 {
        return;
    }
    let mut g = c.benchmark_group("rseq-spinlock/two threads");
    g.throughput(Throughput::Elements(1));
    g.sampling_mode(SamplingMode::Flat).sample_size(20);
    g.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    contended::<Tas>(&mut g);
    contended::<Ttas>(&mut g);
    contended::<Backoff>(&mut g);
    contended::<Ticket>(&mut g);
    contended::<Mcs>(&mut g);
    contended::<Clh>(&mut g);
    contended::<FutexMutex>(&mut g);
    contended::<Adaptive>(&mut g);
    contended::<Parking>(&mut g);
    contended::<RseqAware>(&mut g);
    g.finish();
}

criterion_group!(benches, sections, locks, two_threads);
criterion_main!(benches);
