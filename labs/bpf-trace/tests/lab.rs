//! The command line: what it prints, how it ends, and that nothing is left of it.

mod common;

use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bpf_trace::sys::bpf;
use common::program;
use kit::testing::watchdog;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn lab(args: &[&str]) -> Output {
    Command::new(program()).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_lesson_holds_all_its_checks() {
    let _dog = watchdog(180);
    needs_bpf!();
    let out = lab(&["--quick", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let checks: Vec<&str> =
        json["checks"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(checks, ["careless_refused", "exact_count", "none_lost", "sleep_measured", "no_program_left"]);
    assert_eq!(json["metrics"]["lost"]["value"], 0.0);
    for metric in ["events", "overhead_ratio", "floor_ratio"] {
        assert!(json["metrics"][metric]["value"].as_f64().unwrap() > 0.0, "{metric}");
    }
}

#[test]
fn a_command_is_traced_and_its_output_is_its_own() {
    let _dog = watchdog(180);
    needs_bpf!();
    let out = lab(&["syscalls", "--json", "--", "sh", "-c", "exit 3"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(out.status.success());
    let told = json["steps"][0]["items"].to_string();
    assert!(told.contains("execve") && told.contains("exited with 3"), "{told}");
}

#[test]
fn what_cannot_be_is_said_with_what_can() {
    let _dog = watchdog(180);
    let cases: [(&[&str], &str); 10] = [
        (&["nothing"], "no view \"nothing\""),
        (&["syscalls", "--syscall", "opanat"], "did you mean openat"),
        (&["syscalls", "--uid", "no-such-user"], "no user"),
        (&["syscalls", "--pid", "4194303"], "no process 4194303"),
        (&["syscalls", "--tid", "4194303"], "no thread 4194303"),
        (&["syscalls", "--slower", "10"], "10ms"),
        (&["syscalls", "--duration=-1"], "--duration"),
        (&["--lab", "no-such-lab"], "no program of a lab"),
        (&["--lab", "../../bin/sh"], "no program of a lab"),
        (&["syscalls", "--top", "x"], "--top"),
    ];
    for (args, words) in cases {
        let out = lab(args);
        let said = text(&out.stderr);
        // Those that are found out before anything is loaded are usage errors for anybody.
        if common::has_bpf() || out.status.code() == Some(2) {
            assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
            assert!(said.contains(words), "{args:?}: {said}");
        }
    }
    if common::has_bpf() {
        let out = lab(&["syscalls", "--", "/no/such/program"]);
        assert_eq!(out.status.code(), Some(1));
        let said = text(&out.stderr);
        assert!(said.contains("ENOENT") && !said.contains("doctor"), "the machine is not the cause: {said}");
    }
}

#[test]
fn without_rights_it_says_which_are_missing() {
    let _dog = watchdog(180);
    let out = if nix::unistd::geteuid().is_root() {
        if Command::new("setpriv").arg("--version").output().is_err() {
            kit::skip!("setpriv", "not installed");
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program());
        command.output().unwrap()
    } else if common::has_bpf() {
        kit::skip!("no_permission", "this user may load programs");
    } else {
        lab(&[])
    };
    let said = text(&out.stderr);
    if said.contains("Permission denied") && !said.contains("bpf") {
        kit::skip!("no_permission", "another user cannot reach this program's folder");
    }
    assert_eq!(out.status.code(), Some(4), "{said}");
    assert!(said.contains("CAP_BPF") && said.contains("--elevate"), "{said}");
}

/// Starts an endless trace, and waits until its programs are attached.
#[expect(clippy::zombie_processes, reason = "the caller waits; a panic ends the test process")]
fn endless(more: &[&str]) -> (Child, Vec<u32>) {
    let mut command = Command::new(program());
    command.args(["syscalls", "--duration", "0"]).args(more).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    loop {
        let ids = programs_of(child.id());
        // The program, and what keeps it attached.
        if ids.len() >= 2 {
            return (child, ids);
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "it never attached");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What /proc/PID/fdinfo says under `name` of those of a process's descriptors that have it.
fn told_of<T: std::str::FromStr>(pid: u32, name: &str) -> Vec<T> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    files
        .filter_map(|f| std::fs::read_to_string(f.path()).ok())
        .filter_map(|info| info.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok()))
        .collect()
}

/// The programs behind a process's descriptors.
fn programs_of(pid: u32) -> Vec<u32> {
    told_of(pid, "prog_id:")
}

/// Whether it comes true, asked so often, 10 ms apart.
fn within(times: u32, found: impl Fn() -> bool) -> bool {
    (0..times).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        found()
    })
}

/// Whether all are gone, after the moment that the kernel takes.
fn gone(ids: &[u32]) -> bool {
    within(500, || ids.iter().all(|id| !bpf::is_loaded(*id).unwrap()))
}

#[test]
fn nothing_is_left_after_ctrl_c_and_the_result_is_told() {
    let _dog = watchdog(180);
    needs_bpf!();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (mut child, ids) = endless(&[]);
        // Attached, but perhaps not yet waiting: until then the signal ends it at once, which leaves nothing either.
        std::thread::sleep(Duration::from_millis(300));
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
        assert!(gone(&ids), "{signal} left programs");
    }
}

#[test]
fn the_statistics_of_the_kernel_are_off_soon_though_nothing_wakes_the_view() {
    let _dog = watchdog(120);
    needs_bpf!();
    let (mut child, _) = endless(&["--interval", "3600"]);
    let runs = || told_of::<u64>(child.id(), "run_cnt:").iter().sum::<u64>();
    // Our own calls are among those that it counts. Other tests' traces have the statistics on at times.
    assert!(within(3000, || runs() > 0), "they were never on");
    let off = within(3000, || {
        let before = runs();
        std::fs::metadata("/").unwrap();
        runs() == before
    });
    assert!(off, "every run is still timed");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn nothing_is_left_after_sigkill() {
    let _dog = watchdog(180);
    needs_bpf!();
    let (mut child, ids) = endless(&["--latency"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(gone(&ids));
}

#[test]
fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is_one() {
    let _dog = watchdog(180);
    needs_bpf!();
    let mut child = Command::new(program())
        .args(["syscalls", "--duration", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    for args in [&["syscalls", "--duration", "0.2"][..], &["syscalls", "--duration", "0.2", "--json"]] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let out = Command::new(program()).args(args).stdin(Stdio::null()).stdout(full).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
        assert!(text(&out.stderr).contains("No space left"), "{}", text(&out.stderr));
    }
}

#[test]
fn a_traced_process_ends_the_trace_with_it() {
    let _dog = watchdog(180);
    needs_bpf!();
    let mut traced = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let (child, _) = endless(&["--pid", &traced.id().to_string()]);
    drop(traced.stdin.take());
    traced.wait().unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("The process ended"), "{}", text(&out.stdout));
}

#[test]
fn a_page_and_a_recording_have_the_begin_of_what_is_streamed() {
    let _dog = watchdog(180);
    needs_bpf!();
    let folder = tempfile::tempdir().unwrap();
    let [page, saved] = ["page.html", "saved.json"].map(|f| folder.path().join(f).display().to_string());
    let script = "n=0; while [ $n -lt 60 ]; do cat /no/such/$n; n=$((n+1)); done 2>/dev/null";
    for (view, first) in [("open", "  ENOENT  /no/such/0  O_RDONLY"), ("exec", "cat /no/such/0")] {
        let out = lab(&[view, "--report", &page, "--save", &saved, "--", "sh", "-c", script]);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let shown = text(&out.stdout);
        assert_eq!(shown.matches(&format!("{first}\n")).count(), 1, "on the terminal once: {shown}");
        assert!(shown.contains("/no/such/59") && !shown.contains("the first 24"), "{shown}");
        for file in [&page, &saved] {
            let kept = std::fs::read_to_string(file).unwrap();
            assert!(kept.contains("the first 24 of ") && !kept.contains("cat /no/such/59"), "{view}: {kept}");
        }
    }
}
