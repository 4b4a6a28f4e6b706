//! The command line: what it shows, records and refuses.
#![cfg(target_arch = "x86_64")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use kit::skip;
use kit::testing::watchdog;
use kvm_hello::machine::Machine;

/// Leaves the test where no machine can be made.
macro_rules! need_kvm {
    () => {
        if let Err(e) = Machine::new() {
            skip!("kvm", "{e}");
        }
    };
}

fn lab(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kvm-hello")).args(args).output().expect("the lab's own binary starts")
}

fn shown(args: &[&str]) -> String {
    let output = lab(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("--json prints one document")
}

#[test]
fn the_default_run_tells_its_metrics_and_checks() {
    let _dog = watchdog(180);
    need_kvm!();
    let output = lab(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let run = json(&output);
    for metric in ["vm_create_us", "first_exit_us", "pio_exit_ns", "mmio_exit_ns"] {
        assert!(run["metrics"][metric]["value"].as_f64() > Some(0.0), "{metric}");
    }
    let checks: Vec<_> = run["checks"].as_array().expect("checks").iter().map(|c| &c["name"]).collect();
    for check in ["hello_text", "result_in_memory", "result_in_register"] {
        assert!(checks.iter().any(|c| *c == check), "{check}");
    }
}

#[test]
fn every_view_runs() {
    let _dog = watchdog(180);
    need_kvm!();
    // Generous times: this is about what is shown, and the machine may be busy.
    let views: [&[&str]; 8] = [
        &["--quick"],
        &["--mode", "all", "--timeout", "20000"],
        &["--mode", "user", "--trace", "--timeout", "20000"],
        &["--mode", "real", "--single-step", "--timeout", "20000"],
        &["--exits", "--samples", "50"],
        &["--devices", "--timeout", "20000"],
        &["--dirty", "--clones", "2"],
        &["--misbehave", "--timeout", "3000"],
    ];
    for view in views {
        for line in shown(view).lines() {
            assert!(line.chars().count() <= 80, "{view:?}: wider than 80 columns: {line}");
        }
    }
}

#[test]
fn ring_3_never_leaves_the_machine_by_itself() {
    let _dog = watchdog(180);
    need_kvm!();
    let text = shown(&["--mode", "user", "--timeout", "20000"]);
    let marked = |mark: &str| -> Vec<&str> {
        let lines = text.lines().filter(|l| l.ends_with(mark));
        lines.filter_map(|l| l.split_whitespace().next()).collect()
    };
    assert_eq!(marked("<- leaves the machine"), ["110b"]);
    assert_eq!(marked("<- leaves it for the last time"), ["1118"]);
    assert_eq!(marked("<- #GP: to ring 0"), ["2010", "2028"]);
}

#[test]
fn a_guest_cut_short_is_said_to_be_and_fails() {
    let _dog = watchdog(180);
    need_kvm!();
    // No driver waits for 20 ticks of a millisecond in one.
    let output = lab(&["--devices", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--timeout") && said.contains("after 1 ms"), "{said}");
}

#[test]
fn options_that_shape_a_run_are_recorded() {
    let _dog = watchdog(180);
    need_kvm!();
    let run = json(&lab(&["--mode", "long", "--single-step", "--timeout", "20000", "--json"]));
    let params = &run["params"];
    assert_eq!((&params["mode"], &params["single_step"]), (&"long".into(), &true.into()));
    assert_eq!((&params["trace"], &params["timeout_ms"]), (&false.into(), &20_000.into()));
}

#[test]
fn the_bare_run_tells_what_the_framed_one_does() {
    let _dog = watchdog(180);
    need_kvm!();
    // The figure differs from run to run.
    let without_figures = |text: String| text.replace(|c: char| c.is_ascii_digit(), "");
    let (bare, framed) = (shown(&["--quick"]), shown(&["--quick", "--no-color"]));
    assert!(bare.contains("first exit after "), "{bare}");
    assert!(without_figures(framed).ends_with(&without_figures(bare)));
}

#[test]
fn a_full_disk_is_a_failure() {
    let _dog = watchdog(180);
    need_kvm!();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let output = Command::new(env!("CARGO_BIN_EXE_kvm-hello")).arg("--quick").stdout(full).output();
    let output = output.expect("the lab's own binary starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write"));
}

#[test]
fn a_signal_ends_a_run_that_is_inside_the_guest() {
    let _dog = watchdog(180);
    need_kvm!();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvm-hello"))
        .args(["--misbehave", "loop", "--timeout", "25000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the lab's own binary starts");
    // The step's title is told before the guest runs.
    let mut told = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("endless loop") {
        line.clear();
        assert_ne!(told.read_line(&mut line).expect("reads"), 0, "the step is told");
    }
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

#[test]
fn wrong_options_are_usage_errors() {
    let _dog = watchdog(180);
    let wrong: [&[&str]; 14] = [
        &["--timeout", "0"],
        &["--samples", "1"],
        &["--dirty", "--clones", "100000"],
        &["--no-such-option"],
        &["--mode", "vax"],
        &["--exits", "--devices"],
        &["--dirty", "--mode", "long"],
        &["--dirty", "--samples", "50"],
        &["--samples", "50"],
        &["--clones", "2"],
        &["--exits", "--timeout", "500"],
        &["--dirty", "--timeout", "500"],
        &["--misbehave", "--trace"],
        &["--mode", "all", "--single-step"],
    ];
    for args in wrong {
        assert_eq!(lab(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn the_bundled_recordings_replay() {
    let _dog = watchdog(180);
    for name in ["default", "modes", "exits", "devices", "dirty", "misbehave"] {
        let output = lab(&["--replay", name, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert_eq!(json(&output)["recorded"], true);
    }
}

#[test]
fn without_permission_it_says_so_and_exits_4() {
    let _dog = watchdog(180);
    let mode = std::fs::metadata("/dev/kvm").map(|m| m.permissions().mode());
    if !mode.is_ok_and(|m| m & 0o006 == 0) || !nix::unistd::geteuid().is_root() {
        skip!("root", "needs root, to run as one who may not open /dev/kvm");
    }
    // A folder that everyone can enter: the target folder may not be one.
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    let binary = folder.path().join("kvm-hello");
    std::fs::copy(env!("CARGO_BIN_EXE_kvm-hello"), &binary).expect("copy");
    for args in [&["--quick"][..], &[], &["--exits"]] {
        let output = Command::new(&binary)
            .args(args)
            .uid(65534)
            .gid(65534)
            .stdin(Stdio::null())
            .output()
            .expect("the copy starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{args:?}: {said}");
        assert!(said.contains("/dev/kvm") && said.contains("EACCES"), "{said}");
    }
}
