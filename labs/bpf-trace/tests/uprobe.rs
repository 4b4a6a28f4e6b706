//! Calls of functions, held against a program that knows how often it makes them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bpf_trace::Filter;
use bpf_trace::command::{Running, Wait, Wake};
use bpf_trace::histogram::Histogram;
use bpf_trace::syscalls::By;
use bpf_trace::target::{Target, TargetError};
use bpf_trace::uprobe::{Options, Row, Uprobe};
use kit::testing::watchdog;
use tempfile::TempDir;

fn has_uprobes() -> bool {
    ["bpf.uprobe", "bpf.tp_btf"].iter().all(|name| kit::probe::finding(name).is_some_and(|f| f.works()))
}

/// `tests/called.c`, compiled; `None`: no compiler.
fn program(options: &[&str]) -> Option<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("called");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/called.c");
    let done =
        Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&path).arg(source).args(options).status();
    assert!(done.ok()?.success(), "tests/called.c does not compile");
    Some((folder, path))
}

/// Runs the program, and counts the calls of `function` meanwhile.
fn counted(path: &Path, function: &str, o: &Options, args: &[&str]) -> Vec<Row> {
    let target = Target::find(&format!("{}:{function}", path.display()), None).unwrap();
    let o = Options { filter: Filter { follow: true, ..o.filter.clone() }, ..o.clone() };
    let view = Uprobe::start(&target, &o).unwrap();
    let mut words = vec![path.as_os_str().to_owned()];
    words.extend(args.iter().map(|a| (*a).into()));
    let mut command = Running::start(&words, true).unwrap();
    let mut wait = Wait::new(None, Duration::from_secs(60)).unwrap();
    assert_eq!(wait.next(None, Some(&mut command)).unwrap(), Wake::Ended);
    assert_eq!(view.tracer().lost().unwrap().events(), 0);
    view.read().unwrap()
}

macro_rules! program {
    ($($option:expr),*) => {
        match program(&[$($option),*]) {
            _ if !has_uprobes() => kit::skip!("bpf.uprobe", "cannot probe a function here"),
            Some(program) => program,
            None => kit::skip!("cc", "no C compiler"),
        }
    };
}

fn calls(rows: &[Row]) -> u64 {
    rows.iter().map(|r| r.calls).sum()
}

fn timed(rows: &[Row]) -> u64 {
    rows.iter().map(|r| r.latency.count()).sum()
}

#[test]
fn calls_by_several_threads_of_several_processes_are_counted_exactly() {
    let _dog = watchdog(180);
    let (_folder, path) = program!();
    for (by, rows) in [(By::Process, 2), (By::Thread, 8), (By::Syscall, 1)] {
        let found = counted(&path, "work", &Options { by, ..Options::default() }, &["threads", "5000"]);
        assert_eq!(found.len(), rows, "{by:?}: {found:?}");
        for row in &found {
            let n = 8 * 5000 / rows as u64;
            assert_eq!((row.calls, row.latency.count(), row.untimed), (n, n, 0), "{by:?}");
            assert!(row.latency.max > 0 && row.latency.sum >= row.latency.max);
            assert_eq!(row.comm, "called");
        }
    }
}

#[test]
fn calls_in_calls_are_timed_each_by_itself() {
    let _dog = watchdog(180);
    let (_folder, path) = program!("-fno-optimize-sibling-calls");
    let rows = counted(&path, "deeper", &Options::default(), &["deeper", "200", "39"]);
    assert_eq!((calls(&rows), timed(&rows)), (200 * 40, 200 * 40));
    // Deeper than the kernel remembers: counted, and as many timed as it remembers.
    let rows = counted(&path, "deeper", &Options::default(), &["deeper", "50", "99"]);
    assert_eq!((calls(&rows), timed(&rows)), (50 * 100, 50 * 64));
    assert_eq!(rows[0].out(), 50 * 36);
}

#[test]
fn a_call_that_does_not_return_takes_no_others_return() {
    let _dog = watchdog(180);
    let (_folder, path) = program!();
    let rows = counted(&path, "jumps", &Options::default(), &["jumps", "1000"]);
    assert_eq!((calls(&rows), timed(&rows)), (1000, 500));
    assert_eq!((rows[0].out(), rows[0].untimed), (500, 0));
}

#[test]
fn functions_that_end_by_jumping_to_each_other_all_return_at_once() {
    let _dog = watchdog(180);
    let (_folder, path) = program!();
    let rows = counted(&path, "even", &Options::default(), &["even", "100"]);
    // even(10), odd(9), even(8) … even(0)
    assert_eq!((calls(&rows), timed(&rows), rows[0].untimed), (600, 600, 0));
}

#[test]
fn a_known_sleep_is_seen_as_long_as_it_is() {
    let _dog = watchdog(180);
    let (_folder, path) = program!();
    let rows = counted(&path, "slow", &Options::default(), &["slow", "50"]);
    assert_eq!((calls(&rows), timed(&rows)), (50, 50));
    let latency = &rows[0].latency;
    let sleep = 5_000_000;
    let slept: u64 = latency.buckets[Histogram::bucket_of(sleep)..].iter().sum();
    assert!(slept >= 10, "{latency:?}");
    assert!(latency.sum >= 10 * sleep && latency.max >= sleep);
    // Only those that slept are at least so slow, unless this machine stalls others as long.
    let slower = Options { slower_than: 4_000_000, ..Options::default() };
    let rows = counted(&path, "slow", &slower, &["slow", "50"]);
    assert!(calls(&rows) >= 10 && calls(&rows) <= 50, "{rows:?}");
    assert_eq!(calls(&rows), timed(&rows));
    assert_eq!(rows[0].latency.buckets[..Histogram::bucket_of(4_000_000)].iter().sum::<u64>(), 0);
}

#[test]
fn only_the_process_that_is_asked_for_is_counted() {
    let _dog = watchdog(180);
    let (_folder, path) = program!();
    let start = || Command::new(&path).args(["line", "700"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut both = [start(), start()];
    let pid = both[0].id();
    let target = Target::find(&format!("{}:work", path.display()), Some(pid)).unwrap();
    let filter = Filter { pid: Some(pid), ..Filter::default() };
    let view = Uprobe::start(&target, &Options { filter, ..Options::default() }).unwrap();
    for child in &mut both {
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(child.wait().unwrap().success());
    }
    let rows = view.read().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].id, rows[0].calls), (pid, 700));
    // It is gone now: to attach to it is an error that says so.
    let filter = Filter { pid: Some(pid), ..Filter::default() };
    let refused = Uprobe::start(&target, &Options { filter, ..Options::default() }).unwrap_err();
    assert!(refused.to_string().contains("ESRCH"), "{refused}");
}

#[test]
fn a_stripped_program_is_said_to_be_and_takes_an_address() {
    let _dog = watchdog(180);
    let (_folder, path) = program!();
    let named = Target::find(&format!("{}:work", path.display()), None).unwrap();
    let stripped = path.with_extension("stripped");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(&path).status();
    if !done.is_ok_and(|s| s.success()) {
        kit::skip!("cc", "strip comes with binutils");
    }
    match Target::find(&format!("{}:work", stripped.display()), None) {
        Err(e @ TargetError::NoFunction { exported: Some(_), .. }) => {
            assert!(e.to_string().contains("stripped"))
        }
        other => panic!("{other:?}"),
    }
    let address = format!("{:#x}", named.functions[0].address);
    let rows = counted(&stripped, &address, &Options::default(), &["threads", "1000"]);
    assert_eq!((calls(&rows), timed(&rows)), (8000, 8000));
    // Inside of the function: its second instruction is passed as often, and not timed.
    let inside =
        (1..16).find(|o| Target::find(&format!("{}:work+{o}", path.display()), None).is_ok()).unwrap();
    let rows = counted(&path, &format!("work+{inside}"), &Options::default(), &["threads", "1000"]);
    assert_eq!((calls(&rows), timed(&rows)), (8000, 0));
}

#[test]
fn gdb_counts_the_same() {
    let _dog = watchdog(180);
    let (_folder, path) = program!("-fno-optimize-sibling-calls", "-g");
    let gdb = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "break *deeper", "-ex", "ignore 1 1000000", "-ex", "run"])
        .args(["-ex", "info breakpoints", "--args"])
        .arg(&path)
        .args(["deeper", "20", "10"])
        .stdin(Stdio::null())
        .output();
    let Ok(gdb) = gdb else { kit::skip!("gdb", "not installed") };
    let said = String::from_utf8_lossy(&gdb.stdout).into_owned();
    let theirs = said
        .lines()
        .find_map(|l| l.trim().strip_prefix("breakpoint already hit ")?.split(' ').next()?.parse().ok());
    let rows = counted(&path, "deeper", &Options::default(), &["deeper", "20", "10"]);
    assert_eq!(Some(calls(&rows)), theirs, "{said}");
}

#[test]
fn the_command_line_takes_libraries_and_names_of_rust() {
    let _dog = watchdog(180);
    let (_folder, path) = program!();
    let bin = env!("CARGO_BIN_EXE_bpf-trace");
    let run = |args: &[&str]| Command::new(bin).args(args).output().unwrap();
    let seen = |args: &[&str]| -> serde_json::Value {
        let out = run(args);
        let text = String::from_utf8_lossy(&out.stdout);
        // The command may have said something first.
        let document = text.find("{\n").map_or("", |at| &text[at..]);
        serde_json::from_str(document).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let program = path.to_str().unwrap();
    let shown = seen(&["--json", "uprobe", &format!("{program}:work"), "--", program, "threads", "100"]);
    assert_eq!(shown["metrics"]["events"]["value"], 800.0, "{shown}");
    assert_eq!(shown["ok"], true);
    // The child forks once, in libc; it makes eight threads by pthread_create.
    let shown = seen(&["--json", "uprobe", "c:pthread_create", "--", program, "threads", "100"]);
    assert_eq!(shown["metrics"]["events"]["value"], 8.0, "{shown}");
    let rust = format!("{bin}:bpf_trace::disasm::listing");
    let shown = seen(&["--json", "uprobe", &rust, "--", bin, "--inside"]);
    assert!(shown["metrics"]["events"]["value"].as_f64().is_some_and(|n| n >= 2.0), "{shown}");
    for (asked, said) in [
        ("c:maloc", "did you mean malloc"),
        ("nosuchlib:x", "no program or library"),
        ("malloc", "is not BIN:SYMBOL"),
    ] {
        let out = run(&["uprobe", asked]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{asked}: {text}");
        assert!(text.contains(said), "{asked}: {text}");
    }
    assert_eq!(run(&["uprobe"]).status.code(), Some(2));
    assert_eq!(run(&["syscalls", "ls"]).status.code(), Some(2));
}

#[test]
fn names_of_cpp_are_as_they_are_written() {
    let _dog = watchdog(180);
    if !has_uprobes() {
        kit::skip!("bpf.uprobe", "cannot probe a function here");
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, path) = (folder.path().join("overloaded.cc"), folder.path().join("overloaded"));
    let text = "namespace space { struct Thing {
        [[gnu::noipa]] void work(int n) { asm volatile(\"\" :: \"r\"(n)); }
        [[gnu::noipa]] void work(double n) { asm volatile(\"\" :: \"x\"(n)); }
    }; }
    int main() { space::Thing t; for (int i = 0; i < 100; i++) { t.work(i); t.work(0.5 * i); t.work(1); } }";
    std::fs::write(&source, text).unwrap();
    let Ok(compiled) = Command::new("c++").arg("-O2").arg(&source).arg("-o").arg(&path).status() else {
        kit::skip!("c++", "no compiler");
    };
    assert!(compiled.success());
    // Two functions of this name; and one of them, as the linker knows it.
    let both = counted(&path, "space::Thing::work", &Options::default(), &[]);
    assert_eq!((calls(&both), timed(&both)), (300, 300));
    assert_eq!(calls(&counted(&path, "_ZN5space5Thing4workEd", &Options::default(), &[])), 100);
    let near = Target::find(&format!("{}:work", path.display()), None).unwrap_err().to_string();
    assert!(near.contains("did you mean space::Thing::work?"), "{near}");
}
