//! Runs one test of a spec, and says what came of it.

use std::fs::File;
use std::io::Read as _;

use serde::{Deserialize, Serialize};

use super::catalogue::{Exercise, Test};
use super::compile::Built;
use super::process::{Ended, Ran};
use super::room::Call;
use super::sandbox::{self, Task, View};
use super::workshop::{Workshop, is_privileged};

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed(Failure),
    /// This machine lacks what the test needs.
    NotHere(String),
}

/// Why a test failed, in the words of the spec or of the panic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    /// How it ended, where it did not end by itself with a message.
    pub(crate) ended: String,
    /// What was named last of what must hold, and what to try; also in the message of a property that broke.
    pub(crate) property: String,
    pub(crate) next: String,
    /// `labs/…/tests/ex1.rs:12:9`
    pub(crate) place: String,
    /// The panic's message, or all that it wrote.
    pub(crate) message: String,
}

/// How a failure begins that says nothing of the exercise.
pub(crate) const LEFT_EARLY: &str = "the spec left the test early";

/// Random bytes that the student's code cannot know.
fn secret() -> anyhow::Result<[u8; kit::spec::SECRET]> {
    let mut secret = [0; kit::spec::SECRET];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(secret)
}

/// Runs one test, alone in its process.
pub(crate) fn run(
    shop: &Workshop,
    slot: usize,
    call: &Call,
    exercise: &Exercise,
    test: &Test,
    built: &Built,
    seed: u64,
) -> anyhow::Result<Outcome> {
    if let Some(reason) = shop.missing(test) {
        return Ok(Outcome::NotHere(reason));
    }
    let secret = secret()?;
    let mut variables = call.variables.clone();
    for (name, value) in [
        ("CARGO_MANIFEST_DIR", built.place.display().to_string()),
        (kit::spec::RUNNER, exercise.time_limit.to_string()),
        (kit::spec::SEED, seed.to_string()),
        ("RUST_BACKTRACE", "0".into()),
    ] {
        variables.insert(name.into(), value);
    }
    if exercise.may_look_into_processes {
        variables.insert(kit::spec::OPEN.into(), "1".into());
    }
    let task = Task {
        program: built.program.clone(),
        arguments: ["--exact", &test.name, "--include-ignored", "--test-threads=1", "--nocapture"]
            .map(str::to_owned)
            .into(),
        variables,
        folder: built.place.clone(),
        // The spec ends itself in time, and says why; this is for when it cannot.
        seconds: exercise.time_limit + 2,
        view: View {
            read: vec![shop.room.root(), shop.room.target(), built.place.clone()],
            write: Vec::new(),
            devices: test.needs.iter().filter_map(|n| sandbox::device(n)).map(Into::into).collect(),
        },
        privileged: is_privileged(test),
        may_nest: test.needs.iter().any(|n| n == "userns"),
        may_look: exercise.may_look_into_processes,
        slot,
    };
    let ran = shop.guard.run(&task, Some(&secret))?;
    let mut outcome = judge(&ran, &secret, built);
    if let Outcome::Failed(failure) = &mut outcome
        && failure.property.is_empty()
        && !failure.message.contains("property: ")
    {
        // It failed before the spec named anything: a test's name says what holds.
        failure.property = test.name.replace('_', " ");
        failure.next = format!("read `{}` in labs/{}/tests/{}.rs", test.name, exercise.lab, exercise.id);
    }
    Ok(outcome)
}

fn judge(ran: &Ran, secret: &[u8], built: &Built) -> Outcome {
    let end = [b"end ".as_slice(), secret].concat();
    if ran.ended == Ended::Exit(0) && ran.told.ends_with(&end) {
        return Outcome::Passed;
    }
    let told = String::from_utf8_lossy(&ran.told);
    let last =
        |word: &str| told.lines().rev().find_map(|l| l.strip_prefix(word)).unwrap_or_default().to_owned();
    let (place, message) = message(&built.readable(&ran.stderr));
    let skip = last("skip ");
    let ended = match ran.ended {
        // What a test needs is in exercises.toml, and was there.
        _ if !skip.is_empty() => format!("{LEFT_EARLY}: {skip}"),
        Ended::Exit(0) => "the process ended, with exit code 0, before the test reached its end".to_owned(),
        // libtest's own, after a panic.
        Ended::Exit(101) => String::new(),
        // The spec's watchdog, which ends it by SIGABRT.
        Ended::Signal(_) => watchdog(&ran.stderr).unwrap_or_else(|| format!("the test {}", ran.ended)),
        other => format!("the test {other}"),
    };
    let message = shortened(&message);
    Outcome::Failed(Failure { ended, property: last("at "), next: last("next "), place, message })
}

/// Bytes of a message that a report has: enough to understand, and too few to fill a disk.
const MESSAGE: usize = 4_000;

/// The beginning of a long text.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().map(|(at, _)| at).find(|at| *at >= MESSAGE) {
        Some(end) => format!("{}\n… and {} bytes more", &text[..end], text.len() - end),
        None => text.to_owned(),
    }
}

/// What the watchdog of a spec says, if it has ended the test: "still running after 10 s".
fn watchdog(stderr: &str) -> Option<String> {
    let said = stderr.lines().rev().find_map(|l| l.split_once("WATCHDOG ")?.1.split_once(": "))?.1;
    Some(said.to_owned())
}

/// Place and message of the last panic in what a test wrote; without one, all that it wrote.
fn message(stderr: &str) -> (String, String) {
    let noises = ["note: run with `RUST_BACKTRACE", "note: in Rust", "WATCHDOG "];
    let noise = |l: &&str| !noises.iter().any(|n| l.starts_with(n));
    let lines: Vec<&str> = stderr.lines().filter(noise).collect();
    let start = lines.iter().position(|l| l.starts_with("thread '") && l.contains("panicked at "));
    let Some(start) = start else { return (String::new(), lines.join("\n").trim().to_owned()) };
    let place = lines[start].split_once("panicked at ").map_or("", |(_, p)| p).trim_end_matches(':');
    let rest: Vec<&str> =
        lines[start + 1..].iter().copied().take_while(|l| !l.starts_with("thread '")).collect();
    (place.to_owned(), rest.join("\n").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_says_how_long() {
        let said = "mine: a WATCHDOG\nWATCHDOG numbers_differ: still running after 10 s\n";
        assert_eq!(watchdog(said).as_deref(), Some("still running after 10 s"));
        assert_eq!(watchdog("Aborted"), None);
    }
}
