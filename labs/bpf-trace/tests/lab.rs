//! What the lab promises, held against programs whose calls are known.

use std::time::Duration;

use bpf_trace::command::{Running, Wait, Wake};
use bpf_trace::names::syscall_number;
use bpf_trace::syscalls::{By, Options, Row, Syscalls};
use bpf_trace::{Filter, Means, s1_by_hand::Counter};
use kit::testing::watchdog;

fn has_bpf() -> bool {
    kit::probe::finding("bpf.tp_btf").is_some_and(|f| f.works())
}

/// Counts what a command does.
fn traced(o: &Options, words: &[&str]) -> Vec<Row> {
    let o = Options { filter: Filter { follow: true, ..o.filter.clone() }, ..o.clone() };
    let view = Syscalls::start(&o).unwrap();
    let words: Vec<_> = words.iter().map(|w| w.into()).collect();
    let mut command = Running::start(&words, true).unwrap();
    let mut wait = Wait::new(None, Duration::from_secs(60)).unwrap();
    assert_eq!(wait.next(None, Some(&mut command)).unwrap(), Wake::Ended);
    assert_eq!(view.tracer().lost().unwrap().events(), 0);
    view.read().unwrap()
}

fn count(rows: &[Row], name: &str) -> u64 {
    let nr = syscall_number(name).unwrap();
    rows.iter().filter(|r| r.nr == nr).map(|r| r.count).sum()
}

#[test]
fn by_each_means_exactly_what_was_called_is_counted() {
    let _dog = watchdog(60);
    if !has_bpf() {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    for means in [Means::TpBtf, Means::RawTp, Means::Tracepoint] {
        // follow's own hooks have only the first means.
        let view = Syscalls::start(&Options {
            filter: Filter { pid: Some(std::process::id()), ..Filter::default() },
            means: Some(means),
            ..Options::default()
        });
        let view = view.unwrap_or_else(|e| panic!("{means}: {e}"));
        assert_eq!(view.tracer().attached()[0].means, means);
        drop(view);
    }
    let rows = traced(
        &Options { by: By::Process, ..Options::default() },
        &["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=20000", "status=none"],
    );
    assert_eq!(count(&rows, "write"), 20_000);
    assert!(count(&rows, "read") >= 20_000);
    assert_eq!(count(&rows, "execve"), 1);
}

#[test]
fn the_counter_by_hand_counts_what_others_do() {
    let _dog = watchdog(60);
    if !has_bpf() {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    let counter = Counter::start().unwrap();
    let before = counter.count().unwrap();
    for _ in 0..1000 {
        std::hint::black_box(nix::unistd::getppid());
    }
    assert!(counter.count().unwrap() >= before + 1000);
}
