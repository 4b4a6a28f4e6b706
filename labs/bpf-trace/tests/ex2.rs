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
use kit::stats::SplitMix;

const LAB: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/exercises/ex2.bpf.c");

/// Rows as the judge compares them: the exercise's own type has no say in what is equal.
fn fields(rows: &[Row]) -> Vec<(u32, u64, u64, u64)> {
    rows.iter().map(|r| (r.tgid, r.address, r.count, r.ns)).collect()
}

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

/// Processes, threads, addresses and times, drawn anew for each test: nobody can know them beforehand.
struct Drawn {
    random: SplitMix,
}

impl Drawn {
    fn new() -> Self {
        Self { random: SplitMix(kit::spec::seed()) }
    }

    /// A number from `from` on, below `from` + 30,000, other than those drawn before with overwhelming probability.
    fn number(&mut self, from: u64) -> u64 {
        from + self.random.below(30_000) as u64
    }

    /// Two different processes; two different threads.
    fn two(&mut self) -> (u64, u64) {
        let one = self.number(2);
        (one, one + 1 + self.number(1))
    }
}

/// The program and the harness, compiled for this machine.
struct Native {
    folder: tempfile::TempDir,
}

impl Native {
    fn compile() -> Self {
        let source = std::fs::read_to_string(PROGRAM).unwrap_or_default();
        let beyond = ["constructor", "destructor", "asm", "pragma", "__attribute__", "_Pragma"];
        let includes = source
            .lines()
            .map(str::trim)
            .filter(|l| l.starts_with(['#', '%']) && l.contains("include") && *l != "#include \"trace.h\"")
            .count();
        property(
            "it is a BPF program: trace.h and nothing beyond",
            "no other include, no attributes, no assembly",
        )
        .holds(
            includes == 0 && !beyond.iter().any(|word| source.contains(word)),
            "only what trace.h has",
            "something else",
        );
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
        Self { folder }
    }

    /// What the map holds, and what was lost, after these events.
    fn after(&self, events: &str) -> (Vec<(u32, u64, u64, u64)>, u64) {
        let mut child = Command::new(self.folder.path().join("native"))
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
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn a_wait_is_timed() {
    kit::spec::run(|| {
        let native = Native::compile();
        let mut drawn = Drawn::new();
        let ((p, q), (t, u), at) = (drawn.two(), drawn.two(), 4 * drawn.number(1024));
        let (begin, long, short) = (drawn.number(1000), drawn.number(1), drawn.number(1));
        let why =
            "the time from the entry to the exit belongs to the process and to the address of the futex";
        let wait = |p: u64, t: u64, from: u64, took: u64, ret: i64| {
            format!("task {p} {t} {from}\nenter 202 {at} 0\ntask {p} {t} {}\nexit 202 {ret}\n", from + took)
        };
        let (rows, _) = native.after(&wait(p, t, begin, long, 0));
        property(format!("a wait of {long} ns is one wait of {long} ns"), why)
            .same(vec![(p as u32, at, 1, long)], rows);
        let later = begin + long + 100;
        let thrice =
            wait(p, t, begin, long, 0) + &wait(p, t, later, short, -11) + &wait(q, u, later + short, 77, 0);
        let (rows, _) = native.after(&thrice);
        property("two waits add up; another process's futex at the same address is another one", why)
            .same(vec![(p as u32, at, 2, long + short), (q as u32, at, 1, 77)], rows);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn threads_do_not_mix() {
    kit::spec::run(|| {
        let native = Native::compile();
        let mut drawn = Drawn::new();
        let (p, (t, u), a) = (drawn.number(2), drawn.two(), 4 * drawn.number(1024));
        let (b, begin, late) = (a + 4096, drawn.number(1000), drawn.number(500));
        let events = format!(
            "task {p} {t} {begin}\nenter 202 {a} 0\ntask {p} {u} {}\nenter 202 {b} 0\n\
             task {p} {t} {}\nexit 202 0\ntask {p} {u} {}\nexit 202 0\n",
            begin + 100,
            begin + 100 + late,
            begin + 150 + late,
        );
        let (rows, _) = native.after(&events);
        property(
            "two threads of a process wait at once, each for its own",
            "by what do you find the begin again?",
        )
        .same(vec![(p as u32, a, 1, 100 + late), (p as u32, b, 1, 50 + late)], rows);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn only_waits_are_waits() {
    kit::spec::run(|| {
        let native = Native::compile();
        let mut drawn = Drawn::new();
        let (p, t, at, took) = (drawn.number(2), drawn.number(2), 4 * drawn.number(1024), drawn.number(1));
        let events = |nr, op| {
            format!("task {p} {t} 5\nenter {nr} {at} {op}\ntask {p} {t} {}\nexit {nr} 0\n", 5 + took)
        };
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
            let (rows, _) = native.after(&events(202, op));
            let expected = if wait { vec![(p as u32, at, 1, took)] } else { Vec::new() };
            property(format!("operation {op} {} a wait", if wait { "is" } else { "is not" }), why)
                .same(expected, rows);
        }
        let (rows, _) = native.after(&events(1, 0));
        property("write(2) is no wait", "call 202 is futex").same(Vec::new(), rows);
        let (rows, _) = native.after(&format!("only {}\n{}", p + 1, events(202, 0)));
        property("a process that is not wanted() is not counted", "trace.h has the filter")
            .same(Vec::new(), rows);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn a_wait_ends_once() {
    kit::spec::run(|| {
        let native = Native::compile();
        let mut drawn = Drawn::new();
        let (p, t, at, took) = (drawn.number(2), drawn.number(2), 4 * drawn.number(1024), drawn.number(1));
        let why = "what is there of an old wait when the next call returns?";
        let (rows, _) = native.after(&format!("task {p} {t} 100\nexit 202 0\n"));
        property("a wait that had begun before the trace has no known length", why).same(Vec::new(), rows);
        let wake = format!(
            "task {p} {t} 7\nenter 202 {at} 0\ntask {p} {t} {}\nexit 202 0\n\
             task {p} {t} 50000\nenter 202 {at} 1\ntask {p} {t} 50010\nexit 202 1\n",
            7 + took
        );
        let (rows, _) = native.after(&wake);
        property("a wake after a wait adds nothing to it", why).same(vec![(p as u32, at, 1, took)], rows);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex2.rs"]
fn what_does_not_fit_is_lost_and_said() {
    kit::spec::run(|| {
        let native = Native::compile();
        let more = 1 + Drawn::new().number(0) % 200;
        let events: String = (0..1024 + more)
            .map(|i| {
                format!(
                    "task 5 7 {0}\nenter 202 {1} 0\ntask 5 7 {2}\nexit 202 0\n",
                    i * 10,
                    i * 8,
                    i * 10 + 3
                )
            })
            .collect();
        let (rows, lost) = native.after(&events);
        property("a map of 1024 entries keeps 1024 futexes", "max_entries is as in the starter")
            .same(1024, rows.len());
        property(
            format!("LOSE(map_full) counts the other {more}"),
            "what do update and lookup return when the map is full?",
        )
        .same(more, lost);
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
        let seen = fields(&exercise::rows(&map));
        let expected = vec![(9, 0xffff_0000_1234, 3, 99), (1, 8, 7, 10), (1, 16, 1, 10), (2, 8, 1, 10)];
        property("longest first, then by process, then by address", "which member is at which offset?")
            .same(expected, seen);
        let none = fields(&exercise::rows(&[]));
        property("an empty map has no rows", "what is the result of nothing?").same(Vec::new(), none);
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
            filter: Filter { pid: Some(std::process::id()), ..Filter::default() },
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
        let rows = fields(&exercise::rows(&pairs));
        let seen = rows
            .iter()
            .any(|(process, address, count, ns)| *process == tgid && *address > 0 && *count > 0 && *ns > 0);
        property(
            "a thread that was woken from futex(2) is in the table",
            "do the tests without the kernel hold?",
        )
        .holds(seen, format!("a row of process {tgid}"), format!("{rows:?}"));
    });
}
