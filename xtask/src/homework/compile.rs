//! Builds a spec with given files in the exercise's place: one call of rustc, in a folder of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::catalogue::Exercise;
use super::process::{self, Ended};
use super::room::{Call, Room};
use super::variants::Variant;
use crate::paths;

/// How long rustc may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A spec with something in the exercise's place.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// Like the lab's folder: `tests/`, `exercises/`, and links to the rest.
    pub(crate) place: PathBuf,
    pub(crate) program: PathBuf,
    /// How paths in `place` are shown: as if they were the lab's own.
    pub(crate) shown_as: String,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Compiled {
    Built(Built),
    /// What rustc said.
    Refused(String),
}

impl Built {
    /// Text of rustc or of a test, with paths as the student knows them.
    pub(crate) fn readable(&self, text: &str) -> String {
        let here = self.place.display().to_string();
        text.replace(&here, &self.shown_as).replace("/tests/../exercises/", "/exercises/")
    }
}

/// Lays out a variant and builds it.
pub(crate) fn compile(
    room: &Room,
    call: &Call,
    exercise: &Exercise,
    variant: &Variant,
) -> anyhow::Result<Compiled> {
    let place = room.place(exercise, &variant.name);
    lay_out(room, exercise, variant, &place).with_context(|| paths::shown(&place))?;
    let built = Built {
        program: place.join("out").join(&exercise.id),
        shown_as: format!("labs/{}", exercise.lab),
        place,
    };
    let mut rustc = Command::new(room.rustc());
    rustc.args(arguments(call, &exercise.id, &built));
    rustc.current_dir(room.root()).envs(&call.variables).env("CARGO_MANIFEST_DIR", &built.place);
    let ran = process::run(rustc, None, PATIENCE)?;
    let said = built.readable(&ran.stderr);
    Ok(match ran.ended {
        Ended::Exit(0) => Compiled::Built(built),
        Ended::Exit(_) => Compiled::Refused(said),
        other => Compiled::Refused(format!("{said}rustc {other}\n")),
    })
}

/// A folder like the lab's, in which the spec finds the variant's files beside it. Made anew each time.
fn lay_out(room: &Room, exercise: &Exercise, variant: &Variant, place: &Path) -> anyhow::Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    let lab = room.root().join("labs").join(&exercise.lab);
    for folder in ["tests", "exercises", "out"] {
        fs::create_dir_all(place.join(folder))?;
    }
    link_all(&lab, place, &["tests", "exercises"])?;
    let spec = format!("{}.rs", exercise.id);
    link_all(&lab.join("tests"), &place.join("tests"), &[&spec])?;
    fs::copy(lab.join("tests").join(&spec), place.join("tests").join(&spec))?;
    for (name, from) in &variant.files {
        fs::copy(from, place.join("exercises").join(name)).with_context(|| paths::shown(from))?;
    }
    Ok(())
}

fn link_all(from: &Path, to: &Path, but: &[&str]) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if but.iter().all(|b| entry.file_name() != *b) {
            symlink(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Cargo's own arguments, but for where things are and how rustc says what is wrong.
fn arguments(call: &Call, id: &str, built: &Built) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut words = call.arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--out-dir" => drop(words.next()),
            "-C" => {
                let option = words.next().cloned().unwrap_or_default();
                if !["incremental=", "metadata=", "extra-filename="].iter().any(|o| option.starts_with(o)) {
                    arguments.extend(["-C".to_owned(), option]);
                }
            }
            w if w.ends_with(&format!("tests/{id}.rs")) => {
                arguments.push(built.place.join("tests").join(format!("{id}.rs")).display().to_string());
            }
            w if w.starts_with("--error-format")
                || w.starts_with("--json")
                || w.starts_with("--diagnostic-width") => {}
            w if w.starts_with("--emit") => arguments.push("--emit=link".to_owned()),
            w => arguments.push(w.to_owned()),
        }
    }
    // These are for our own code: what a student leaves undocumented is not an error.
    arguments.extend(["-Amissing_docs", "-Wunused_must_use", "--color=never"].map(str::to_owned));
    arguments.extend(["--out-dir".to_owned(), built.place.join("out").display().to_string()]);
    let remap = format!("--remap-path-prefix={}={}", built.place.display(), built.shown_as);
    arguments.push(remap);
    arguments
}
