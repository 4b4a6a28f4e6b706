//! `cargo xtask homework check LAB EX`: how far an exercise is, and what to do next.

use std::fmt::Write as _;

use clap::Args;

use super::catalogue::{self, Exercise};
use super::compile::{self, Compiled};
use super::judge::{self, Failure, Outcome};
use super::progress::{Progress, is_started};
use super::room::Call;
use super::seed::Seed;
use super::variants;
use super::workshop::Workshop;
use crate::exit;
use crate::report::{self, Style};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The lab; all labs if none is named
    lab: Option<String>,
    /// The exercise, as ex1 or 1; all of the lab if none is named
    exercise: Option<String>,
    /// Go on after the first test that fails
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    seed: Seed,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    let exercises = catalogue::chosen(options.lab.as_deref(), options.exercise.as_deref())?;
    let seed = options.seed.one()?;
    let shop = Workshop::own()?;
    shop.guard.tell();
    let mut passed = true;
    for lab in exercises.chunk_by(|a, b| a.lab == b.lab) {
        let calls = shop.room.calls(&lab[0].lab, lab)?;
        for exercise in lab {
            passed &= check(&shop, &calls[&exercise.id], exercise, seed, options.all)?;
        }
    }
    Ok(if passed { 0 } else { exit::FAILED })
}

/// Checks one exercise, as `watch` does.
pub(crate) fn one(exercise: &Exercise, seed: u64) -> anyhow::Result<bool> {
    let shop = Workshop::own()?;
    let calls = shop.room.calls(&exercise.lab, std::slice::from_ref(exercise))?;
    check(&shop, &calls[&exercise.id], exercise, seed, false)
}

/// Prints what came of each test; whether all passed.
fn check(shop: &Workshop, call: &Call, exercise: &Exercise, seed: u64, all: bool) -> anyhow::Result<bool> {
    let style = Style::stdout();
    let starter = variants::starter(exercise)?;
    let title = format!("{} {}: {}", exercise.lab, exercise.id, exercise.title);
    report::print(&format!("{}\n", style.strong(&title)))?;
    let built = match compile::compile(shop, 0, call, exercise, &starter)? {
        Compiled::Built(built) => built,
        Compiled::Forbidden(why) => {
            report::print(&format!("{why}\n{}\n", style.bad("it is refused, and was not built")))?;
            Progress::note(exercise, 0, 0)?;
            return Ok(false);
        }
        Compiled::Refused(said) => {
            report::print(&format!("{said}\n{}\n", style.bad("it does not compile")))?;
            Progress::note(exercise, 0, 0)?;
            return Ok(false);
        }
        Compiled::Late(why) => {
            report::print(&format!("{why}\n\n{}\n", style.bad("it was not checked")))?;
            return Ok(false);
        }
    };
    let (mut points, mut out, mut failed) = (0, 0, false);
    for test in &exercise.tests {
        let outcome = judge::run(shop, 0, call, exercise, test, &built, seed)?;
        match &outcome {
            Outcome::Passed => points += test.points,
            Outcome::NotHere(_) => out += test.points,
            Outcome::Failed(_) => failed = true,
        }
        report::print(&told(style, exercise, &test.name, test.points, &outcome, seed))?;
        if failed && !all {
            report::print("the tests after it were not run; --all runs them\n")?;
            break;
        }
    }
    Progress::note(exercise, points, out)?;
    let apart = if out == 0 { String::new() } else { format!(", {out} not gradable here") };
    report::print(&format!("{points}/{}{apart}\n{}", exercise.points(), next(exercise, failed)))?;
    Ok(!failed)
}

/// What to do now.
fn next(exercise: &Exercise, failed: bool) -> String {
    let Exercise { lab, id, .. } = exercise;
    match failed {
        false => "done; cargo xtask homework status says what is next\n".to_owned(),
        true if is_started(exercise) => format!("a hint: cargo xtask homework hint {lab} {id}\n"),
        true => {
            let files = exercise.files.join(", ");
            let stated = format!("labs/{lab}/README.md, {:?}", exercise.statement);
            format!("this is the starter: edit labs/{lab}/exercises/{files}\n")
                + &report::hanging("it is stated in ", &stated)
        }
    }
}

/// One test's result, in words.
fn told(style: Style, exercise: &Exercise, name: &str, points: u32, outcome: &Outcome, seed: u64) -> String {
    match outcome {
        Outcome::Passed => format!("  ok    {name:44} {points:>3}\n"),
        Outcome::NotHere(why) => {
            let score = format!("-/{points}");
            format!("  ----  {name:44} {score:>3}\n") + &report::hanging("        not gradable here: ", why)
        }
        Outcome::Failed(failure) => {
            let mut text = format!("  {}  {name:44} {:>3}\n", style.bad("FAIL"), format!("0/{points}"));
            text += &failure_lines(failure);
            if exercise.random {
                let _ = writeln!(text, "        again by: {}", Seed::replay(seed));
            }
            text
        }
    }
}

/// Where the message leads: to the spec or the student's file, not to somewhere in a library.
fn place(failure: &Failure) -> &str {
    if failure.place.starts_with("labs/") { &failure.place } else { "" }
}

/// Property, expected, seen, where, what to try; or the panic's message, and what was about to hold.
pub(crate) fn failure_lines(failure: &Failure) -> String {
    // Values stay as they are; sentences are wrapped.
    let line = |name: &str, text: &str| match (name, text) {
        (_, "") => String::new(),
        ("message:", text) if !text.contains('\n') => report::hanging("        message:  ", text),
        ("property:" | "try next:", text) => report::hanging(&format!("        {name} "), text),
        (name, text) => format!("        {name:9} {}\n", text.replace('\n', "\n                  ")),
    };
    if failure.message.contains("property: ") && failure.message.contains("try next: ") {
        let words = |l: &str| match l.split_at_checked(10) {
            Some((name @ ("property: " | "try next: "), text)) => line(name.trim_end(), text),
            _ => format!("        {l}\n"),
        };
        return failure.message.lines().map(words).collect::<String>() + &line("where:", place(failure));
    }
    line("property:", &failure.property)
        + &line("seen:", &failure.ended)
        + &line("message:", &failure.message)
        + &line("where:", place(failure))
        + &line("try next:", &failure.next)
}
