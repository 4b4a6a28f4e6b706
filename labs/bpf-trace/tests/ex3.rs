//! Spec of exercise 3: three refused programs, explained and mended.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex3.rs"]
mod exercise;

mod machine;
mod refused;

use std::os::fd::{AsFd as _, AsRawFd as _};

use bpf_trace::sys::bpf::{self, Code};
use exercise::{Answer, Why};
use kit::spec::property;
use machine::{Array, Run};

/// What a program leaves in r0, with this `n`.
fn result(code: &[u64], n: u64) -> u64 {
    let map = Array::new(16, 64);
    for byte in 0..64 {
        map.put(0, byte, byte as u8 + 100);
    }
    let context = [0, n];
    let done = Run::new(code, &context, 1234 << 32 | 5, &map).finish();
    property(format!("with n = {n:#x} no instruction does what the verifier forbids"), "what can n be?")
        .holds(done.is_ok(), "a result in r0", done.as_ref().err().cloned().unwrap_or_default());
    done.expect("looked at above")
}

/// The mended program, not longer than the old one and four instructions.
fn mended(new: fn(i32) -> Vec<u64>, old: fn(i32) -> Vec<u64>) -> Vec<u64> {
    let (code, limit): (Vec<u64>, usize) = (new(3), old(3).len() + 4);
    property("it is mended, not written anew", "one check, or one register, is missing in each").holds(
        code.len() <= limit && code != old(3),
        format!("another program of at most {limit} instructions"),
        format!("{} instructions", code.len()),
    );
    code
}

/// FNV-1a (Fowler, Noll, Vo): so that the answers do not stand here to be read.
fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex3.rs"]
fn the_reasons_are_right() {
    kit::spec::run(|| {
        let answers: [Answer; 3] = exercise::answers();
        let right = [0x9f78_e60d_bbaa_ba6a, 0x9c14_84fa_ba22_f4e1, 0xb157_72c7_0064_8087];
        for ((answer, right), name) in answers.iter().zip(right).zip(["index", "sum", "add"]) {
            let Answer { instruction, why } = answer;
            let why = match why {
                Why::MayBeNull => "may be null",
                Why::NeverEnds => "never ends",
                Why::NotSet => "not set",
                Why::OutOfBounds => "out of bounds",
                Why::TellsAnAddress => "tells an address",
            };
            property(
                format!("{name} is refused for this reason, at this instruction"),
                "load it (`--verifier` shows how a log is read), or follow it with the worst n that there is",
            )
            .holds(
                digest(&format!("{name} {instruction} {why}")) == right,
                "another answer",
                format!("instruction {instruction}: {why}"),
            );
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex3.rs"]
fn index_stays_inside() {
    kit::spec::run(|| {
        let code = mended(exercise::index, refused::index);
        for n in [0, 1, 63, 64, 65, 1 << 31, 1 << 32, u64::MAX, u64::MAX - 63, 1 << 63] {
            let expected = if n < 64 { n + 100 } else { 0 };
            let seen: u64 = result(&code, n);
            property(format!("byte {n:#x} of 64, or 0"), "n is unsigned, and the last byte is number 63")
                .same(expected, seen);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex3.rs"]
fn sum_ends() {
    kit::spec::run(|| {
        let code = mended(exercise::sum, refused::sum);
        for n in [0, 1, 2, 99, 100, 101, 5000, 1 << 40, u64::MAX] {
            let least = n.min(100);
            let seen: u64 = result(&code, n);
            property(format!("the sum up to {n}, or up to 100"), "what is the result for more than 100?")
                .same(least * (least + 1) / 2, seen);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex3.rs"]
fn add_keeps_what_it_needs() {
    kit::spec::run(|| {
        let code = mended(exercise::add, refused::add);
        for n in [0, 1, 77, u64::MAX] {
            let seen: u64 = result(&code, n);
            property(format!("{n} plus the process's number"), "which registers survive a call?")
                .same(n.wrapping_add(1234), seen);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/bpf-trace/exercises/ex3.rs"]
fn the_kernel_refuses_the_old_and_takes_the_new() {
    kit::spec::run(|| {
        const ARRAY: u32 = 2;
        let map = bpf::map_create(ARRAY, 4, 64, 16).expect("a map can be made");
        let fd = map.as_fd().as_raw_fd();
        type Program = fn(i32) -> Vec<u64>;
        let pairs: [(&str, Program, Program); 3] = [
            ("index", refused::index, exercise::index),
            ("sum", refused::sum, exercise::sum),
            ("add", refused::add, exercise::add),
        ];
        for (name, old, new) in pairs {
            let loaded = bpf::prog_load(Code::raw_tp(&old(fd)), 1);
            assert!(loaded.program.is_err(), "this kernel takes {name} as it is");
            let loaded = bpf::prog_load(Code::raw_tp(&new(fd)), 1);
            let why = loaded.program.as_ref().err().map(ToString::to_string).unwrap_or_default();
            property(
                format!("the verifier takes the mended {name}"),
                "it does not run the program: what does it know?",
            )
            .holds(loaded.program.is_ok(), "a loaded program", why);
        }
    });
}
