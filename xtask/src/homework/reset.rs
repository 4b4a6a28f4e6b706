//! `cargo xtask homework reset LAB EX`: the starter again; what was there is kept beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::catalogue;
use super::progress::Originals;
use crate::{Usage, paths, report};

#[derive(Debug, Args)]
pub(crate) struct Options {
    lab: String,
    /// The exercise, as ex1 or 1
    exercise: String,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    let exercise = &catalogue::chosen(Some(&options.lab), Some(&options.exercise))?[0];
    let Some(originals) = Originals::of(exercise) else {
        bail!(Usage(format!(
            "the starter of {} {} is neither in a handout's copy nor in git: nothing to go back to",
            exercise.lab, exercise.id
        )));
    };
    let mut said = String::new();
    for (name, text) in originals.files() {
        let file = exercise.exercises().join(name);
        match fs::read(&file) {
            Ok(now) if now == *text => {
                said += &format!("{} is the starter already\n", paths::shown(&file));
                continue;
            }
            Ok(_) => {
                let backup = free(&file);
                fs::rename(&file, &backup).with_context(|| paths::shown(&file))?;
                said += &format!("kept what was there: {}\n", paths::shown(&backup));
            }
            Err(_) => (),
        }
        fs::write(&file, text).with_context(|| paths::shown(&file))?;
        said += &format!("{} is the starter again\n", paths::shown(&file));
    }
    report::print(&said)?;
    Ok(0)
}

/// A name for the backup that nothing has yet: `ex1.rs.1.bak`.
fn free(file: &Path) -> PathBuf {
    let numbered = |n: u32| {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{n}.bak"));
        PathBuf::from(name)
    };
    (1..).map(numbered).find(|p| p.symlink_metadata().is_err()).unwrap_or_else(|| numbered(0))
}
