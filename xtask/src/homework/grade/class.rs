//! Many submissions: side by side, none stopping the others, each with its report; and again only what has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use super::intake::Submission;
use super::result::Graded;
use super::{Format, Grader, Options, Work, exit, formats, report, verify};
use crate::homework::seed;

/// Grades all, and prints or writes what came of it.
pub(super) fn grade(grader: &Grader, submissions: &[Submission], options: &Options) -> anyhow::Result<u8> {
    let out = match (&options.out, options.class) {
        (Some(out), _) => Some(out.clone()),
        (None, true) => Some(crate::homework::room::base().join("grades")),
        (None, false) => None,
    };
    if let Some(out) = &out {
        fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    }
    let common = if options.class || submissions.len() > 1 {
        class_seed(options, out.as_deref())?
    } else {
        options.seed.one()?
    };
    let mut papers = Vec::new();
    for (number, submission) in submissions.iter().enumerate() {
        papers.push(Paper::open(grader, number, submission, options, common, out.as_deref())?);
    }
    let kept = papers.iter().filter(|p| p.done.is_some()).count();
    if kept > 0 {
        report::note(&format!("{kept} of {} are graded already, and have not changed", papers.len()));
    }
    let jobs: Vec<_> = papers
        .iter()
        .filter(|p| p.done.is_none())
        .flat_map(|paper| (0..grader.exercises.len()).map(move |e| (paper, e)))
        .collect();
    verify::side_by_side(&jobs, |slot, (paper, e)| {
        let result = grader.grade(slot, paper.number, &grader.exercises[*e], &paper.works[*e], paper.seed);
        let mut results = paper.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.push((*e, result));
        drop(results);
        if paper.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let graded = paper.collect(grader);
            if let Err(e) = paper.keep(&graded) {
                report::complain(&format!("{}: {e:#}", graded.submission));
            }
            if submissions.len() > 1 {
                report::note(&format!("{:30} {}", formats::plain(&graded.submission), graded.score()));
            }
        }
    });
    let all: Vec<Graded> =
        papers.iter().map(|p| p.done.clone().unwrap_or_else(|| p.collect(grader))).collect();
    if let Some(out) = &out {
        fs::write(out.join("grades.csv"), formats::csv(&all))?;
    }
    report::print(&match options.format {
        Format::Text if options.class || all.len() > 1 => formats::table(&all),
        Format::Text => all.iter().map(formats::text).collect(),
        Format::Json if all.len() == 1 => serde_json::to_string_pretty(&all[0])? + "\n",
        Format::Json => serde_json::to_string_pretty(&all)? + "\n",
        Format::Junit => formats::junit(&all),
        Format::Gradescope => formats::gradescope(&all[0])?,
        Format::Csv => formats::csv(&all),
    })?;
    if let Some(out) = &out {
        report::note(&format!("grades.csv, and a report for each: {}", out.display()));
    }
    if all.iter().all(Graded::is_complete) {
        return Ok(0);
    }
    report::complain("some exercises could not be graded, by no fault of the submission: run it again");
    Ok(exit::FAILED)
}

/// One seed for a class without a secret: kept beside the grades, so that grading on gives everybody the same.
fn class_seed(options: &Options, out: Option<&Path>) -> anyhow::Result<u64> {
    if options.seed.is_given() {
        return options.seed.one();
    }
    let Some(out) = out else { return seed::drawn() };
    let file = out.join("seed");
    if let Some(kept) = fs::read_to_string(&file).ok().and_then(|s| s.trim().parse().ok()) {
        return Ok(kept);
    }
    let seed = seed::drawn()?;
    fs::write(&file, format!("{seed}\n"))?;
    Ok(seed)
}

/// One submission on the desk.
struct Paper<'a> {
    number: usize,
    submission: &'a Submission,
    seed: u64,
    digest: String,
    works: Vec<Work>,
    /// Exercises that are not graded yet.
    left: AtomicUsize,
    results: Mutex<Vec<(usize, super::ExerciseResult)>>,
    /// What was kept of an earlier run.
    done: Option<Graded>,
    /// Where its report goes, without an ending.
    report: Option<PathBuf>,
}

impl<'a> Paper<'a> {
    fn open(
        grader: &Grader,
        number: usize,
        submission: &'a Submission,
        options: &Options,
        common: u64,
        out: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let works: Vec<Work> = grader.exercises.iter().map(|e| grader.work(submission, e)).collect();
        let seed = if options.class { options.seed.of_class(&submission.name, common)? } else { common };
        let digest = digest(grader, &works, seed)?;
        let report = out.map(|o| o.join(formats::file_name(&submission.name)));
        let kept = report.as_ref().and_then(|r| fs::read(ending(r, "json")).ok());
        let done = kept
            .and_then(|text| serde_json::from_slice::<Graded>(&text).ok())
            .filter(|g| g.digest == digest && g.submission == submission.name && g.is_complete());
        let left = AtomicUsize::new(works.len());
        Ok(Self { number, submission, seed, digest, works, left, results: Mutex::default(), done, report })
    }

    fn collect(&self, grader: &Grader) -> Graded {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner).clone();
        results.sort_by_key(|(e, _)| *e);
        let exercises: Vec<_> = results.into_iter().map(|(_, r)| r).collect();
        Graded {
            schema: 1,
            submission: self.submission.name.clone(),
            seed: self.seed,
            digest: self.digest.clone(),
            points: exercises.iter().map(|e| e.points).sum(),
            of: exercises.iter().map(|e| e.of).sum(),
            not_gradable_here: exercises.iter().map(|e| e.not_gradable_here).sum(),
            sandbox: grader.shop.guard.words(),
            remarks: self.works.iter().flat_map(|w| w.remarks.clone()).collect(),
            exercises,
        }
    }

    /// Writes the report: the JSON last, as it says that the rest is there.
    fn keep(&self, graded: &Graded) -> anyhow::Result<()> {
        let Some(report) = &self.report else { return Ok(()) };
        fs::write(ending(report, "txt"), formats::text(graded))?;
        let partial = ending(report, "json.partial");
        fs::write(&partial, serde_json::to_string_pretty(graded)?)?;
        fs::rename(partial, ending(report, "json"))?;
        Ok(())
    }
}

/// A name may have a dot in it, which is not where its ending begins.
fn ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

/// Of all that decides on the points: the specs, the points, the submission, the seed.
fn digest(grader: &Grader, works: &[Work], seed: u64) -> anyhow::Result<String> {
    let mut hash = hmac_sha256::Hash::new();
    let mut add = |part: &[u8]| {
        // With lengths, so that nothing can move from one part to the next.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(&seed.to_be_bytes());
    for (exercise, work) in grader.exercises.iter().zip(works) {
        let hidden = grader.shop.overlay(exercise);
        let folder = hidden.unwrap_or_else(|| exercise.folder.join("tests"));
        add(&fs::read(folder.join(format!("{}.rs", exercise.id)))?);
        add(format!("{} {} {:?} {}", exercise.lab, exercise.id, exercise.tests, exercise.time_limit)
            .as_bytes());
        // What is not gradable here may be elsewhere.
        for test in &exercise.tests {
            add(grader.shop.missing(test).unwrap_or_default().as_bytes());
        }
        for (name, text) in &work.files {
            add(name.as_bytes());
            add(text);
        }
        add(work.stop.as_ref().map_or("", |(_, why)| why.as_str()).as_bytes());
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
