//! Spec of exercise 2: descriptors for a new program.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex2.rs"]
mod exercise;

#[allow(dead_code, reason = "a starter calls nothing yet")]
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd as _;

use exercise::{Move, remap};
use kit::spec::property;
use kit::stats::SplitMix;
use table::{Entry, Errno, Model, Real, Table as _};

/// Numbers 0 to 9 are open, each with FD_CLOEXEC, each something else.
fn ten() -> BTreeMap<i32, Entry> {
    (0..10).map(|n| (n, (100 + n as u64, true))).collect()
}

fn moves(pairs: &[(i32, i32)]) -> Vec<Move> {
    pairs.iter().map(|(from, to)| Move { from: *from, to: *to }).collect()
}

/// The table as it must be afterwards.
fn wished(before: &BTreeMap<i32, Entry>, pairs: &[(i32, i32)]) -> BTreeMap<i32, Entry> {
    let mut after = before.clone();
    after.extend(pairs.iter().map(|(from, to)| (*to, (before[from].0, false))));
    after
}

/// Cycles of more than one number.
fn cycles(pairs: &[(i32, i32)]) -> usize {
    let source: BTreeMap<i32, i32> = pairs.iter().map(|(from, to)| (*to, *from)).collect();
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for start in source.keys() {
        let mut path = Vec::new();
        let mut at = *start;
        while let Some(next) = source.get(&at)
            && seen.insert(at)
        {
            path.push(at);
            at = *next;
        }
        count += usize::from(path.len() > 1 && path.contains(&at));
    }
    count
}

/// Runs it; the model afterwards.
fn run(pairs: &[(i32, i32)], limit: i32) -> (Model, Result<(), Errno>) {
    let mut model = Model::new(ten(), limit);
    let said: Result<(), Errno> = remap(&mut model, &moves(pairs));
    (model, said)
}

/// Whether each target is what it should be.
fn check_targets(name: &str, next: &str, pairs: &[(i32, i32)]) -> Model {
    let what = property(name, next);
    let (model, said) = run(pairs, 16);
    let wish = wished(&ten(), pairs);
    for (_, to) in pairs {
        what.holds(
            model.open.get(to).map(|e| e.0) == Some(wish[to].0),
            format!("{to} is what {} was, for {pairs:?}", wish[to].0 - 100),
            format!("{:?}, after {}", model.open.get(to), model.calls.join("; ")),
        );
    }
    what.same(Ok(()), said);
    model
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex2.rs"]
fn chains_are_done_from_their_end() {
    kit::spec::run(|| {
        for pairs in [
            &[(7, 0)][..],
            &[(3, 4), (4, 5)],
            &[(4, 5), (3, 4)],
            &[(3, 4), (4, 5), (5, 6), (6, 7)],
            &[(3, 4), (3, 5), (3, 6)],
            &[(5, 1), (4, 5), (3, 4)],
            &[(3, 12), (12 - 9, 14)],
            &[],
        ] {
            check_targets(
                "a chain of moves gives each its source",
                "which of them overwrites what another still needs?",
                pairs,
            );
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex2.rs"]
fn cycles_are_opened() {
    kit::spec::run(|| {
        for pairs in [
            &[(3, 4), (4, 3)][..],
            &[(3, 4), (4, 5), (5, 3)],
            // Two cycles, and one with a tail.
            &[(3, 4), (4, 3), (5, 6), (6, 5)],
            &[(3, 4), (4, 3), (4, 7), (7, 8)],
            &[(0, 1), (1, 2), (2, 0), (0, 9)],
        ] {
            check_targets(
                "a cycle of moves gives each its source",
                "what if one of them were somewhere else for a while?",
                pairs,
            );
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex2.rs"]
fn flags_survive_or_not() {
    kit::spec::run(|| {
        for pairs in [&[(3, 4)][..], &[(5, 5)], &[(3, 4), (4, 3)], &[(5, 5), (3, 4), (4, 3), (6, 7)]] {
            let (model, said) = run(pairs, 16);
            property(
                "targets have no FD_CLOEXEC, all others what they had; nothing more is open",
                "what does dup2 do to the flag, and when does it do nothing?",
            )
            .same((Ok(()), wished(&ten(), pairs)), (said, model.open));
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex2.rs"]
fn few_calls_and_few_numbers() {
    kit::spec::run(|| {
        for pairs in [
            &[(3, 4), (4, 5), (5, 6)][..],
            &[(3, 4), (4, 3)],
            &[(2, 2), (3, 4), (4, 5), (5, 3)],
            &[(3, 4), (4, 3), (5, 6), (6, 5), (7, 8), (8, 7)],
        ] {
            // One number is free.
            let (model, said) = run(pairs, 11);
            property("one free number is enough", "how many are put aside at once, and until when?").holds(
                said.is_ok() && model.open == wished(&ten(), pairs),
                format!("{pairs:?} is done"),
                format!("{said:?}, after {}", model.calls.join("; ")),
            );
            let differ = pairs.iter().filter(|(from, to)| from != to).count();
            property("a dup2 for each move, a dup_above for each cycle", "which of them is for nothing?")
                .holds(
                    (model.dups, model.stashes) == (differ, cycles(pairs)),
                    format!("{differ} and {} for {pairs:?}", cycles(pairs)),
                    format!("{} and {}: {}", model.dups, model.stashes, model.calls.join("; ")),
                );
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex2.rs"]
fn an_error_leaves_no_number_open() {
    kit::spec::run(|| {
        let pairs = &[(2, 2), (3, 4), (4, 5), (5, 3), (6, 7), (7, 6), (8, 9)];
        let calls = run(pairs, 16).0.calls.len();
        for errno in [Errno::Eintr, Errno::Emfile] {
            for call in 0..calls {
                let mut model = Model::new(ten(), 16);
                model.fails = Some((call, errno));
                let said: Result<(), Errno> = remap(&mut model, &moves(pairs));
                let failed = model.calls.get(call).cloned().unwrap_or_default();
                property("the error of a call is returned", "whose error counts if a second call fails?")
                    .holds(said == Err(errno), format!("{errno:?} of {failed}"), format!("{said:?}"));
                // A close that fails may have closed or not.
                if !failed.starts_with("close") {
                    let more: Vec<&i32> = model.open.keys().filter(|n| !(0..10).contains(*n)).collect();
                    property(
                        "after an error, nothing that was put aside stays open",
                        "what runs on the way out of a `?`?",
                    )
                    .holds(
                        more.is_empty(),
                        format!("none after {failed} failed"),
                        format!("{more:?} open, after {}", model.calls.join("; ")),
                    );
                }
            }
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex2.rs"]
fn any_moves_at_all() {
    kit::spec::run(|| {
        let mut random = SplitMix(kit::spec::seed());
        for _ in 0..500 {
            let count = random.next_u64() % 10;
            let mut wish = BTreeMap::new();
            for _ in 0..count {
                wish.insert((random.next_u64() % 12) as i32, (random.next_u64() % 10) as i32);
            }
            let pairs: Vec<(i32, i32)> = wish.into_iter().map(|(to, from)| (from, to)).collect();
            let (model, said) = run(&pairs, 14);
            property(
                "whatever the moves, the table is as wished",
                "which move is the first that goes wrong?",
            )
            .holds(
                said.is_ok() && model.open == wished(&ten(), &pairs),
                format!("{pairs:?} is done"),
                format!("{said:?}, {:?}, after {}", model.open, model.calls.join("; ")),
            );
            let differ = pairs.iter().filter(|(from, to)| from != to).count();
            property("a dup2 for each move, a dup_above for each cycle", "which of them is for nothing?")
                .holds(
                    model.dups <= differ && model.stashes <= cycles(&pairs),
                    format!("{differ} and {} for {pairs:?}", cycles(&pairs)),
                    format!("{} and {}: {}", model.dups, model.stashes, model.calls.join("; ")),
                );
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex2.rs"]
fn the_kernel_does_the_same() {
    kit::spec::run(|| {
        // Numbers that nobody else in this process has.
        const BASE: i32 = 200;
        let files: Vec<File> = (0..6).map(|_| tempfile::tempfile().expect("a file without a name")).collect();
        let mut real = Real;
        for (i, file) in (0..).zip(&files) {
            real.dup_above(file.as_raw_fd(), BASE + i).expect("a number that is free");
        }
        let table = || -> BTreeMap<i32, Entry> {
            (BASE..BASE + 40).filter_map(|fd| Some((fd, Real::entry(fd)?))).collect()
        };
        let before = table();
        assert_eq!(before.len(), 6);
        let pairs = [(0, 1), (1, 2), (2, 0), (3, 3), (4, 5), (5, 6)].map(|(a, b)| (BASE + a, BASE + b));
        let said: Result<(), Errno> = remap(&mut real, &moves(&pairs));
        property("the kernel's table is as wished, too", "what differs from the model?")
            .same((Ok(()), wished(&before, &pairs)), (said, table()));
        for fd in BASE..BASE + 40 {
            let _ = real.close(fd);
        }
    });
}
