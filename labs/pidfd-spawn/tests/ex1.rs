//! Spec of exercise 1: a supervisor loop without races.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex1.rs"]
mod exercise;

mod common;
#[allow(dead_code, reason = "a starter calls nothing yet")]
mod kernel;

use std::time::Duration;

use exercise::{Service, supervise};
use kernel::{Child, End, Errno, Model, Moment, Ms, Real, Signal};
use kit::spec::property;
use nix::sys::signal::SigSet;
use pidfd_spawn::spawn::Spawn;

/// Milliseconds between SIGTERM and SIGKILL.
const GRACE: Ms = 1000;

fn ends(after: Ms, code: i32) -> Child {
    Child { after: Some(after), end: End::Exited(code), on_term: Some(1) }
}

/// Runs until it is told to end, and does so after a time.
fn serves(on_term: Option<Ms>) -> Child {
    Child { after: None, end: End::Exited(0), on_term }
}

fn services(restarts: &[u32]) -> Vec<Service> {
    restarts.iter().map(|restarts| Service { restarts: *restarts }).collect()
}

type Said = Result<Vec<Option<End>>, Errno>;

fn run(model: &mut Model, restarts: &[u32]) -> Said {
    let said: Said = supervise(model, &services(restarts), GRACE);
    model.nothing_is_left();
    said
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex1.rs"]
fn all_are_started_and_reaped() {
    kit::spec::run(|| {
        for interrupts in [false, true] {
            let mut model =
                Model::new(vec![vec![ends(30, 0)], vec![ends(10, 0)], vec![ends(10, 0)], vec![ends(0, 0)]]);
            model.interrupts = interrupts;
            let said = run(&mut model, &[0, 0, 0, 0]);
            let what = property(
                "it returns how each service ended, whatever their order, also if calls are interrupted",
                "what does one answer of poll tell, and what does EINTR mean?",
            );
            what.same(Ok(vec![Some(End::Exited(0)); 4]), said);
            what.same(vec![0, 1, 2, 3], model.starts);
        }
        property("without services there is nothing to wait for", "when is all done?")
            .same(Ok(vec![]), run(&mut Model::new(vec![]), &[]));
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex1.rs"]
fn what_fails_is_started_again() {
    kit::spec::run(|| {
        let mut model = Model::new(vec![
            vec![ends(10, 1), ends(10, 2), ends(10, 0)],
            vec![Child { end: End::Killed(Signal::Kill), ..ends(15, 0) }],
            vec![ends(12, 0)],
            vec![ends(35, 7)],
        ]);
        let said = run(&mut model, &[5, 2, 9, 0]);
        let last = vec![
            Some(End::Exited(0)),
            Some(End::Killed(Signal::Kill)),
            Some(End::Exited(0)),
            Some(End::Exited(7)),
        ];
        let what = property("it returns how each service ended last", "which end is a failure?");
        what.same(Ok(last), said);
        let counted: Vec<usize> = (0..4).map(|i| model.starts.iter().filter(|s| **s == i).count()).collect();
        property(
            "a service is started again as often as it may be, and only after a failure",
            "how often is it started then?",
        )
        .same(vec![3, 3, 1, 1], counted);
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex1.rs"]
fn sigterm_at_any_time_stops_all() {
    kit::spec::run(|| {
        // The second fails at once and is started again: there are calls of all kinds to come between.
        let scripts = || {
            vec![
                vec![serves(Some(20))],
                vec![ends(0, 1), ends(0, 1), serves(Some(5))],
                vec![serves(Some(20))],
            ]
        };
        let mut calm = Model::new(scripts());
        // An hour in which nothing happens is slept through.
        calm.term = Moment::Time(3_600_000);
        let killed = Some(End::Killed(Signal::Term));
        let what = property(
            "after a SIGTERM every service gets one, and it returns when all have ended",
            "who tells you that SIGTERM came?",
        );
        what.same(Ok(vec![killed; 3]), run(&mut calm, &[0, 2, 0]));
        for call in calm.first_spawn + 1..calm.calls_before_term {
            let mut model = Model::new(scripts());
            model.term = Moment::Call(call);
            let what = property(
                "a SIGTERM is not lost, whichever call it comes before",
                "what if it comes after you looked, and before you sleep? Is it blocked before there is anything to stop?",
            );
            let said = run(&mut model, &[0, 2, 0]);
            // The second may just have failed, and is not started again then.
            let gentle = |end: &Option<End>| [killed, Some(End::Exited(1))].contains(end);
            what.holds(
                said.as_ref().is_ok_and(|ends| ends.iter().all(gentle)),
                "all ended by SIGTERM",
                format!("{said:?}, for a SIGTERM before call {call}"),
            );
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex1.rs"]
fn no_stranger_is_hit() {
    kit::spec::run(|| {
        // The first ends, is reaped, and its number is somebody else's when SIGTERM comes.
        let scripts =
            || vec![vec![ends(10, 0)], vec![serves(Some(20))], vec![serves(None)], vec![ends(50, 3)]];
        let mut model = Model::new(scripts());
        model.term = Moment::Time(50);
        let said = run(&mut model, &[0; 4]);
        property("each service ended as it should", "who was sent what?").holds(
            said.as_ref()
                .is_ok_and(|s| s[0] == Some(End::Exited(0)) && s[2] == Some(End::Killed(Signal::Kill))),
            "the first by itself, the third by SIGKILL",
            format!("{said:?}"),
        );
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex1.rs"]
fn force_comes_in_time() {
    kit::spec::run(|| {
        for interrupts in [false, true] {
            // Others end every now and then meanwhile, and each wakes the loop up.
            let mut scripts: Vec<Vec<Child>> = (1..=6).map(|i| vec![serves(Some(150 * i))]).collect();
            scripts.push(vec![serves(None)]);
            let mut model = Model::new(scripts);
            (model.term, model.interrupts) = (Moment::Time(100), interrupts);
            let said = run(&mut model, &[9; 7]);
            let mut expected = vec![Some(End::Killed(Signal::Term)); 6];
            expected.push(Some(End::Killed(Signal::Kill)));
            property("who takes no notice of SIGTERM gets SIGKILL, and nobody else", "who still runs then?")
                .same(Ok(expected), said);
            property(
                format!("SIGKILL comes {GRACE} ms after SIGTERM, not earlier or later"),
                "is what you give to poll counted from SIGTERM, or from when something else woke you up?",
            )
            .same(Some(100 + GRACE), model.killed_at(6));
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex1.rs"]
fn an_error_leaves_nothing_behind() {
    kit::spec::run(|| {
        let scripts = || vec![vec![serves(None)], vec![ends(10, 1)], vec![serves(Some(5))]];
        let mut model = Model::new(scripts());
        model.term_fd_fails = true;
        property("an error of signalfd is returned", "which calls can fail?")
            .same(Err(Errno::Emfile), run(&mut model, &[0; 3]));
        // The first starts, then a restart.
        for n in 0..5 {
            let mut model = Model::new(scripts());
            model.spawn_fails = Some((n, Errno::Eagain));
            property("an error of spawn is returned, and nothing runs on", "who has been started by then?")
                .same(Err(Errno::Eagain), run(&mut model, &[0, 5, 0]));
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/pidfd-spawn/exercises/ex1.rs"]
fn on_the_real_kernel() {
    kit::spec::run(|| {
        let (before, none) = (common::open_fds().len(), common::children());
        let mut deaf = SigSet::empty();
        deaf.add(nix::sys::signal::Signal::SIGTERM);
        let commands = vec![
            Spawn::new("sleep").arg("1000"),
            Spawn::new("false"),
            Spawn::new("true"),
            Spawn::new("sleep").arg("1000").mask(deaf),
        ];
        let mut kernel = Real::new(commands);
        let term = kernel.term.clone();
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            term.write(1).expect("room in an eventfd");
        });
        let said: Said = supervise(&mut kernel, &services(&[0, 2, 0, 0]), 50);
        sender.join().expect("it only writes");
        let what = property(
            "real processes are started, stopped, killed and reaped",
            "what differs from the model?",
        );
        let (term, kill) = (Some(End::Killed(Signal::Term)), Some(End::Killed(Signal::Kill)));
        // On a slow machine SIGTERM may come before the second has failed for the last time.
        let fails = said.as_ref().ok().and_then(|s| s.get(1).copied()).flatten();
        what.holds([Some(End::Exited(1)), term].contains(&fails), "false ends with 1", format!("{fails:?}"));
        let third = said.as_ref().ok().and_then(|s| s.get(2).copied()).flatten();
        what.holds([Some(End::Exited(0)), term].contains(&third), "true ends with 0", format!("{third:?}"));
        what.same(Ok((term, kill)), said.map(|s| (s[0], s[3])));
        what.holds(kernel.starts <= 6, "at most 6 starts", kernel.starts);
        property("pidfds are closed after the reaping", "what is reaped by which handle?")
            .same(0, kernel.forgotten);
        drop(kernel);
        property("no child is left", "who reaps?").same(none, common::children());
        property("no descriptor is left", "who closes?").same(before, common::open_fds().len());
    });
}
