//! `cargo xtask tidy`: holds every lab, and the code, to the one shape that makes them easy to know.

mod code;
mod lab;
mod manifest;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::{bpf, exit, labs, paths, report};

/// Something that is not as it should be.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    file: String,
    /// From 1; 0 where the whole file is meant.
    line: usize,
    what: String,
    fix: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = if self.line == 0 { String::new() } else { format!(":{}", self.line) };
        write!(f, "{}{line}: {}\n  fix: {}", self.file, self.what, self.fix)
    }
}

/// What has been found so far.
#[derive(Debug, Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, file: &Path, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Violation { file: paths::shown(file), line, what: what.into(), fix: fix.into() });
    }
}

pub(crate) fn run() -> anyhow::Result<u8> {
    let found = look()?;
    let mut text: String = found.iter().map(|v| format!("{v}\n")).collect();
    text += &match found.len() {
        0 => "tidy: all is in shape\n".to_owned(),
        1 => "tidy: 1 violation\n".to_owned(),
        n => format!("tidy: {n} violations\n"),
    };
    report::print(&text)?;
    Ok(if found.is_empty() { 0 } else { exit::FAILED })
}

/// The same, as a step of `ci`.
pub(crate) fn check() -> anyhow::Result<()> {
    let found = look()?;
    for violation in &found {
        report::note(&violation.to_string());
    }
    if !found.is_empty() {
        bail!("tidy: {} violations (see above)", found.len());
    }
    Ok(())
}

fn look() -> anyhow::Result<Vec<Violation>> {
    let mut found = Found::default();
    for folder in labs::folders()? {
        manifest::check(&folder, &mut found)?;
        lab::check(&folder, &mut found);
        for source in bpf::stale(&folder)? {
            found.add(&source, 0, "its object was made from something else", bpf::REBUILD);
        }
    }
    lab::check_orphans(&mut found)?;
    for top in ["kit", "xtask/src", "labs", "benches", "tests"] {
        for file in rust_files(&paths::root().join(top)) {
            code::check(&file, &fs::read_to_string(&file)?, &mut found);
        }
    }
    found.0.sort();
    Ok(found.0)
}

/// The .rs files below a folder, those of starters for students left out.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir()
            && name != "target"
            && name != "exercises"
            && !name.to_string_lossy().starts_with('.')
        {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// The line of `text` in which `needle` first stands, from 1; 0 if it does not.
fn line_of(text: &str, needle: &str) -> usize {
    text.lines().position(|l| l.contains(needle)).map_or(0, |at| at + 1)
}
