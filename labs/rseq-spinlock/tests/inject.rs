//! Something at every instruction of every critical section; see `src/inject.rs`.

#![allow(missing_docs, reason = "test")]

use rseq_spinlock::inject::{EVENTS, Event, InjectError, Part, Round, inject};
use rseq_spinlock::subject::{SUBJECTS, Subject};

/// The rounds, or none with a word why.
fn rounds(subject: Subject, armed: bool, event: Event) -> Result<Vec<Round>, String> {
    match inject(subject, armed, event) {
        Ok(rounds) => Ok(rounds),
        Err(e @ (InjectError::OneCpu | InjectError::Rseq(_))) => Err(e.to_string()),
        Err(InjectError::Sys(e)) if e.errno == libc::EPERM => Err(e.to_string()),
        Err(e) => panic!("{subject:?} {event:?}: {e}"),
    }
}

#[test]
fn an_event_inside_aborts_once_and_nothing_is_lost() {
    let _dog = kit::testing::watchdog(180);
    for subject in SUBJECTS {
        for event in EVENTS {
            let rounds = match rounds(subject, true, event) {
                Ok(rounds) => rounds,
                Err(why) => kit::skip!("ptrace", "{why}"),
            };
            assert!(rounds.iter().filter(|r| r.part == Part::Inside).count() >= 7, "{rounds:?}");
            for round in &rounds {
                let what = format!("{subject:?}, {event:?}: {round:x?}");
                assert!(round.right, "{what}");
                let expected = u32::from(round.part == Part::Inside);
                // Exact, but for what else may have preempted the child meanwhile.
                assert!(round.aborts >= expected && round.aborts <= expected + round.disturbed, "{what}");
            }
        }
    }
}

#[test]
fn without_rseq_the_same_instructions_go_wrong() {
    let _dog = kit::testing::watchdog(180);
    for subject in SUBJECTS {
        let rounds = match rounds(subject, false, Event::Signal) {
            Ok(rounds) => rounds,
            Err(why) => kit::skip!("ptrace", "{why}"),
        };
        assert!(rounds.iter().all(|r| r.aborts == 0), "{subject:?}: {rounds:x?}");
        assert!(rounds.iter().any(|r| !r.right), "{subject:?} cannot go wrong: {rounds:x?}");
        // Wrong only between the first look at the structure and the commit.
        assert!(rounds.iter().all(|r| r.right || r.part == Part::Inside), "{subject:?}: {rounds:x?}");
    }
}

/// The counter by instruction: an update is lost where the handler runs between the load and the store, and
/// nowhere else.
#[test]
fn the_plain_counter_loses_exactly_two_places() {
    let _dog = kit::testing::watchdog(180);
    let rounds = match rounds(Subject::CounterAdd, false, Event::Signal) {
        Ok(rounds) => rounds,
        Err(why) => kit::skip!("ptrace", "{why}"),
    };
    let wrong: Vec<usize> = rounds.iter().filter(|r| !r.right).map(|r| r.instruction).collect();
    let commit = rounds.len() - 2;
    // Before `inc` and before the store.
    assert_eq!(wrong, [commit - 1, commit], "{rounds:x?}");
}
