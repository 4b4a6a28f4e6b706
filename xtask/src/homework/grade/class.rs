//! Many submissions: side by side, none stopping the others, each with its report; and again only what has changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use super::intake::Submission;
use super::result::Graded;
use super::{Format, Grader, Options, Work, exit, formats, report};
use crate::homework::{seed, work};
use crate::paths;

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
    let judges = judges(grader, &paths::root())?;
    let mut papers = Vec::new();
    for (number, submission) in submissions.iter().enumerate() {
        papers.push(Paper::open(grader, number, submission, options, common, &judges, out.as_deref())?);
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
    let unwritten = AtomicUsize::new(0);
    work::side_by_side(&jobs, |slot, (paper, e)| {
        let result = grader.grade(slot, paper.number, &grader.exercises[*e], &paper.works[*e], paper.seed);
        let mut results = paper.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.push((*e, result));
        drop(results);
        if paper.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let graded = paper.collect(grader);
            if let Err(e) = paper.keep(&graded) {
                report::complain(&format!("{}: {e:#}", formats::plain(&graded.submission)));
                unwritten.fetch_add(1, Ordering::AcqRel);
            }
            if submissions.len() > 1 {
                let name = formats::plain(&graded.submission).replace('\n', "\u{fffd}");
                report::note(&format!("{name:30} {}", graded.score()));
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
    let unwritten = unwritten.into_inner();
    if unwritten > 0 {
        report::complain(&format!("{unwritten} reports could not be written (see above): run it again"));
        return Ok(exit::FAILED);
    }
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
        judges: &[u8],
        out: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let works: Vec<Work> = grader.exercises.iter().map(|e| grader.work(submission, e)).collect();
        let seed = if options.class { options.seed.of_class(&submission.name, common)? } else { common };
        let digest = digest(grader, &works, seed, judges);
        let report = out.map(|o| o.join(formats::file_name(&submission.name)));
        let kept = report.as_ref().and_then(|r| fs::read(ending(r, "json")).ok());
        let done = kept
            .and_then(|text| serde_json::from_slice::<Graded>(&text).ok())
            .filter(|g| g.digest == digest && g.submission == submission.name && g.is_final());
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

/// With its length, so that nothing can move from one part to the next.
fn add(hash: &mut hmac_sha256::Hash, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// Of all that judges a submission: the specs and what they are built with. A mended one leaves no old grade.
fn judges(grader: &Grader, root: &Path) -> anyhow::Result<[u8; 32]> {
    let mut hash = hmac_sha256::Hash::new();
    let mut trees: BTreeSet<PathBuf> = ["kit", "Cargo.toml", "Cargo.lock"].map(|f| root.join(f)).into();
    for exercise in &grader.exercises {
        trees.insert(exercise.folder.clone());
        trees.extend(grader.shop.overlay(exercise));
    }
    for tree in trees {
        add_tree(&mut hash, &tree, &tree)?;
    }
    Ok(hash.finalize())
}

/// A file, or all files below a folder, with their names: but for what is read by people only, and for exercises, which
/// a submission brings.
fn add_tree(hash: &mut hmac_sha256::Hash, root: &Path, at: &Path) -> anyhow::Result<()> {
    let name = at.strip_prefix(root).unwrap_or(at);
    if name == Path::new("exercises") || name.extension().is_some_and(|e| e == "md") {
        let list = at.join("exercises.toml");
        return if list.is_file() { add_tree(hash, at, &list) } else { Ok(()) };
    }
    if !at.is_dir() {
        add(hash, name.as_os_str().as_encoded_bytes());
        add(hash, &fs::read(at).with_context(|| at.display().to_string())?);
        return Ok(());
    }
    let mut below: Vec<PathBuf> = fs::read_dir(at)?.map(|e| Ok(e?.path())).collect::<anyhow::Result<_>>()?;
    below.sort();
    below.iter().try_for_each(|b| add_tree(hash, root, b))
}

/// Of all that decides on the points: what judges, the points, the submission, the seed.
fn digest(grader: &Grader, works: &[Work], seed: u64, judges: &[u8]) -> String {
    let mut hash = hmac_sha256::Hash::new();
    let mut add = |part: &[u8]| add(&mut hash, part);
    add(&seed.to_be_bytes());
    add(judges);
    add(&grader.shop.compile_limit.to_be_bytes());
    for (exercise, work) in grader.exercises.iter().zip(works) {
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
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mended_helper_of_a_spec_is_another_judge() {
        let lab = std::env::temp_dir().join(format!("benchtop-judges-{}", std::process::id()));
        let of = |changed: &[(&str, &str)]| {
            for (file, text) in changed {
                let path = lab.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let mut hash = hmac_sha256::Hash::new();
            add_tree(&mut hash, &lab, &lab).unwrap();
            hash.finalize()
        };
        let judging =
            ["tests/ex1.rs", "tests/common/mod.rs", "src/lib.rs", "exercises/exercises.toml", "bpf/x.bpf.c"];
        let mut last = of(&[("README.md", "1"), ("exercises/ex1.rs", "1"), ("tests/ex1.rs", "1")]);
        assert_eq!(of(&[("README.md", "2"), ("exercises/ex1.rs", "2")]), last, "these do not judge");
        for file in judging {
            let now = of(&[(file, "mended")]);
            assert_ne!(now, last, "{file}");
            last = now;
        }
        let _ = fs::remove_dir_all(&lab);
    }
}
