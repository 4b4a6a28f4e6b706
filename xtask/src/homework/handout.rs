//! `cargo xtask homework handout DIR`: the student's copy, without solutions and wrong ones, and without git's memory of
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::catalogue::{self, Exercise};
use super::progress::ORIGINALS;
use crate::{Usage, paths, report};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A folder that is not there yet
    dir: PathBuf,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    let exercises = catalogue::all()?;
    make(&options.dir, &exercises)?;
    report::print(&format!(
        "{}: {} exercises, no solutions; for students: git init, or an archive of it\n\n  \
         cd {0}\n  cargo xtask homework list\n",
        options.dir.display(),
        exercises.len()
    ))?;
    Ok(0)
}

/// Makes the copy; whole, or not at all.
pub(crate) fn make(dir: &Path, exercises: &[Exercise]) -> anyhow::Result<()> {
    if dir.symlink_metadata().is_ok() {
        bail!(Usage(format!("{} is there already, and stays as it is", dir.display())));
    }
    ensure!(!exercises.is_empty(), "no lab has exercises");
    for exercise in exercises {
        for file in exercise.starters() {
            // What is handed out is what is there: somebody's attempt in a starter's place would go out too.
            let text = fs::read_to_string(&file).with_context(|| paths::shown(&file))?;
            let solved = exercise.exercises().join("solutions").join(file.file_name().unwrap_or_default());
            ensure!(
                fs::read_to_string(solved).ok().as_ref() != Some(&text),
                "{} is the solution\n  fix: cargo xtask homework reset {} {}",
                paths::shown(&file),
                exercise.lab,
                exercise.id
            );
        }
    }
    let mut name = dir.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let made = copy(&partial, exercises).and_then(|()| Ok(fs::rename(&partial, dir)?));
    if made.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    made
}

fn copy(to: &Path, exercises: &[Exercise]) -> anyhow::Result<()> {
    let from = paths::root();
    for file in files(&from)? {
        if gives_away(&file) {
            continue;
        }
        let (source, target) = (from.join(&file), to.join(&file));
        if !source.symlink_metadata().is_ok_and(|m| m.is_file()) {
            continue;
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&source, &target).with_context(|| paths::shown(&source))?;
    }
    for exercise in exercises {
        // For `reset` and `status`.
        let folder = to.join("labs").join(&exercise.lab).join("exercises").join(ORIGINALS);
        fs::create_dir_all(&folder)?;
        for file in exercise.starters() {
            fs::copy(&file, folder.join(file.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// `labs/x/exercises/solutions/…`, `…/wrong/…`, and what is beside the project.
fn gives_away(file: &Path) -> bool {
    let names: Vec<_> = file.iter().map(|n| n.to_string_lossy()).collect();
    let answers =
        names.len() > 4 && names[2] == "exercises" && matches!(names[3].as_ref(), "solutions" | "wrong");
    answers || file.extension().is_some_and(|e| e == "bak" || e == "partial")
}

/// The project's files: what git tracks, so that nothing that lies about goes out; all but what is built without git.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["ls-files", "-z", "--cached"]).stderr(Stdio::null());
    if root.join(".git").exists()
        && let Ok(said) = git.output()
        && said.status.success()
    {
        let names = said.stdout.split(|b| *b == 0).filter(|n| !n.is_empty());
        return Ok(names.map(|n| PathBuf::from(std::ffi::OsStr::from_bytes(n))).collect());
    }
    let mut found = Vec::new();
    walk(root, Path::new(""), &mut found)?;
    Ok(found)
}

fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if path == Path::new("target") || path == Path::new(".git") || path == Path::new("docs/book") {
            continue;
        }
        if entry.file_type()?.is_dir() { walk(root, &path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// Whether this checkout is a student's copy.
pub(crate) fn is_one(exercises: &[Exercise]) -> bool {
    !exercises.is_empty() && exercises.iter().all(|e| !e.exercises().join("solutions").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_known_by_their_place() {
        for file in [
            "labs/a/exercises/solutions/ex1.rs",
            "labs/a/exercises/wrong/ex1_x/ex1.c",
            "labs/a/exercises/ex1.rs.1.bak",
        ] {
            assert!(gives_away(Path::new(file)), "{file}");
        }
        for file in ["labs/a/exercises/ex1.rs", "labs/a/src/wrong/mod.rs", "labs/a/tests/ex1.rs"] {
            assert!(!gives_away(Path::new(file)), "{file}");
        }
    }
}
