//! The command line: every view, on this machine and on lesser ones.

#![allow(missing_docs, reason = "test")]

#[path = "support/sys.rs"]
mod sys;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use kit::testing::watchdog;
use rseq_spinlock::cpus;
use rseq_spinlock::sys::rseq::Thread;
use serde_json::Value;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rseq-spinlock"));
    command.args(args);
    command
}

fn lab(args: &[&str]) -> Output {
    command(args).output().expect("the lab's own binary starts")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("--json prints one document")
}

fn value(run: &Value, metric: &str) -> f64 {
    run["metrics"][metric]["value"].as_f64().unwrap_or_else(|| panic!("no metric {metric}"))
}

/// A view in its short form; it must succeed, and fit the terminal.
fn view(args: &[&str]) -> Value {
    let output = lab(&[args, &["--json", "--quick"]].concat());
    let told = String::from_utf8(output.stderr.clone()).expect("narration is text");
    assert_eq!(output.status.code(), Some(0), "{args:?}: {told}");
    for line in told.lines() {
        assert!(line.chars().count() <= 80, "{args:?}: {line}");
    }
    let run = json(&output);
    assert_eq!((&run["lab"], &run["ok"]), (&"rseq-spinlock".into(), &true.into()));
    run
}

/// Leave the test where there is no rseq.
macro_rules! rseq {
    () => {
        if let Err(e) = Thread::current() {
            kit::skip!("rseq", "{e}");
        }
    };
}

#[test]
fn the_default_run_counts_and_loses_nothing_by_rseq() {
    let _dog = watchdog(180);
    rseq!();
    let run = view(&[]);
    for metric in ["rseq_inc_ns", "atomic_inc_ns", "local_inc_ns"] {
        assert!(value(&run, metric) > 0.0);
    }
    // How many is up to the scheduler.
    assert!(value(&run, "aborts") >= 0.0);
    assert!(value(&run, "lost_without_rseq") >= 0.0);
}

#[test]
fn every_view_runs() {
    let _dog = watchdog(180);
    rseq!();
    let run = view(&["--locks", "--time", "30"]);
    for lock in
        ["tas", "ttas", "backoff", "ticket", "mcs", "clh", "futex", "adaptive", "parking", "rseq", "std"]
    {
        assert!(value(&run, &format!("{lock}_t1_mops")) > 0.0);
        assert!(value(&run, &format!("{lock}_t1_max_wait_ms")) >= 0.0);
        assert_eq!(value(&run, &format!("{lock}_t1_fairness")), 1.0);
    }
    assert!(value(&view(&["--preempt"]), "tas_preempted_burnt_us") >= 0.0);
    assert!(value(&view(&["--percpu"]), "free_list_rseq_t1_ns") > 0.0);
    assert!(value(&view(&["--trace-aborts"]), "aborts_by_signals") >= 0.0);
}

#[test]
fn each_section_has_an_anatomy() {
    let _dog = watchdog(180);
    rseq!();
    for section in ["counter-add", "list-push", "list-pop", "ring-push", "ring-pop", "lock-take"] {
        let run = view(&["--anatomy", "--section", section]);
        if run["metrics"]["aborts"].is_null() {
            kit::skip!("ptrace", "the events could not be injected");
        }
        assert!(value(&run, "wrong_without_rseq") > 0.0, "{section}");
        assert!(value(&run, "aborts") > 0.0, "{section}");
    }
}

#[test]
fn one_cpu_is_enough() {
    let _dog = watchdog(180);
    rseq!();
    // Children inherit it.
    cpus::pin(cpus::ME, cpus::allowed().expect("affinity")[0]).expect("allowed");
    let run = view(&[]);
    assert!(run["metrics"]["atomic_inc_two_cpus_ns"].is_null());
    for args in
        [&["--preempt"][..], &["--trace-aborts"], &["--anatomy"], &["--percpu"], &["--locks", "--time", "10"]]
    {
        view(args);
    }
}

/// Someone else confines its threads to one CPU and lets them go, over and over, as a changing cpuset does.
#[test]
fn a_changing_affinity_costs_no_increment() {
    let _dog = watchdog(180);
    rseq!();
    let cpus = cpus::allowed().expect("affinity");
    let mut child = command(&["--json", "--quick"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the lab's own binary starts");
    let tasks = format!("/proc/{}/task", child.id());
    let mut turn = 0;
    while child.try_wait().expect("it is ours").is_none() {
        let threads = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
        for thread in threads.filter_map(|t| t.file_name().to_str()?.parse().ok()) {
            turn += 1;
            // It may have ended meanwhile.
            let _ = cpus::pin(nix::unistd::Pid::from_raw(thread), cpus[turn % cpus.len()]);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let output = child.wait_with_output().expect("it has ended");
    assert_eq!(output.status.code(), Some(0));
    let run = json(&output);
    let exact = run["checks"].as_array().expect("checks").iter().find(|c| c["name"] == "rseq_exact");
    assert_eq!(exact.map(|c| &c["ok"]), Some(&true.into()));
    assert!(turn > 0);
}

#[test]
fn a_cpu_that_is_not_ours_is_an_error_with_its_number() {
    let error = cpus::pin(cpus::ME, 1000).expect_err("no such CPU here");
    assert!(error.to_string().contains("CPU 1000"), "{error}");
}

#[test]
fn without_glibcs_registration_the_lab_makes_its_own() {
    let _dog = watchdog(180);
    rseq!();
    let output = command(&["--quick"])
        .env("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
        .output()
        .expect("the lab's own binary starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("registered by"), "{told}");
}

#[test]
fn without_rseq_it_says_so_and_what_would_help() {
    let _dog = watchdog(180);
    let mut command = command(&["--quick"]);
    let output = match sys::without(&mut command, libc::SYS_rseq, libc::ENOSYS).output() {
        Ok(output) => output,
        Err(e) => kit::skip!("rseq", "no seccomp filter can hide it: {e}"),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("cannot use restartable sequences"), "{stderr}");
    assert!(stderr.contains("fix: "), "{stderr}");
}

#[test]
fn without_real_time_priority_the_holder_sleeps_and_it_says_so() {
    let _dog = watchdog(180);
    rseq!();
    let mut command = command(&["--preempt", "--quick"]);
    let output = match sys::without(&mut command, libc::SYS_sched_setscheduler, libc::EPERM).output() {
        Ok(output) => output,
        Err(e) => kit::skip!("seccomp", "{e}"),
    };
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("SCHED_FIFO is not permitted: the holder sleeps"), "{told}");
    assert!(!told.contains("The intruder has real-time priority"), "{told}");
}

#[test]
fn the_bundled_recordings_replay() {
    let _dog = watchdog(180);
    for name in ["default", "locks", "preempt", "percpu", "anatomy", "aborts"] {
        let output = lab(&["--replay", name, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert_eq!(json(&output)["recorded"], true);
    }
}

#[test]
fn a_wrong_option_is_a_usage_error() {
    let _dog = watchdog(180);
    for args in [
        &["--no-such-option"][..],
        &["--locks", "--preempt"],
        &["--threads", "2"],
        &["--locks", "--threads", "0"],
        &["--locks", "--threads", "1000"],
        &["--locks", "--time", "1"],
        &["--section", "list-pop"],
        &["--anatomy", "--section", "nothing"],
    ] {
        assert_eq!(lab(args).status.code(), Some(2), "{args:?}");
    }
}

/// Ctrl-C in the middle leaves no child behind, and says so with its exit code.
#[test]
fn an_interrupt_ends_it_at_once() {
    let _dog = watchdog(180);
    rseq!();
    let mut child = command(&["--locks", "--time", "5000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the lab's own binary starts");
    // Once it has said its first step, it is measuring.
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.starts_with("1  ")));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it still runs");
    assert_eq!(child.wait().expect("it is ours").code(), Some(130));
}
