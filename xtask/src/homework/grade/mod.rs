//! `cargo xtask homework grade`: points for one submission, or for a class.
//!
//! A submission's exercise files, and nothing else of it, are put into the room and run against the checkout's own specs,
//! in the [`sandbox`](super::sandbox).

mod class;
mod formats;
mod intake;
mod remarks;
mod result;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use self::intake::{Submission, Taken, What};
use self::result::{ExerciseResult, State, TestResult, Told};
use super::catalogue::{self, Exercise};
use super::compile::{self, Compiled};
use super::judge;
use super::room::Call;
use super::seed::Seed;
use super::variants::Variant;
use super::workshop::Workshop;
use crate::{Usage, exit, paths, report};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A folder like a checkout, or exN.rs files (then with --lab)
    #[arg(required = true, value_name = "DIR|FILES")]
    submission: Vec<PathBuf>,
    /// Grade the exercises of this lab; all if none is named
    #[arg(long)]
    lab: Option<String>,
    /// Grade this exercise of the lab only
    #[arg(long, value_name = "EX", requires = "lab")]
    exercise: Option<String>,
    /// The folder has one folder for each student: grade them all
    #[arg(long)]
    class: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Hidden specs, exN.rs or LAB/exN.rs, to put over the checkout's; an exercises.toml beside them has their points
    #[arg(long, value_name = "DIR")]
    tests: Option<PathBuf>,
    /// Where reports go: one for each submission, and grades.csv
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long rustc may take for one exercise
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    compile_limit: u64,
    /// As root: give tests that need it the capabilities for BPF and perf events. Only for code that you have read
    #[arg(long)]
    privileged: bool,
    #[command(flatten)]
    seed: Seed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
    Junit,
    Gradescope,
    Csv,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    let exercises = exercises(options)?;
    let submissions = submissions(options)?;
    if options.format == Format::Gradescope && (options.class || submissions.len() > 1) {
        bail!(Usage(
            "--format gradescope is of one submission, as Gradescope hands them over; --format json is of all".into()
        ));
    }
    options.seed.check(options.class)?;
    let mut shop = Workshop::closed(options.privileged)?;
    shop.compile_limit = options.compile_limit;
    shop.hidden = options.tests.as_ref().map(fs::canonicalize).transpose().context("--tests")?;
    shop.guard.tell();
    let mut calls = BTreeMap::new();
    for lab in exercises.chunk_by(|a, b| a.lab == b.lab) {
        for (id, call) in shop.room.calls(&lab[0].lab, lab)? {
            calls.insert((lab[0].lab.clone(), id), call);
        }
    }
    let grader = Grader { shop, exercises, calls, one_lab: options.lab.is_some() };
    class::grade(&grader, &submissions, options)
}

/// What is graded, with the points of hidden tests where there are some.
fn exercises(options: &Options) -> anyhow::Result<Vec<Exercise>> {
    let mut exercises = catalogue::chosen(options.lab.as_deref(), options.exercise.as_deref())?;
    let Some(hidden) = &options.tests else { return Ok(exercises) };
    for exercise in &mut exercises {
        for folder in [hidden.join(&exercise.lab), hidden.clone()] {
            if let Some(theirs) = catalogue::tests_in(&folder.join("exercises.toml"), &exercise.id)? {
                exercise.tests = theirs;
                break;
            }
        }
    }
    Ok(exercises)
}

fn submissions(options: &Options) -> anyhow::Result<Vec<Submission>> {
    for path in &options.submission {
        path.symlink_metadata().with_context(|| path.display().to_string())?;
    }
    let first = &options.submission[0];
    let name = |path: &PathBuf| {
        let full = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        full.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    if options.class {
        if options.submission.len() > 1 || !first.is_dir() {
            bail!(Usage("--class takes one folder, with a folder for each student".into()));
        }
        if first.join("labs").is_dir() {
            let it = first.display();
            bail!(Usage(format!(
                "{it} is one submission, as it has labs/\n  fix: without --class, or the folder above"
            )));
        }
        let (found, others) = intake::class(first)?;
        for other in others {
            report::note(&format!("not graded: {other:?} is not a folder"));
        }
        if found.is_empty() {
            bail!(Usage(format!("{} has no folder in it: one for each student", first.display())));
        }
        return Ok(found);
    }
    if first.is_dir() {
        let each = options.submission.iter();
        return Ok(each.map(|p| Submission { name: name(p), what: What::Folder(p.clone()) }).collect());
    }
    if options.lab.is_none() {
        bail!(Usage("files alone do not say of which lab they are: add --lab LAB".into()));
    }
    Ok(vec![Submission { name: name(first), what: What::Files(options.submission.clone()) }])
}

/// What all submissions are graded with.
struct Grader {
    shop: Workshop,
    exercises: Vec<Exercise>,
    calls: BTreeMap<(String, String), Call>,
    one_lab: bool,
}

/// A submission's files for one exercise.
struct Work {
    files: BTreeMap<String, Vec<u8>>,
    /// Why it is not to be tested, if so.
    stop: Option<(State, String)>,
    remarks: Vec<String>,
}

impl Grader {
    /// Takes what there is for an exercise.
    fn work(&self, submission: &Submission, exercise: &Exercise) -> Work {
        let mut work = Work { files: BTreeMap::new(), stop: None, remarks: Vec::new() };
        let mut untouched = true;
        for file in &exercise.files {
            let starter = fs::read(exercise.exercises().join(file)).unwrap_or_default();
            match submission.take(exercise, file, self.one_lab) {
                Taken::Text(text) => {
                    work.remarks.extend(remarks::of(&format!("{}/{file}", exercise.lab), &text, &starter));
                    untouched &= text == starter;
                    work.files.insert(file.clone(), text);
                }
                Taken::Missing => {
                    work.stop = Some((State::Missing, format!("{file} is not in the submission")))
                }
                Taken::Refused(why) => {
                    work.stop = Some((State::Refused, why));
                    break;
                }
            }
        }
        if work.stop.is_none() && untouched {
            work.stop = Some((State::NotStarted, "it is the starter".into()));
        }
        work
    }

    /// Grades one exercise of one submission. `number` tells submissions apart.
    fn grade(
        &self,
        slot: usize,
        number: usize,
        exercise: &Exercise,
        work: &Work,
        seed: u64,
    ) -> ExerciseResult {
        let nothing = ExerciseResult {
            lab: exercise.lab.clone(),
            id: exercise.id.clone(),
            title: exercise.title.clone(),
            points: 0,
            of: exercise.points(),
            not_gradable_here: 0,
            state: State::Tested,
            why: String::new(),
            random: exercise.random,
            tests: Vec::new(),
        };
        let not_run = |state: State, why: String| {
            let tests = exercise.tests.iter().map(|t| TestResult {
                name: t.name.clone(),
                points: 0,
                of: t.points,
                outcome: Told::NotRun,
            });
            ExerciseResult { state, why, ..nothing.clone() }.with_tests(tests.collect())
        };
        if let Some((state, why)) = &work.stop {
            return not_run(*state, why.clone());
        }
        let graded = self.build_and_test(slot, number, exercise, work, seed);
        match graded {
            Ok(Ok(tests)) => nothing.with_tests(tests),
            Ok(Err((state, why))) => not_run(state, judge::shortened(&why)),
            Err(e) => not_run(State::GraderFailed, format!("{e:#}")),
        }
    }

    fn build_and_test(
        &self,
        slot: usize,
        number: usize,
        exercise: &Exercise,
        work: &Work,
        seed: u64,
    ) -> anyhow::Result<Result<Vec<TestResult>, (State, String)>> {
        let name = format!("submission-{number}");
        let place = self.shop.room.place(exercise, &name);
        let taken = Files::write(place.with_extension("files"), &work.files)?;
        let files = work.files.keys().map(|f| (f.clone(), taken.folder.join(f))).collect();
        let variant = Variant { name, files, fails: None };
        let _place = Files { folder: place };
        let call = &self.calls[&(exercise.lab.clone(), exercise.id.clone())];
        let built = match compile::compile(&self.shop, slot, call, exercise, &variant)? {
            Compiled::Built(built) => built,
            Compiled::Forbidden(why) => return Ok(Err((State::Refused, why))),
            Compiled::Refused(said) => return Ok(Err((State::DoesNotCompile, said))),
            Compiled::Late(why) => {
                let more = "; --compile-limit gives it more time";
                return Ok(Err((State::CompileLate, why + more)));
            }
        };
        let mut tests = Vec::new();
        for test in &exercise.tests {
            let outcome = judge::run(&self.shop, slot, call, exercise, test, &built, seed)?;
            let points = if outcome == judge::Outcome::Passed { test.points } else { 0 };
            tests.push(TestResult {
                name: test.name.clone(),
                points,
                of: test.points,
                outcome: outcome.into(),
            });
        }
        Ok(Ok(tests))
    }
}

/// A folder that goes when this is dropped.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn write(folder: PathBuf, files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder).with_context(|| paths::shown(&folder))?;
        let written = Self { folder };
        for (name, text) in files {
            fs::write(written.folder.join(name), text)?;
        }
        Ok(written)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
