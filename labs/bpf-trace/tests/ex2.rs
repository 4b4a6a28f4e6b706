//! Spec of exercise 2: a view in C. The program is first compiled for this machine, with a harness that plays the kernel;
//! then by clang for BPF, and run in the kernel.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex2.rs"]
mod exercise;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bpf_trace::s1_by_hand::own_ids;
use bpf_trace::{Filter, Plan, Tracer};
use exercise::Row;
use kit::spec::property;

const LAB: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/exercises/ex2.bpf.c");

/// Runs a compiler; what it said is the student's to read.
fn compile(what: &str, compiler: &str, arguments: &[&str]) {
    let out = Command::new(compiler).args(arguments).stdin(Stdio::null()).output();
    let (ok, said) = match &out {
        Ok(out) => (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned()),
        Err(e) => (false, format!("cannot run {compiler}: {e}")),
    };
    property(what, "read the compiler's first error; if there is no compiler: apt-get install clang-14 gcc")
        .holds(ok, "no error", said.lines().take(12).collect::<Vec<_>>().join("\n"));
}

/// What the map holds, and what was lost, after these events.
fn after(events: &str) -> (Vec<(u32, u64, u64, u64)>, u64) {
    let folder = tempfile::tempdir().expect("a folder for what is compiled");
    let binary = folder.path().join("native").display().to_string();
    let define = format!("-DPROGRAM=\"{PROGRAM}\"");
    let native = format!("{LAB}/tests/native");
    // The student's #include "trace.h" must find the harness's own.
    let arguments = [
        "-O1",
        "-w",
        "-o",
        &binary,
        &define,
        "-I",
        &native,
        "-iquote",
        &native,
        &format!("{native}/harness.c"),
    ];
    compile("ex2.bpf.c is C, and uses what trace.h has", "cc", &arguments);
    let mut child = Command::new(&binary)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("what was just compiled can be run");
    child.stdin.take().expect("it is piped").write_all(events.as_bytes()).expect("it reads");
    let out = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    property("the program survives what happens", "is every pointer looked at before it is used?").holds(
        out.status.success(),
        "an end without a signal",
        out.status,
    );
    let mut rows = Vec::new();
    let mut lost = 0;
    for line in text.lines() {
        let numbers: Vec<u64> = line.split(' ').filter_map(|w| w.parse().ok()).collect();
        match numbers[..] {
            [tgid, address, count, ns] => rows.push((tgid as u32, address, count, ns)),
            [n] => lost = n,
            _ => {}
        }
    }
    rows.sort_unstable();
    (rows, lost)
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn a_wait_is_timed() {
    kit::spec::run(|| {
        let why =
            "the time from the entry to the exit belongs to the process and to the address of the futex";
        let (rows, _) = after("task 5 7 1000\nenter 202 4096 0\ntask 5 7 6000\nexit 202 0\n");
        property("a wait of 5000 ns is one wait of 5000 ns", why).same(vec![(5, 4096, 1, 5000)], rows);
        let twice = "task 5 7 1000\nenter 202 4096 0\ntask 5 7 2000\nexit 202 0\n\
                     task 5 7 3000\nenter 202 4096 0\ntask 5 7 3500\nexit 202 -11\n\
                     task 6 8 4000\nenter 202 4096 0\ntask 6 8 4100\nexit 202 0\n";
        let (rows, _) = after(twice);
        property("two waits add up; another process's futex at the same address is another one", why)
            .same(vec![(5, 4096, 2, 1500), (6, 4096, 1, 100)], rows);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn threads_do_not_mix() {
    kit::spec::run(|| {
        let events = "task 5 7 1000\nenter 202 4096 0\ntask 5 8 2000\nenter 202 8192 0\n\
                      task 5 7 9000\nexit 202 0\ntask 5 8 9500\nexit 202 0\n";
        let (rows, _) = after(events);
        property(
            "two threads of a process wait at once, each for its own",
            "by what do you find the begin again?",
        )
        .same(vec![(5, 4096, 1, 8000), (5, 8192, 1, 7500)], rows);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn only_waits_are_waits() {
    kit::spec::run(|| {
        let why = "the operation is in the lower bits; FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME are flags beside it";
        for (op, wait) in [
            (0, true),
            (128, true),
            (9, true),
            (137, true),
            (393, true),
            (1, false),
            (129, false),
            (5, false),
        ] {
            let (rows, _) = after(&format!("task 5 7 0\nenter 202 64 {op}\ntask 5 7 10\nexit 202 0\n"));
            let expected = if wait { vec![(5, 64, 1, 10)] } else { Vec::new() };
            property(format!("operation {op} {} a wait", if wait { "is" } else { "is not" }), why)
                .same(expected, rows);
        }
        let (rows, _) = after("task 5 7 0\nenter 1 64 0\ntask 5 7 10\nexit 1 0\n");
        property("write(2) is no wait", "call 202 is futex").same(Vec::new(), rows);
        let (rows, _) = after("only 6\ntask 5 7 0\nenter 202 64 0\ntask 5 7 10\nexit 202 0\n");
        property("a process that is not wanted() is not counted", "trace.h has the filter")
            .same(Vec::new(), rows);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn a_wait_ends_once() {
    kit::spec::run(|| {
        let why = "what is there of an old wait when the next call returns?";
        let (rows, _) = after("task 5 7 100\nexit 202 0\n");
        property("a wait that had begun before the trace has no known length", why).same(Vec::new(), rows);
        let wake = "task 5 7 0\nenter 202 64 0\ntask 5 7 10\nexit 202 0\n\
                    task 5 7 500\nenter 202 64 1\ntask 5 7 510\nexit 202 1\n";
        let (rows, _) = after(wake);
        property("a wake after a wait adds nothing to it", why).same(vec![(5, 64, 1, 10)], rows);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn what_does_not_fit_is_lost_and_said() {
    kit::spec::run(|| {
        let events: String = (0..1100)
            .map(|i| {
                format!(
                    "task 5 7 {0}\nenter 202 {1} 0\ntask 5 7 {2}\nexit 202 0\n",
                    i * 10,
                    i * 8,
                    i * 10 + 3
                )
            })
            .collect();
        let (rows, lost) = after(&events);
        property("a map of 1024 entries keeps 1024 of 1100 futexes", "max_entries is as in the starter")
            .same(1024, rows.len());
        property(
            "LOSE(map_full) counts the other 76",
            "what do update and lookup return when the map is full?",
        )
        .same(76, lost);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn rows_are_in_order() {
    kit::spec::run(|| {
        let pair = |address: u64, tgid: u32, count: u64, ns: u64| {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&address.to_ne_bytes());
            key[8..12].copy_from_slice(&tgid.to_ne_bytes());
            let mut value = [0; 16];
            value[..8].copy_from_slice(&count.to_ne_bytes());
            value[8..].copy_from_slice(&ns.to_ne_bytes());
            (key, value)
        };
        let map =
            [pair(8, 2, 1, 10), pair(0xffff_0000_1234, 9, 3, 99), pair(16, 1, 1, 10), pair(8, 1, 7, 10)];
        let seen: Vec<Row> = exercise::rows(&map);
        let row = |tgid, address, count, ns| Row { tgid, address, count, ns };
        let expected =
            vec![row(9, 0xffff_0000_1234, 3, 99), row(1, 8, 7, 10), row(1, 16, 1, 10), row(2, 8, 1, 10)];
        property("longest first, then by process, then by address", "which member is at which offset?")
            .holds(seen == expected, format!("{expected:?}"), format!("{seen:?}"));
        let none: Vec<Row> = exercise::rows(&[]);
        property("an empty map has no rows", "").holds(none.is_empty(), "none", none.len());
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn the_kernel_takes_it_and_sees_a_wait() {
    kit::spec::run(|| {
        let folder = tempfile::tempdir().expect("a folder for what is compiled");
        let object = folder.path().join("ex2.bpf.o").display().to_string();
        let headers = format!("{LAB}/bpf");
        let clang = std::env::var("BENCHTOP_CLANG").unwrap_or_else(|_| {
            let there = Command::new("clang-14").arg("--version").output().is_ok();
            if there { "clang-14".into() } else { "clang".into() }
        });
        let arguments = [
            "-target", "bpf", "-g", "-O2", "-mcpu=v3", "-Wall", "-I", &headers, "-c", PROGRAM, "-o", &object,
        ];
        compile("clang compiles ex2.bpf.c for BPF", &clang, &arguments);
        let object = std::fs::read(Path::new(&object)).expect("clang has just written it");
        // This process is to be seen, although it is the tracer.
        let (tgid, _) = own_ids().expect("the kernel tells");
        let nobody = ("self_tgid", 0_u32.to_ne_bytes().to_vec());
        let started = Tracer::start(&Plan {
            object: &object,
            hooks: &["sys_enter", "sys_exit"],
            filter: Filter { pid: Some(tgid), ..Filter::default() },
            constants: vec![nobody],
            ..Plan::default()
        });
        let why = started.as_ref().err().map(ToString::to_string).unwrap_or_default();
        property("the verifier takes both programs", "its word names what it could not prove").holds(
            started.is_ok(),
            "attached programs",
            why,
        );
        let tracer = started.expect("looked at above");
        let (tell, told) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid()).expect("it is heard");
            std::thread::park();
        });
        let call = format!("/proc/self/task/{}/syscall", told.recv().expect("it tells its id"));
        // Only a thread that is in futex(2) is woken from it.
        while !std::fs::read_to_string(&call).is_ok_and(|call| call.starts_with("202 ")) {
            std::thread::sleep(Duration::from_millis(1));
        }
        waiter.thread().unpark();
        waiter.join().expect("it only waits");
        tracer.stop();
        let map = tracer.hash::<[u8; 16], [u8; 16]>("waits").expect("the map waits is as in the starter");
        let pairs: Vec<_> = map.into_iter().collect();
        let rows: Vec<Row> = exercise::rows(&pairs);
        let seen = rows.iter().any(|r| r.tgid == tgid && r.count > 0 && r.ns > 0 && r.address > 0);
        property(
            "a thread that was woken from futex(2) is in the table",
            "do the tests without the kernel hold?",
        )
        .holds(seen, format!("a row of process {tgid}"), format!("{rows:?}"));
    });
}
