//! Invariants of the experiment, and the command line.

use std::process::{Command, Output};

use kit::testing::watchdog;
use lab_template::cost;

fn lab(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lab-template")).args(args).output().expect("the lab's own binary starts")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("--json prints one document")
}

#[test]
fn the_kernel_and_std_agree() {
    let _dog = watchdog(180);
    let cost = cost::measure(3);
    assert_eq!(cost.parent, std::os::unix::process::parent_id());
    assert_eq!((cost.call_ns.len(), cost.load_ns.len()), (3, 3));
    assert!(cost.call_ns.iter().all(|ns| *ns > 0.0));
}

#[test]
fn a_run_tells_its_metrics_and_checks() {
    let _dog = watchdog(180);
    let output = lab(&["--json", "--quick"]);
    let run = json(&output);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((&run["lab"], &run["ok"]), (&"lab-template".into(), &true.into()));
    assert!(run["metrics"]["syscall_ns"]["value"].as_f64() > Some(0.0));
    assert_eq!(run["checks"][0]["name"], "parent_id");
}

#[test]
fn the_bundled_recording_replays() {
    let _dog = watchdog(180);
    let output = lab(&["--replay", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["recorded"], true);
}

#[test]
fn a_wrong_option_is_a_usage_error() {
    let _dog = watchdog(180);
    assert_eq!(lab(&["--no-such-option"]).status.code(), Some(2));
    assert_eq!(lab(&["--rounds", "0"]).status.code(), Some(2));
}
