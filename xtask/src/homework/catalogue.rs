//! What exercises there are: `labs/<lab>/exercises/exercises.toml`, read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::labs::{self, Lab};
use crate::{Usage, paths};

/// An exercise, as `exercises.toml` has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exercise {
    /// `ex1`: the name of its starter and of its spec.
    pub(crate) id: String,
    pub(crate) title: String,
    /// How long it takes a student who has run the lab.
    pub(crate) minutes: u32,
    /// From 1, an evening's warm-up, to 3, a day's work.
    pub(crate) difficulty: u8,
    /// The heading in the lab's README below which it is stated.
    pub(crate) statement: String,
    /// What the student edits, in `exercises/`; its `exN.rs` if nothing is said.
    #[serde(default)]
    pub(crate) files: Vec<String>,
    /// Seconds that one test may take.
    pub(crate) time_limit: u64,
    /// Whether the student's Rust may be unsafe; the spec says the same by an attribute.
    #[serde(default)]
    pub(crate) may_be_unsafe: bool,
    /// Whether its tests take looking into processes: by ptrace, by pidfd_getfd, by what /proc has of them.
    #[serde(default)]
    pub(crate) may_look_into_processes: bool,
    /// `super::sync`: where alone the student's Rust may take names from, if its spec can judge no others.
    #[serde(default)]
    pub(crate) only_from: Option<String>,
    /// Whether tests draw inputs from `kit::spec::seed`.
    #[serde(default)]
    pub(crate) random: bool,
    /// Three, each saying more than the last.
    pub(crate) hints: Vec<String>,
    #[serde(rename = "test")]
    pub(crate) tests: Vec<Test>,
    /// The lab that it belongs to, and that lab's folder.
    #[serde(skip)]
    pub(crate) lab: String,
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

/// A test of the spec.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) points: u32,
    /// Findings of the doctor that it cannot do without.
    #[serde(default)]
    pub(crate) needs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    exercise: Vec<Exercise>,
}

impl Exercise {
    /// All points there are.
    pub(crate) fn points(&self) -> u32 {
        self.tests.iter().map(|t| t.points).sum()
    }

    /// `exercises/` of its lab.
    pub(crate) fn exercises(&self) -> PathBuf {
        self.folder.join("exercises")
    }

    /// What the student edits.
    pub(crate) fn starters(&self) -> Vec<PathBuf> {
        self.files.iter().map(|f| self.exercises().join(f)).collect()
    }
}

/// The file that lists a lab's exercises.
pub(crate) fn file(folder: &Path) -> PathBuf {
    folder.join("exercises/exercises.toml")
}

/// The exercises of one lab, in their order; none where there is no list.
pub(crate) fn of(lab: &Lab) -> anyhow::Result<Vec<Exercise>> {
    in_folder(&lab.name, &lab.folder)
}

/// The same, of a folder that may not be a lab in all respects.
pub(crate) fn in_folder(lab: &str, folder: &Path) -> anyhow::Result<Vec<Exercise>> {
    let path = file(folder);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).with_context(|| paths::shown(&path))?;
    let mut exercises = parse(&text).with_context(|| paths::shown(&path))?;
    for exercise in &mut exercises {
        lab.clone_into(&mut exercise.lab);
        folder.clone_into(&mut exercise.folder);
    }
    Ok(exercises)
}

/// `ex1`
pub(crate) fn is_id(text: &str) -> bool {
    text.strip_prefix("ex").is_some_and(|n| n.parse::<u32>().is_ok())
}

/// The tests that another list has for an exercise; none where there is no such list.
pub(crate) fn tests_in(list: &Path, id: &str) -> anyhow::Result<Option<Vec<Test>>> {
    if !list.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(list)?;
    let exercises = parse(&text).with_context(|| list.display().to_string())?;
    Ok(exercises.into_iter().find(|e| e.id == id).map(|e| e.tests))
}

fn parse(text: &str) -> anyhow::Result<Vec<Exercise>> {
    let mut exercises = toml::from_str::<File>(text)?.exercise;
    for exercise in &mut exercises {
        let id = &exercise.id;
        ensure!(is_id(id), "id = {id:?} is not ex and a number");
        if exercise.files.is_empty() {
            exercise.files.push(format!("{id}.rs"));
        }
        ensure!(exercise.files.contains(&format!("{id}.rs")), "{id}: files does not name {id}.rs");
        let module = exercise.only_from.as_ref().map(|from| from.strip_prefix("super::").unwrap_or(""));
        ensure!(
            module.is_none_or(|m| !m.is_empty() && !m.contains(':')),
            "{id}: only_from is not super::something"
        );
        for file in &exercise.files {
            // They name variants too: see `variants`.
            ensure!(
                file.strip_prefix(id.as_str()).is_some_and(|rest| rest.starts_with('.'))
                    && !file.contains('/'),
                "{id}: the file {file:?} is not called {id}.something"
            );
        }
    }
    Ok(exercises)
}

/// Every exercise, in the order of `cargo xtask list`.
pub(crate) fn all() -> anyhow::Result<Vec<Exercise>> {
    let mut all = Vec::new();
    for lab in labs::all()? {
        all.extend(of(&lab)?);
    }
    Ok(all)
}

/// The exercises that the words of a command line mean: all, those of a lab, or one.
pub(crate) fn chosen(lab: Option<&str>, id: Option<&str>) -> anyhow::Result<Vec<Exercise>> {
    let Some(lab) = lab else { return all() };
    let lab = labs::find(lab)?;
    let mut exercises = of(&lab)?;
    if exercises.is_empty() {
        bail!(Usage(format!(
            "{} has no exercises\n  cargo xtask homework list shows which labs have",
            lab.name
        )));
    }
    if let Some(id) = id {
        let ids: Vec<_> = exercises.iter().map(|e| e.id.clone()).collect();
        let wanted = if id.starts_with("ex") { id.to_owned() } else { format!("ex{id}") };
        exercises.retain(|e| e.id == wanted);
        if exercises.is_empty() {
            bail!(Usage(format!("{} has no exercise {id:?}; it has {}", lab.name, ids.join(", "))));
        }
    }
    Ok(exercises)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "[[exercise]]\nid = \"ex1\"\ntitle = \"t\"\nminutes = 30\ndifficulty = 1\nstatement = \"s\"\n\
        time_limit = 5\nhints = [\"a\", \"b\", \"c\"]\n[[exercise.test]]\nname = \"n\"\npoints = 2\n";

    #[test]
    fn an_exercise_has_its_own_file_if_nothing_is_said() {
        let one = &parse(ONE).unwrap()[0];
        assert_eq!((one.files.as_slice(), one.points()), (["ex1.rs".to_owned()].as_slice(), 2));
    }

    #[test]
    fn files_stay_in_their_folder_and_bear_the_name() {
        for files in
            ["[\"ex1.c\"]", "[\"ex1.rs\", \"../x\"]", "[\"ex1.rs\", \"ex12.c\"]", "[\"ex1.rs\", \"ex1./a\"]"]
        {
            let text = ONE.replace("time_limit", &format!("files = {files}\ntime_limit"));
            assert!(parse(&text).is_err(), "{files}");
        }
        assert!(parse(&ONE.replace("ex1", "one")).is_err());
        for from in ["std", "super::", "super::sync::x"] {
            assert!(parse(&ONE.replace("time_limit", &format!("only_from = {from:?}\ntime_limit"))).is_err());
        }
        assert!(parse(&ONE.replace("minutes", "minuets")).is_err());
    }
}
