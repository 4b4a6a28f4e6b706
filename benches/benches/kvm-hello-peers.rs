//! kvm-hello as a whole process against the same calls in C (`peers/kvm_hello.c`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use benches::compare::{Asked, Comparison, Outcome, publish};
use benches::counts;

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
    let done = peers().and_then(|programs| {
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
    let status = command
        .status()
        .map_err(|e| benches::peers::failed(&command.get_program().display().to_string(), &e))?;
    if status.success() { Ok(()) } else { Err(format!("{:?}: {status}", command.get_program())) }
}

fn against_c(asked: Asked, [ours, c, c_static]: &[PathBuf; 3]) -> [Outcome; 2] {
    let whole = Comparison::new(
        "the bare hello, a whole process",
        "us",
        "ours is linked statically where the archives are installed (build.rs), so C is shown both ways; \
         same guest, same calls, same output file",
    )
    .headline()
    .contender("kvm-hello --quick", || process(Command::new(ours).arg("--quick")))
    .counted(|| counts::of(&[&ours.to_string_lossy(), "--quick"]))
    .contender("C, peers/kvm_hello.c", || process(&mut Command::new(c)))
    .counted(|| counts::of(&[&c.to_string_lossy()]))
    .contender("the same, linked with -static", || process(&mut Command::new(c_static)))
    .counted(|| counts::of(&[&c_static.to_string_lossy()]))
    .run(asked, 300);
    let first = Comparison::new(
        "from KVM_CREATE_VM to the first exit",
        "us",
        "nothing: each times itself, by the same clock",
    )
    .contender("kvm-hello --quick", || printed(Command::new(ours).arg("--quick"), " after ", 1.0))
    .contender("C, peers/kvm_hello.c", || printed(Command::new(c).arg("-t"), "first exit ", 1e-3))
    .run(asked, 300);
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
