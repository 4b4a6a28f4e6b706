//! What a student has passed so far: kept by `check`, read by `status`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::catalogue::Exercise;
use crate::paths;

/// By `lab ex1`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress(BTreeMap<String, Mark>);

/// What the last check of an exercise said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) points: u32,
    pub(crate) not_here: u32,
    /// Of the files that were checked: what has changed since has to be checked again.
    digest: String,
}

impl Progress {
    pub(crate) fn load() -> Self {
        fs::read(file()).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// What is known of an exercise as it is now.
    pub(crate) fn of(&self, exercise: &Exercise) -> Option<&Mark> {
        self.0.get(&key(exercise)).filter(|m| m.digest == digest(exercise))
    }

    /// Remembers a check.
    pub(crate) fn note(exercise: &Exercise, points: u32, not_here: u32) -> anyhow::Result<()> {
        let mut progress = Self::load();
        progress.0.insert(key(exercise), Mark { points, not_here, digest: digest(exercise) });
        let file = file();
        let partial = file.with_extension("partial");
        fs::create_dir_all(super::room::base())?;
        fs::write(&partial, serde_json::to_string_pretty(&progress)?)
            .with_context(|| paths::shown(&partial))?;
        fs::rename(&partial, &file)?;
        Ok(())
    }
}

fn file() -> PathBuf {
    super::room::base().join("progress.json")
}

fn key(exercise: &Exercise) -> String {
    format!("{} {}", exercise.lab, exercise.id)
}

/// Of the exercise's files as they are.
pub(crate) fn digest(exercise: &Exercise) -> String {
    let mut hash = hmac_sha256::Hash::new();
    for file in exercise.starters() {
        let text = fs::read(file).unwrap_or_default();
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether the student has begun: a starter says where there is work, in words of its own.
pub(crate) fn is_started(exercise: &Exercise) -> bool {
    Originals::of(exercise).is_none_or(|o| !o.same(exercise))
}

/// The files as they were handed out: git's, or the copy that `handout` makes.
pub(crate) struct Originals(BTreeMap<String, Vec<u8>>);

/// Where a handout keeps the starters, in a lab's `exercises/`.
pub(crate) const ORIGINALS: &str = ".starters";

impl Originals {
    pub(crate) fn of(exercise: &Exercise) -> Option<Self> {
        let mut files = BTreeMap::new();
        for name in &exercise.files {
            let kept = exercise.exercises().join(ORIGINALS).join(name);
            let text = fs::read(kept).ok().or_else(|| committed(exercise, name))?;
            files.insert(name.clone(), text);
        }
        Some(Self(files))
    }

    pub(crate) fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.0
    }

    fn same(&self, exercise: &Exercise) -> bool {
        self.0.iter().all(|(name, text)| fs::read(exercise.exercises().join(name)).is_ok_and(|t| t == *text))
    }
}

/// A file as git has it: of its versions the one with most left to do, as students commit their work too. The newest of
/// those, as starters are mended; of a file that never says what is to do, the first.
fn committed(exercise: &Exercise, name: &str) -> Option<Vec<u8>> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        let said = git.arg("-C").arg(&exercise.folder).args(arguments).stderr(Stdio::null()).output().ok()?;
        said.status.success().then_some(said.stdout)
    };
    let path = format!("exercises/{name}");
    let commits = String::from_utf8(git(&["log", "--format=%H", "--max-count=100", "--", &path])?).ok()?;
    let versions = commits.lines().filter_map(|c| git(&["show", &format!("{c}:./{path}")]));
    let to_do = |text: &[u8]| String::from_utf8_lossy(text).matches(concat!("TO", "DO(you)")).count();
    let mut best: Option<(usize, Vec<u8>)> = None;
    for version in versions {
        let count = to_do(&version);
        if best.as_ref().is_none_or(|(most, _)| count > *most || (count == 0 && *most == 0)) {
            best = Some((count, version));
        }
    }
    best.map(|(_, text)| text)
}
