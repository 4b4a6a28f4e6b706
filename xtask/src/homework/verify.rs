//! `cargo xtask homework verify`: proves that exercises are worth handing out.
//!
//! The starter compiles and fails, the solution passes, each wrong one compiles and fails the test made for it, and
//! list, statement and spec agree.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use nix::unistd::geteuid;

use super::catalogue::{self, Exercise, Test};
use super::compile::{self, Built, Compiled};
use super::judge::{self, Outcome};
use super::process::{self, Ended};
use super::room::Call;
use super::variants::{self, Variant};
use super::work::{self, Turn};
use super::workshop::Workshop;
use super::{check, handout, seed};
use crate::{Usage, exit, paths, report};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The lab; all labs if none is named
    lab: Option<String>,
    /// The exercise, as ex1 or 1
    exercise: Option<String>,
}

/// How often the solution of a randomised spec must pass.
const TIMES: usize = 20;
/// Wrong solutions that an exercise has at least.
const WRONG: usize = 3;

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    let start = Instant::now();
    let exercises = catalogue::chosen(options.lab.as_deref(), options.exercise.as_deref())?;
    if handout::is_one(&exercises) {
        bail!(Usage("this is a student's copy: there are no solutions to prove anything with".into()));
    }
    let (found, not_here) = verify(&exercises)?;
    let seconds = start.elapsed().as_secs_f64();
    let unproven = match not_here.len() {
        0 => String::new(),
        n => format!(", but for tests that cannot run here: {n}"),
    };
    if found.is_empty() {
        report::print(&format!("verify: {} exercises hold{unproven}   {seconds:.0} s\n", exercises.len()))?;
        return Ok(0);
    }
    let last = format!("\nverify: {} faults{unproven}   {seconds:.0} s\n", found.len());
    report::print(&(found.join("\n") + &last))?;
    Ok(exit::FAILED)
}

/// The same, as a step of `ci`; a student's copy has nothing to prove.
pub(crate) fn check() -> anyhow::Result<()> {
    let exercises = catalogue::all()?;
    if exercises.is_empty() || handout::is_one(&exercises) {
        report::note("no solutions here: nothing to verify");
        return Ok(());
    }
    let (found, _) = verify(&exercises)?;
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// One thing to prove, of one variant.
#[derive(Clone)]
struct Job<'a> {
    exercise: &'a Exercise,
    call: Call,
    variant: Variant,
}

impl Job<'_> {
    /// How often its tests are run.
    fn times(&self) -> usize {
        if self.exercise.random && self.variant.name == "solution" { TIMES } else { 1 }
    }
}

/// Tests that cannot run here, each with its exercise.
type NotHere = BTreeSet<String>;

/// All that is wrong with these exercises, and what could not be tried.
fn verify(exercises: &[Exercise]) -> anyhow::Result<(Vec<String>, NotHere)> {
    let mut found: Vec<String> = exercises.iter().flat_map(on_paper).collect();
    if !found.is_empty() {
        found.push("nothing was built: put these right first".into());
        return Ok((found, NotHere::new()));
    }
    let shop = Workshop::own()?;
    let mut variants = Vec::new();
    for exercise in exercises {
        let wrong = variants::wrong(exercise)?;
        if wrong.len() < WRONG {
            found.push(fault(exercise, &format!("has {} wrong solutions of at least {WRONG}", wrong.len())));
        }
        let others = [variants::starter(exercise)?, variants::solution(exercise)?];
        variants.extend(others.into_iter().chain(wrong).map(|variant| (exercise, variant)));
    }
    let more = Mutex::new(Vec::new());
    let not_here = exercises.iter().flat_map(|e| {
        let missing = e.tests.iter().filter(|t| shop.missing(t).is_some());
        missing.map(move |t| format!("{} {} {}", e.lab, e.id, t.name))
    });
    let not_here = not_here.collect();
    let prove_one = |slot, job| {
        let faults = prove(&shop, slot, &job)
            .unwrap_or_else(|e| vec![fault(job.exercise, &format!("{}: {e:#}", job.variant.name))]);
        report::note(&format!(
            "{} {} {} {}",
            if faults.is_empty() { "ok  " } else { "FAIL" },
            job.exercise.lab,
            job.exercise.id,
            job.variant.name
        ));
        more.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(faults);
    };
    let solutions = work::as_they_come(|add| bring(&shop, exercises, &variants, add), prove_one)?;
    // Where submissions are graded something may be missing that is here: solutions get their points there, too.
    let shop = shop.closed_from_now(geteuid().is_root())?;
    shop.guard.tell();
    work::side_by_side(&solutions, |slot, job| {
        let faults = prove_closed(&shop, slot, job).unwrap_or_else(|e| {
            vec![fault(job.exercise, &format!("the solution, where it is graded: {e:#}"))]
        });
        let mark = if faults.is_empty() { "ok  " } else { "FAIL" };
        report::note(&format!("{mark} {} {} solution, in the sandbox", job.exercise.lab, job.exercise.id));
        more.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(faults);
    });
    found.extend(more.into_inner().unwrap_or_default());
    Ok((found, not_here))
}

/// Builds the labs, and gives what is to be proven of one while cargo builds the next. The solutions are returned, too.
fn bring<'a>(
    shop: &Workshop,
    exercises: &'a [Exercise],
    variants: &[(&'a Exercise, Variant)],
    add: &dyn Fn(Turn, Job<'a>),
) -> anyhow::Result<Vec<Job<'a>>> {
    let mut solutions = Vec::new();
    for lab in exercises.chunk_by(|a, b| a.lab == b.lab) {
        let calls = shop.room.calls(&lab[0].lab, lab)?;
        for (exercise, variant) in variants.iter().filter(|(e, _)| e.lab == lab[0].lab) {
            let job = Job { exercise, call: calls[&exercise.id].clone(), variant: variant.clone() };
            if variant.name == "solution" {
                solutions.push(job.clone());
            }
            add(if job.times() > 1 { Turn::First } else { Turn::InOrder }, job);
        }
    }
    Ok(solutions)
}

fn fault(exercise: &Exercise, what: &str) -> String {
    format!("{} {}: {what}", exercise.lab, exercise.id)
}

/// What list, statement and files say of each other.
pub(crate) fn on_paper(exercise: &Exercise) -> Vec<String> {
    let mut found = Vec::new();
    let mut claim = |holds: bool, what: String| {
        if !holds {
            found.push(fault(exercise, &what));
        }
    };
    claim(exercise.hints.len() == 3, format!("has {} hints and not three", exercise.hints.len()));
    claim(
        (1..=3).contains(&exercise.difficulty),
        format!("difficulty {} is not 1, 2 or 3", exercise.difficulty),
    );
    claim(exercise.minutes > 0 && exercise.time_limit > 0, "minutes or time_limit is 0".into());
    claim(exercise.tests.iter().all(|t| t.points > 0), "a test is worth nothing".into());
    let anywhere: u32 = exercise.tests.iter().filter(|t| t.needs.is_empty()).map(|t| t.points).sum();
    claim(anywhere > 0, "no part can be graded where what it needs is missing".into());
    for need in exercise.tests.iter().flat_map(|t| &t.needs) {
        claim(kit::probe::NAMES.contains(&need.as_str()), format!("needs: doctor has no finding {need:?}"));
    }

    let readme = fs::read_to_string(exercise.folder.join("README.md")).unwrap_or_default();
    let heading = format!("### {}", exercise.statement);
    let statement =
        readme.split_once(&format!("{heading}\n")).map(|(_, rest)| rest.split("\n##").next().unwrap_or(rest));
    match statement {
        None => claim(false, format!("the README has no heading {heading:?}")),
        Some(text) => {
            let points = format!("{} points", exercise.points());
            let one = text.split(['.', ',', '\n']).any(|p| p.trim().trim_end_matches('*') == points);
            claim(one, format!("the statement does not say \"{points}\""));
            for file in &exercise.files {
                claim(text.contains(file.as_str()), format!("the statement does not name {file}"));
            }
        }
    }
    let starters = exercise.starters();
    for file in &starters {
        let todo = fs::read_to_string(file).unwrap_or_default().contains(concat!("TO", "DO(you)"));
        claim(todo, format!("{} has no {}", paths::shown(file), concat!("TO", "DO(you)")));
    }

    let spec = exercise.folder.join("tests").join(format!("{}.rs", exercise.id));
    let text = fs::read_to_string(&spec).unwrap_or_default();
    let ignore = format!("#[ignore = \"exercise: edit labs/{}/exercises/{}.rs\"]", exercise.lab, exercise.id);
    let count = |what: &str| text.matches(what).count();
    claim(
        count("exercise::*") == 0,
        format!("{}: takes names of the exercise that it does not know", paths::shown(&spec)),
    );
    claim(
        count("#[test]") == count(&ignore) && count("#[test]") == count("kit::spec::run("),
        format!("{}: not every test has {ignore} and kit::spec::run", paths::shown(&spec)),
    );
    let draws = text.contains("spec::seed");
    claim(
        !draws || exercise.random,
        format!("{}: draws inputs, and random = true is not in the list", paths::shown(&spec)),
    );
    claim(
        text.contains("#[forbid(unsafe_code") != exercise.may_be_unsafe,
        format!("{}: the attribute of `mod exercise` and may_be_unsafe disagree", paths::shown(&spec)),
    );
    found
}

/// A wrong one that says so of itself: before it is built.
fn is_to_be_refused(variant: &Variant) -> bool {
    variant.fails.as_ref().is_some_and(|m| m.test == "only_from")
}

/// Builds one variant and runs what is to be known of it.
fn prove(shop: &Workshop, slot: usize, job: &Job<'_>) -> anyhow::Result<Vec<String>> {
    let Job { exercise, call, variant } = job;
    let name = &variant.name;
    let built = match compile::compile(shop, slot, call, exercise, variant)? {
        Compiled::Built(_) if is_to_be_refused(variant) => {
            return Ok(vec![fault(exercise, &format!("{name} is not refused"))]);
        }
        Compiled::Built(built) => built,
        Compiled::Forbidden(_) if is_to_be_refused(variant) => return Ok(Vec::new()),
        Compiled::Forbidden(why) => return Ok(vec![fault(exercise, &format!("{name} is refused:\n{why}"))]),
        Compiled::Refused(said) => {
            return Ok(vec![fault(exercise, &format!("{name} does not compile:\n{said}"))]);
        }
        Compiled::Late(why) => return Ok(vec![fault(exercise, &format!("{name} is not proven: {why}"))]),
    };
    let mut found = Vec::new();
    if name == "solution" {
        found.extend(names_agree(exercise, &built)?);
    }
    let mut failed = BTreeSet::new();
    let mut not_here = BTreeSet::new();
    for _ in 0..job.times() {
        let seed = seed::drawn()?;
        for test in needed(exercise, variant) {
            match judge::run(shop, slot, call, exercise, test, &built, seed)? {
                Outcome::Passed => (),
                Outcome::NotHere(_) => drop(not_here.insert(test.name.clone())),
                Outcome::Failed(failure) => {
                    if failure.ended.starts_with(judge::LEFT_EARLY) {
                        let why = format!("{name} proves nothing by {}: {}", test.name, failure.ended);
                        found.push(fault(exercise, &why));
                    }
                    if name == "solution" {
                        let how = format!(
                            "the solution fails {} (seed {seed}):\n{}",
                            test.name,
                            check::failure_lines(&failure)
                        );
                        found.push(fault(exercise, &how));
                    }
                    failed.insert(test.name.clone());
                }
            }
        }
    }
    for test in &not_here {
        report::note(&format!("SKIP {} {} {name}: {test} cannot run here", exercise.lab, exercise.id));
    }
    match &variant.fails {
        Some(mistake) if !exercise.tests.iter().any(|t| t.name == mistake.test) => {
            found.push(fault(
                exercise,
                &format!("{name} is meant to fail {:?}, which is no test", mistake.test),
            ));
        }
        Some(mistake)
            if failed.is_empty()
                && exercise.tests.iter().any(|t| t.name == mistake.test && shop.missing(t).is_none()) =>
        {
            found.push(fault(exercise, &format!("{name} passes {}, but {}", mistake.test, mistake.why)));
        }
        None if name.starts_with("wrong") => {
            found.push(fault(exercise, &format!("{name} does not say \"Fails `test`: why\" in a comment")));
        }
        None if name == "starter" && failed.is_empty() => {
            found.push(fault(exercise, "the starter fails no test"))
        }
        None if name == "starter" => {
            // Some tests guard what was there before, as that nothing else is counted.
            let passed = exercise.tests.iter().filter(|t| !failed.contains(&t.name));
            let passed: Vec<_> =
                passed.filter(|t| shop.missing(t).is_none()).map(|t| t.name.as_str()).collect();
            if !passed.is_empty() {
                let passed = passed.join(", ");
                report::note(&format!("     {} {}: the starter passes {passed}", exercise.lab, exercise.id));
            }
        }
        _ => (),
    }
    Ok(found)
}

/// The same of a solution in the sandbox of `grade`.
fn prove_closed(shop: &Workshop, slot: usize, job: &Job<'_>) -> anyhow::Result<Vec<String>> {
    let Job { exercise, call, variant } = job;
    let built = match compile::compile(shop, slot, call, exercise, variant)? {
        Compiled::Built(built) => built,
        Compiled::Forbidden(why) | Compiled::Refused(why) | Compiled::Late(why) => {
            return Ok(vec![fault(exercise, &format!("the solution, where it is graded:\n{why}"))]);
        }
    };
    let mut found = Vec::new();
    let seed = seed::drawn()?;
    for test in &exercise.tests {
        match judge::run(shop, slot, call, exercise, test, &built, seed)? {
            Outcome::Passed => (),
            Outcome::NotHere(why) => {
                let what = format!("{} {}: {} is not gradable", exercise.lab, exercise.id, test.name);
                report::note(&format!("SKIP {what} in the sandbox: {why}"));
            }
            Outcome::Failed(failure) => {
                let how = format!(
                    "the solution fails {} where it is graded (seed {seed}):\n{}",
                    test.name,
                    check::failure_lines(&failure)
                );
                found.push(fault(exercise, &how));
            }
        }
    }
    Ok(found)
}

/// The tests to run: of a wrong one only the test meant for it.
fn needed<'a>(exercise: &'a Exercise, variant: &Variant) -> Vec<&'a Test> {
    let meant = |t: &&Test| variant.fails.as_ref().is_none_or(|m| m.test == t.name);
    exercise.tests.iter().filter(meant).collect()
}

/// The spec has the tests of the list, no more and no fewer.
fn names_agree(exercise: &Exercise, built: &Built) -> anyhow::Result<Option<String>> {
    let mut command = Command::new(&built.program);
    command.args(["--list", "--ignored", "--format=terse"]);
    let out = built.place.join("out/list");
    command.stdout(fs::File::create(&out)?);
    let ran = process::run_quietly(command, Duration::from_secs(20))?;
    let said = fs::read_to_string(out)?;
    let there: BTreeSet<&str> = said.lines().filter_map(|l| l.strip_suffix(": test")).collect();
    let listed: BTreeSet<&str> = exercise.tests.iter().map(|t| t.name.as_str()).collect();
    let fine = ran == Ended::Exit(0) && there == listed && listed.len() == exercise.tests.len();
    Ok((!fine).then(|| fault(exercise, &format!("exercises.toml lists {listed:?}, the spec has {there:?}"))))
}
