//! kvm-hello against the same calls in C (`peers/kvm_hello.c`), and what its parts cost.
#![allow(clippy::print_stderr, reason = "a bench says on standard error what it could not measure")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benches::compare::{Asked, Comparison, Outcome, publish};
use criterion::Criterion;
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
    let asked = Asked::by_arguments();
    let notes = [
        "Goals: the whole process within 1.10 of C, KVM_CREATE_VM to the first exit within 1.05.",
        "Both do the same 30 ioctls on the same guest; most of the rest is the kernel's exec and exit.",
    ];
    let published = peers().map(|programs| publish(asked, "kvm-hello", &against_c(asked, &programs), &notes));
    match published {
        Ok(Ok(())) => {}
        Ok(Err(e)) => eprintln!("kvm-hello: {e}"),
        Err(e) => eprintln!("kvm-hello: the peer was not measured: {e}"),
    }
    if asked.record {
        // A record is of the comparison; Criterion keeps its own, and does not know the option.
        return;
    }
    let mut criterion = Criterion::default()
        .configure_from_args()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    parts(&mut criterion);
    criterion.final_summary();
}

/// Builds the lab's binary and the C program, as cc links it and statically.
fn peers() -> Result<[PathBuf; 3], String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let release = me.ancestors().nth(2).ok_or("an unusual target folder")?.to_owned();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let c = release.join("peer_kvm_hello");
    let c_static = release.join("peer_kvm_hello_static");
    let ours = release.join("kvm-hello");
    let source = root.join("peers/kvm_hello.c");
    run(Command::new("cc").args(["-O2", "-o"]).arg(&c).arg(&source))?;
    // Without libc.a there is none, and the comparison says that it is missing.
    let _ = run(Command::new("cc").args(["-O2", "-static", "-o"]).arg(&c_static).arg(&source));
    run(Command::new(env!("CARGO")).current_dir(root).args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "kvm-hello",
    ]))?;
    Ok([ours, c, c_static])
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    if status.success() { Ok(()) } else { Err(format!("{:?}: {status}", command.get_program())) }
}

fn against_c(asked: Asked, [ours, c, c_static]: &[PathBuf; 3]) -> [Outcome; 2] {
    let whole = Comparison::new(
        "the bare hello, a whole process",
        "us",
        "ours is linked statically where the archives are installed (build.rs), so C is shown both ways; \
         same guest, same calls, same output file",
    )
    .contender("kvm-hello --quick", || process(Command::new(ours).arg("--quick")))
    .contender("C, peers/kvm_hello.c", || process(&mut Command::new(c)))
    .contender("the same, linked with -static", || process(&mut Command::new(c_static)))
    .run(asked.rounds(400));
    let first = Comparison::new(
        "from KVM_CREATE_VM to the first exit",
        "us",
        "nothing: each times itself, by the same clock",
    )
    .contender("kvm-hello --quick", || printed(Command::new(ours).arg("--quick"), " after ", 1.0))
    .contender("C, peers/kvm_hello.c", || printed(Command::new(c).arg("-t"), "first exit ", 1e-3))
    .run(asked.rounds(400));
    [whole, first]
}

/// From spawn to wait, microseconds.
fn process(command: &mut Command) -> Result<f64, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    run(command)?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

/// The number that a program prints behind `mark`, times `scale`.
fn printed(command: &mut Command, mark: &str, scale: f64) -> Result<f64, String> {
    let output = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number =
        text.split_once(mark).and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok());
    number.map(|n| n * scale).ok_or_else(|| format!("no figure in {text:?}"))
}

fn parts(c: &mut Criterion) {
    c.bench_function("kvm-hello/machine, hello, gone", |b| {
        b.iter(|| hello::run(Mode::Real, Watch::Nothing, Duration::ZERO).map(|h| h.exit_count));
    });
    for way in [Way::Port, Way::Mmio, Way::Ioeventfd, Way::Coalesced] {
        c.bench_function(&format!("kvm-hello/{}", way.title()), |b| {
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
    c.bench_function("kvm-hello/walk of four tables", |b| {
        b.iter(|| tables.walk(Mode::Long.result_address()).physical)
    });

    let mut booted = dirty::booted(Method::Nothing).expect("the guest boots");
    let snapshot = Snapshot::take(&mut booted).expect("a snapshot");
    let mut group = c.benchmark_group("kvm-hello/restore 32 MiB");
    group.sample_size(20);
    group.bench_function("copy", |b| b.iter(|| snapshot.restore_copy().map(drop)));
    group.bench_function("copy-on-write", |b| b.iter(|| snapshot.restore_cow().map(drop)));
    group.finish();
}
