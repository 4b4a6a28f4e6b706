//! The gallery: every program is refused for its reason, every mended one is taken.

use std::process::Command;

use bpf_trace::gallery::{EXHIBITS, Gallery};
use bpf_trace::sys::{bpf, rights};
use kit::testing::watchdog;

fn has_bpf() -> bool {
    kit::probe::finding("bpf.raw_tp").is_some_and(|f| f.works())
        && kit::probe::finding("btf").is_some_and(|f| f.works())
}

#[test]
fn each_exhibit_is_refused_for_its_reason_and_the_mended_one_taken() {
    let _dog = watchdog(180);
    if !has_bpf() {
        kit::skip!("bpf.raw_tp", "cannot load a program here");
    }
    let gallery = Gallery::open().unwrap();
    for e in &EXHIBITS {
        let verdict = gallery.submit(e).unwrap();
        let error = verdict.error.as_ref().unwrap_or_else(|| panic!("{} was loaded", e.name));
        assert!([libc::EINVAL, libc::EACCES, libc::E2BIG].contains(&error.errno), "{}: {error}", e.name);
        assert!(verdict.reason(e).is_some(), "{}: {}", e.name, verdict.log);
        // One line of the source is named, and not the function's head.
        let at: Vec<&str> = verdict.refused.iter().filter(|l| l.marked).map(|l| l.text.trim()).collect();
        assert_eq!(at.len(), 1, "{}: {}", e.name, verdict.log);
        assert!(verdict.verified.as_ref().is_ok_and(|n| *n > 0), "{}: {:?}", e.name, verdict.verified);
    }
}

#[test]
fn the_line_at_fault_is_the_one_that_is_wrong() {
    let _dog = watchdog(180);
    if !has_bpf() {
        kit::skip!("bpf.raw_tp", "cannot load a program here");
    }
    let gallery = Gallery::open().unwrap();
    for (name, line) in [
        ("bounds", "c->of[nr]++;"),
        ("null", "s->time = bpf_ktime_get_ns();"),
        ("pointer", "answer = registers[0];"),
        ("leak", "c->of[0] = (u64)packet;"),
        ("helper", "bpf_skb_load_bytes(ctx, 0, &byte, 1);"),
        ("reference", "return 0;"),
    ] {
        let exhibit = EXHIBITS.iter().find(|e| e.name == name).unwrap();
        let verdict = gallery.submit(exhibit).unwrap();
        let at = verdict.refused.iter().find(|l| l.marked).map(|l| l.text.trim());
        assert_eq!(at, Some(line), "{name}: {}", verdict.log);
    }
}

#[test]
fn rights_are_given_up_by_one_thread_only() {
    let _dog = watchdog(180);
    if !has_bpf() {
        kit::skip!("bpf.raw_tp", "cannot load a program here");
    }
    // r0 = 0; exit: as a tracing program it takes CAP_PERFMON, as a socket filter it does not.
    let nothing = [0xb7, 0x95];
    let load =
        |kind| bpf::prog_load(bpf::Code { kind, instructions: &nothing, ..Default::default() }, 0).program;
    let refused = rights::with_cap_bpf_only(|| load(bpf::RAW_TRACEPOINT)).unwrap();
    assert_eq!(refused.unwrap_err().errno, libc::EPERM);
    rights::with_cap_bpf_only(|| load(1)).unwrap().unwrap();
    load(bpf::RAW_TRACEPOINT).unwrap();
}

#[test]
fn the_command_line_shows_one_or_all() {
    let _dog = watchdog(180);
    if !has_bpf() {
        kit::skip!("bpf.raw_tp", "cannot load a program here");
    }
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_bpf-trace")).args(args).output().unwrap();
    let out = run(&["--json", "--verifier"]);
    let run_of_all: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(run_of_all["ok"], true, "{run_of_all}");
    assert_eq!(run_of_all["steps"].as_array().unwrap().len(), EXHIBITS.len());
    let out = run(&["--json", "--verifier", "null"]);
    let one: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(one["metrics"]["refused"]["value"], 1.0);
    let out = run(&["--verifier", "nil"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("reference"), "the exhibits are named");
}
