//! kvm-hello as a whole process against the same calls in C (`peers/kvm_hello.c`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use benches::compare::{Asked, Comparison, Outcome, publish};
use benches::counts::{self, Counts};
use benches::peers;
use kvm_hello::hello::{self, Watch};
use kvm_hello::mode::Mode;

fn main() -> ExitCode {
    let asked = Asked::by_arguments();
    let notes = [
        "Goals: the whole process within 1.10 of C, KVM_CREATE_VM to the first exit within 1.05.",
        "Both do the same 30 ioctls on the same guest; most of the rest is the kernel's exec and exit.",
    ];
    if let Err(e) = kvm_hello::machine::Machine::new() {
        let _ = writeln!(std::io::stderr(), "kvm-hello: not measured: {e}");
        return ExitCode::SUCCESS;
    }
    let done = Programs::build().and_then(|programs| {
        publish(asked, "kvm-hello", &against_c(asked, &programs), &notes).map_err(|e| e.to_string())
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "kvm-hello-peers: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What is run: the lab's binary, the C program as cc links it and statically; or why there is none.
struct Programs {
    ours: PathBuf,
    c: Result<PathBuf, String>,
    c_static: Result<PathBuf, String>,
}

impl Programs {
    fn build() -> Result<Self, String> {
        let (ours, release) = (peers::lab("kvm-hello")?, peers::release()?);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let c = |options: &[&str], name: &str| {
            let program = release.join(name);
            let mut cc = Command::new("cc");
            cc.arg("-O2").args(options).arg("-o").arg(&program).arg(root.join("peers/kvm_hello.c"));
            run(&mut cc).map(|()| program)
        };
        Ok(Self {
            ours,
            c: c(&[], "peer_kvm_hello"),
            // It needs libc.a.
            c_static: c(&["-static"], "peer_kvm_hello_static"),
        })
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let status =
        command.status().map_err(|e| peers::failed(&command.get_program().display().to_string(), &e))?;
    if status.success() { Ok(()) } else { Err(format!("{:?}: {status}", command.get_program())) }
}

fn against_c(asked: Asked, programs: &Programs) -> [Outcome; 2] {
    let Programs { ours, c, c_static } = programs;
    let of_c = |program: &Result<PathBuf, String>| process(&mut Command::new(program.as_ref()?));
    let whole = Comparison::new(
        "the bare hello, a whole process",
        "us",
        "ours is linked statically where the archives are installed (build.rs), so C is shown both ways; \
         same guest, same calls, same output file",
    )
    .headline()
    .contender("kvm-hello --quick", || process(Command::new(ours).arg("--quick")))
    .counted(|| {
        let exits = hello::run(Mode::Real, Watch::Nothing, Duration::ZERO).ok().map(|h| h.exit_count as f64);
        counted(&[&ours.to_string_lossy(), "--quick"], exits)
    })
    .contender("C, peers/kvm_hello.c", || of_c(c))
    .counted(|| counted_of_c(c))
    .contender("the same, linked with -static", || of_c(c_static))
    .counted(|| counted_of_c(c_static))
    .run(asked, 300);
    let first = Comparison::new(
        "from KVM_CREATE_VM to the first exit",
        "us",
        "nothing: each times itself, by the same clock",
    )
    .contender("kvm-hello --quick", || printed(Command::new(ours).arg("--quick"), " after ", 1.0))
    .contender("C, peers/kvm_hello.c", || printed(Command::new(c.as_ref()?).arg("-t"), "first exit ", 1e-3))
    .run(asked, 300);
    [whole, first]
}

/// What perf counts of a program, and the exits that it has counted itself: perf knows of none where this machine is
/// a guest whose KVM has no such event.
fn counted(words: &[&str], exits: Option<f64>) -> Counts {
    let mut all = counts::of(words);
    all.extend(exits.map(|n| ("VM exits (its own count)".into(), n)));
    all
}

fn counted_of_c(program: &Result<PathBuf, String>) -> Counts {
    let Ok(program) = program else { return Counts::new() };
    let exits = printed(Command::new(program).arg("-t"), "exits: ", 1.0);
    counted(&[&program.to_string_lossy()], exits.ok())
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
