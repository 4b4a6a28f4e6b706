//! What the tests of this lab share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use bpf_trace::Filter;
use bpf_trace::command::{Running, Wait, Wake};
use bpf_trace::names::syscall_number;
use bpf_trace::syscalls::{Options, Row, Syscalls};

/// The lab's program.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bpf-trace"))
}

/// Whether tracing programs can be loaded and attached here.
pub fn has_bpf() -> bool {
    kit::probe::finding("bpf.tp_btf").is_some_and(|f| f.works())
}

/// Leaves the test if they cannot.
#[macro_export]
macro_rules! needs_bpf {
    () => {
        if !common::has_bpf() {
            kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
        }
    };
}

pub fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(|w| w.into()).collect()
}

/// Runs a command to its end.
pub fn run(words: &[OsString]) -> Running {
    let mut command = Running::start(words, true).unwrap();
    let mut wait = Wait::new(None, Duration::from_secs(600)).unwrap();
    assert_eq!(wait.next(None, Some(&mut command)).unwrap(), Wake::Ended);
    command
}

/// What a command and its descendants called; nothing of it lost.
pub fn traced(o: &Options, words: &[OsString]) -> Vec<Row> {
    let filter = Filter { follow: true, ..o.filter.clone() };
    let view = Syscalls::start(&Options { filter, ..o.clone() }).unwrap();
    run(words);
    view.tracer().stop();
    assert_eq!(view.tracer().lost().unwrap().events(), 0);
    view.read().unwrap()
}

/// The rows of one call.
pub fn of<'a>(rows: &'a [Row], name: &str) -> Vec<&'a Row> {
    let nr = syscall_number(name).unwrap();
    rows.iter().filter(|r| r.nr == nr).collect()
}

/// How often a call was made, all rows together.
pub fn count(rows: &[Row], name: &str) -> u64 {
    of(rows, name).iter().map(|r| r.count).sum()
}
