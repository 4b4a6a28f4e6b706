//! Spec of exercise 1: a filter in bytecode, on a machine of its own, then in the kernel.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex1.rs"]
mod exercise;

mod machine;

use std::os::fd::{AsFd as _, AsRawFd as _};

use bpf_trace::s1_by_hand::own_ids;
use bpf_trace::sys::bpf::{self, Code};
use kit::spec::property;
use machine::{Array, Run};

/// The process to be counted, and one of its threads.
const TGID: u32 = 1234;
const THREAD: u32 = 1240;

fn program() -> Vec<u64> {
    exercise::program(3, TGID)
}

fn ids(tgid: u32, tid: u32) -> u64 {
    u64::from(tgid) << 32 | u64::from(tid)
}

/// What the program counts when a call of a thread returns `ret`.
fn counted(ret: i64, pid_tgid: u64) -> Vec<(usize, u64)> {
    let map = Array::new(exercise::ENTRIES as usize, 8);
    let (code, context) = (program(), [0xffff_8880_0000_0000, ret as u64]);
    let done = Run::new(&code, &context, pid_tgid, &map).finish();
    property(
        "no instruction does what the verifier forbids",
        "which registers does a call leave alone? what if a lookup finds nothing?",
    )
    .holds(done.is_ok(), "a result in r0", done.err().unwrap_or_default());
    map.used()
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex1.rs"]
fn it_keeps_the_rules() {
    kit::spec::run(|| {
        for ret in [0, -1, -2, -4095, -4096, 77, i64::MIN, i64::MAX] {
            for pid_tgid in [ids(TGID, TGID), ids(TGID, THREAD), ids(1, 1), u64::MAX] {
                let _: Vec<(usize, u64)> = counted(ret, pid_tgid);
            }
        }
        let len: usize = program().len();
        property("a short program", "twenty instructions are enough").holds(
            len <= 40,
            "at most 40 instructions",
            len,
        );
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex1.rs"]
fn failures_are_counted_by_errno() {
    kit::spec::run(|| {
        for errno in [1_i64, 2, 9, 110, 4095] {
            let seen = counted(-errno, ids(TGID, THREAD));
            property(
                "a call that returns -E adds one to entry E",
                "the key is an errno: what is it of the result?",
            )
            .same(vec![(errno as usize, 1)], seen);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex1.rs"]
fn successes_are_not_counted() {
    kit::spec::run(|| {
        for ret in [0, 1, 512, 0x7fff_f7d0_0000, 0xffff_fffe, -4096, i64::MIN] {
            let seen = counted(ret, ids(TGID, TGID));
            property(
                format!("a call that returns {ret:#x} has not failed"),
                "errors are -4095 to -1, as numbers of 64 bits",
            )
            .same(Vec::new(), seen);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex1.rs"]
fn only_that_process_and_all_its_threads() {
    kit::spec::run(|| {
        let why = "bpf_get_current_pid_tgid returns two numbers: which half is which?";
        let seen = counted(-2, ids(TGID, THREAD));
        property("another thread of the process counts", why).same(vec![(2, 1)], seen);
        let seen = counted(-2, ids(THREAD, TGID));
        property("a thread whose own number is the process's does not", why).same(Vec::new(), seen);
        let seen = counted(-2, ids(TGID + 1, TGID + 1));
        property("another process does not count", why).same(Vec::new(), seen);
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex1.rs"]
fn two_cpus_lose_nothing() {
    kit::spec::run(|| {
        let (code, context, who) = (program(), [0, -2_i64 as u64], ids(TGID, TGID));
        // The other CPU runs the whole program between any two instructions of this one.
        for before in 0.. {
            let map = Array::new(exercise::ENTRIES as usize, 8);
            let mut one = Run::new(&code, &context, who, &map);
            for _ in 0..before {
                if one.result.is_none() {
                    one.step().expect("it keeps the rules");
                }
            }
            let ended = one.result.is_some();
            Run::new(&code, &context, who, &map).finish().expect("it keeps the rules");
            one.finish().expect("it keeps the rules");
            property(
                format!("both count, if the other CPU comes in after {before} instructions"),
                "load, add and store are three instructions; is there one that does it all?",
            )
            .same(vec![(2, 2)], map.used());
            if ended {
                break;
            }
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex1.rs"]
fn the_kernel_takes_it_and_counts() {
    kit::spec::run(|| {
        const ARRAY: u32 = 2;
        let map = bpf::map_create(ARRAY, 4, 8, exercise::ENTRIES).expect("a map can be made");
        let (tgid, _) = own_ids().expect("the kernel tells");
        let code = exercise::program(map.as_fd().as_raw_fd(), tgid);
        let loaded = bpf::prog_load(Code::raw_tp(&code), 1);
        let why = loaded.program.as_ref().err().map(ToString::to_string).unwrap_or_default();
        property("the verifier takes the program", "its log names the instruction and what it knew there")
            .holds(loaded.program.is_ok(), "a loaded program", why);
        let program = loaded.program.expect("looked at above");
        let link = bpf::attach(program.as_fd(), Some(c"sys_exit")).expect("it can be attached");
        let fail = || (0..250).for_each(|_| drop(std::fs::File::open("/nonexistent/file")));
        let other = std::thread::spawn(fail);
        fail();
        other.join().expect("it only opens files");
        drop(link);
        bpf::wait_for_runs();
        let mut count = [0; 8];
        bpf::map_lookup(map.as_fd(), libc::ENOENT as u32, &mut count).expect("errno 2 is there");
        let seen = u64::from_ne_bytes(count);
        property(
            "250 failing calls by each of two threads are counted",
            "does it work on the machine of the other tests?",
        )
        .same(500, seen);
    });
}
