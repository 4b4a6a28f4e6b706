//! Criterion: spawn and wait, each way; waiting for a hundred children, each loop.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nix::fcntl::OFlag;
use pidfd_spawn::measure::Contender;
use pidfd_spawn::process::Child;
use pidfd_spawn::spawn::Spawn;
use pidfd_spawn::tiny::Tiny;
use pidfd_spawn::wait::Mechanism;
use pidfd_spawn::ways::zygote::Zygote;

fn spawn_and_wait(c: &mut Criterion) {
    let zygote = Zygote::start().ok().map(Arc::new);
    let tiny = Tiny::exit_0().expect("a program in memory");
    let mut group = c.benchmark_group("pidfd-spawn/spawn+wait");
    group.sample_size(20);
    group.throughput(Throughput::Elements(1));
    for who in Contender::all(zygote.as_ref()) {
        let mut run = who.runner(tiny.path()).expect("a prepared spawn");
        group.bench_function(who.key(), |b| b.iter(|| black_box(run().expect("a child"))));
    }
    group.finish();
}

fn wait_for_a_hundred(c: &mut Criterion) {
    let program = Tiny::until_eof().expect("a program in memory");
    let mut group = c.benchmark_group("pidfd-spawn/wait-100");
    group.sample_size(10);
    group.throughput(Throughput::Elements(100));
    for mechanism in Mechanism::ALL {
        let start = || {
            let (gate, hold) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
            let spawn = Spawn::new(program.path()).fd(0, &gate);
            let ready = spawn.prepare().expect("a prepared spawn");
            let children: Vec<Child> = (0..100).map(|_| ready.spawn().expect("a child")).collect();
            drop(hold);
            children
        };
        let mut probe = start();
        if mechanism.wait_all(&mut probe).is_err() {
            continue; // no io_uring here
        }
        group.bench_function(mechanism.key(), |b| {
            b.iter_batched(start, |mut all| mechanism.wait_all(&mut all), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, spawn_and_wait, wait_for_a_hundred);
criterion_main!(benches);
