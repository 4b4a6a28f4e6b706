//! The command line.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{CODE, STACK, sample};
use kit::testing::watchdog;

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_elf-core")).args(arguments).env("COLUMNS", "80").output().unwrap()
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

fn json(arguments: &[&str]) -> serde_json::Value {
    json_in(&std::env::temp_dir(), arguments)
}

fn json_in(temporary: &Path, arguments: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elf-core"));
    let out = command.args(arguments).arg("--json").env("TMPDIR", temporary).output().unwrap();
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)))
}

fn sample_file() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core").to_str().unwrap().to_owned();
    fs::write(&path, sample()).unwrap();
    (dir, path)
}

#[test]
fn the_default_run_checks_itself_and_leaves_nothing() {
    let _dog = watchdog(180);
    let temporary = tempfile::tempdir().unwrap();
    for crash in ["segv", "abort", "stack-overflow", "div0", "deadlock-kill", "uaf"] {
        let out = json_in(temporary.path(), &["--quick", "--crash", crash]);
        assert_eq!(out["ok"], true, "{crash}: {out:#}");
        assert!(out["checks"].as_array().unwrap().len() >= 4);
        for name in ["threads", "notes", "segments", "list_ms", "backtrace_ms", "frames"] {
            assert!(out["metrics"][name]["value"].is_number(), "{crash}: no {name}");
        }
        assert_eq!(out["metrics"]["threads"]["value"], if crash == "deadlock-kill" { 6.0 } else { 5.0 });
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "the victims' directories are removed");
}

#[test]
fn the_gcore_run_says_so() {
    let _dog = watchdog(180);
    let out = json(&["--quick", "--by-gcore"]);
    if out["error"].as_str().or(out["ending"]["error"].as_str()).is_some_and(|e| e.contains("EPERM")) {
        kit::skip!("ptrace", "{out}");
    }
    assert_eq!(out["ok"], true, "{out:#}");
    assert!(out.to_string().contains("by our own gcore"));
}

#[test]
fn views_of_a_core() {
    let _dog = watchdog(180);
    let (_dir, path) = sample_file();
    let all = text(&lab(&["--core", &path, "--threads", "--notes", "--maps", "--bt"]));
    for wanted in [
        "thread 1001, signal 11: the one that died",
        "NT_SIGINFO",
        "made-up --arg",
        "AT_PHDR",
        "[vdso]",
        "frame pointer",
        "scan",
    ] {
        assert!(all.contains(wanted), "{wanted} in\n{all}");
    }
    let memory = text(&lab(&["--core", &path, "--memory", &format!("{:#x},16", CODE + 0x50)]));
    assert!(memory.contains("e8 90 90") && memory.contains("16 of 16 bytes"), "{memory}");
    let memory = text(&lab(&["--core", &path, "--memory", "0x10,16"]));
    assert!(memory.contains("0 of 16 bytes, not mapped"), "{memory}");
    for needle in ["BENCHTOP-HERE", "0x42454e4348544f50"] {
        let found = text(&lab(&["--core", &path, "--search", needle]));
        assert!(found.contains(&format!("{:#x}", STACK + 0x600)), "{found}");
    }
    let diff = text(&lab(&["--diff", &path, &path]));
    assert!(diff.contains("0 of 4 pages differ"), "{diff}");
}

#[test]
fn json_of_a_core_has_everything() {
    let _dog = watchdog(180);
    let (_dir, path) = sample_file();
    let out = json(&["--core", &path]);
    let titles: Vec<&str> =
        out["steps"].as_array().unwrap().iter().map(|s| s["title"].as_str().unwrap()).collect();
    for wanted in [
        "Threads and their registers",
        "All notes",
        "Mappings, and who has their bytes",
        "Backtraces of all threads",
    ] {
        assert!(titles.contains(&wanted), "{wanted} in {titles:?}");
    }
    let text = out.to_string();
    for wanted in ["thread 1003", "AT_EXECFN", "HOME=/x", "/made/up+0x0"] {
        assert!(text.contains(wanted), "{wanted} in {out:#}");
    }
    for name in ["threads", "notes", "segments", "list_ms", "backtrace_ms", "frames"] {
        assert!(out["metrics"][name]["value"].is_number(), "no {name}");
    }
}

#[test]
fn what_is_cut_short_is_shown_as_far_as_it_goes() {
    let _dog = watchdog(180);
    let (dir, path) = sample_file();
    let cut = dir.path().join("cut");
    fs::write(&cut, &sample()[..6000]).unwrap();
    let out = lab(&["--core", cut.to_str().unwrap()]);
    assert!(text(&out).contains("truncated: 6000 of 20480 bytes"), "{}", text(&out));
    assert!(text(&out).contains("null pointer"));
    let _ = path;
}

#[test]
fn exit_codes() {
    let _dog = watchdog(180);
    let (dir, path) = sample_file();
    assert_eq!(lab(&["--core", &path]).status.code(), Some(0));
    assert_eq!(lab(&["--crash", "nonsense"]).status.code(), Some(2));
    assert_eq!(lab(&["--crash", "park"]).status.code(), Some(2));
    assert_eq!(lab(&["--core", &path, "--search", "0xabc"]).status.code(), Some(2));
    for bad in [dir.path().to_str().unwrap(), "/dev/zero", "/nonexistent", env!("CARGO_BIN_EXE_elf-core")] {
        let out = lab(&["--core", bad]);
        assert_eq!(out.status.code(), Some(1), "{bad}: {}", text(&out));
    }
    let out = text(&lab(&["--core", env!("CARGO_BIN_EXE_elf-core")]));
    assert!(out.contains("position-independent executable, not a core"), "{out}");
}

#[test]
fn replay_of_the_bundled_recording() {
    let out = lab(&["--replay"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(text(&out).contains("SIGSEGV: it used a null pointer"));
}

#[test]
fn no_line_is_wider_than_80() {
    let _dog = watchdog(180);
    let (_dir, path) = sample_file();
    for arguments in [
        vec!["--quick"],
        vec!["--quick", "--crash", "abort"],
        vec!["--core", &path, "--threads", "--notes", "--maps", "--bt"],
    ] {
        for line in String::from_utf8_lossy(&lab(&arguments).stdout).lines() {
            assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
        }
    }
}
