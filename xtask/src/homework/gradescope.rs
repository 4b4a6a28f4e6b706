//! `cargo xtask homework gradescope-zip LAB`: an archive for Gradescope's autograder.
//!
//! Their side: the archive is unpacked to `/autograder/source`, `setup.sh` runs once, with network, when the image is
//! made; for each submission `run_autograder` runs and writes `/autograder/results/results.json`. See
//! <https://gradescope-autograders.readthedocs.io/en/latest/specs/>.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::seed::Seed;
use super::{catalogue, handout, seed};
use crate::{paths, report};

#[derive(Debug, Args)]
pub(crate) struct Options {
    lab: String,
    /// This exercise only; all of the lab if none is named
    #[arg(long, value_name = "EX")]
    exercise: Option<String>,
    /// Hidden specs, as for grade
    #[arg(long, value_name = "DIR")]
    tests: Option<PathBuf>,
    /// Draw each student's own random inputs, the same for all that they hand in; else all draw the same. 16 bytes or
    /// more, which go into the archive
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// The archive; LAB-autograder.zip if nothing is said
    #[arg(long, value_name = "FILE.zip")]
    out: Option<PathBuf>,
}

/// Once, when the image is made.
const SETUP: &str = r#"#!/bin/sh
# Installs what the autograder builds with, and builds all that does not depend on a submission.
set -eu
cd "$(dirname "$0")"
export CARGO_HOME="${CARGO_HOME:-/autograder/cargo}" RUSTUP_HOME="${RUSTUP_HOME:-/autograder/rustup}"
PATH=$CARGO_HOME/bin:$PATH
need=""
command -v cc >/dev/null || need="$need build-essential"
command -v curl >/dev/null || need="$need curl ca-certificates"
if [ -n "$need" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $need
fi
if ! command -v cargo >/dev/null; then
    # Not by a pipe, which would hide that there is no network.
    curl --proto '=https' --tlsv1.2 -sSf -o /tmp/rustup-init.sh https://sh.rustup.rs
    sh /tmp/rustup-init.sh -y --no-modify-path --profile minimal --default-toolchain stable
fi
cd benchtop
# Every exercise is the starter: nothing is run, all is built.
cargo xtask homework grade --lab @LAB@ @EXERCISE@ labs/@LAB@
"#;

/// For each submission.
const RUN: &str = r#"#!/bin/sh
# Grades /autograder/submission; whatever happens, there is a results.json.
set -u
at=$(dirname "$0")
[ -d "$at/source" ] && at=$at/source
export CARGO_HOME="${CARGO_HOME:-/autograder/cargo}" RUSTUP_HOME="${RUSTUP_HOME:-/autograder/rustup}"
PATH=$CARGO_HOME/bin:$PATH
export CARGO_NET_OFFLINE=true
results=/autograder/results/results.json
mkdir -p /autograder/results
cd "$at/benchtop" || exit 1
if cargo xtask homework grade --lab @LAB@ @EXERCISE@ @TESTS@ @SEED@ --format gradescope /autograder/submission >"$results.partial"; then
    mv "$results.partial" "$results"
else
    printf '%s\n' '{"score": 0, "output": "The autograder failed, by no fault of the submission. Ask the instructor to look at its log and to run it again."}' >"$results"
    rm -f "$results.partial"
fi
"#;

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    // Also a check of the words.
    let exercises = catalogue::chosen(Some(&options.lab), options.exercise.as_deref())?;
    let out = options.out.clone().unwrap_or_else(|| format!("{}-autograder.zip", options.lab).into());
    let made = super::room::base().join(format!("gradescope-{}", std::process::id()));
    let archive = write(options, &made, &out);
    let _ = fs::remove_dir_all(&made);
    archive?;
    let points: u32 = exercises.iter().map(catalogue::Exercise::points).sum();
    report::print(&format!(
        "{}: {} exercises, {points} points\n\nOn Gradescope: Programming Assignment, {points} points; Configure Autograder:\n\
         upload it there. Students submit {}.\n",
        out.display(),
        exercises.len(),
        exercises.iter().flat_map(|e| e.files.clone()).collect::<Vec<_>>().join(", ")
    ))?;
    Ok(0)
}

fn write(options: &Options, made: &Path, out: &Path) -> anyhow::Result<()> {
    // The student's copy: a submission that breaks out of everything still finds no solution.
    handout::make(made, &catalogue::all()?)?;
    if let Some(hidden) = &options.tests {
        super::room::copy(hidden, &made.join("hidden-tests"))?;
    }
    let secret = options.secret.as_ref().map(|file| seed::read_secret(file)).transpose()?;
    let file = File::create(out).with_context(|| out.display().to_string())?;
    let mut archive = rawzip::ZipArchiveWriter::new(BufWriter::new(file));
    for (name, template) in [("setup.sh", SETUP), ("run_autograder", RUN)] {
        add(&mut archive, name, filled(template, options)?.as_bytes(), 0o100_755)?;
    }
    if let Some(secret) = secret {
        // Beside the handout, and not in it: what a submission sees is in there.
        add(&mut archive, "secret", &secret, 0o100_600)?;
    }
    let mut files = Vec::new();
    find(made, Path::new(""), &mut files)?;
    files.sort();
    for file in files {
        let path = made.join(&file);
        let mode = fs::metadata(&path)?.permissions().mode();
        add(&mut archive, &format!("benchtop/{}", file.display()), &fs::read(&path)?, mode)?;
    }
    archive.finish()?.flush()?;
    Ok(())
}

/// A script about this lab. The names in it are folders' and ids: letters, digits and dashes.
fn filled(template: &str, options: &Options) -> anyhow::Result<String> {
    let exercise = options.exercise.as_ref().map_or_else(String::new, |e| format!("--exercise {e}"));
    let tests = if options.tests.is_some() { "--tests hidden-tests" } else { "" };
    let seed = match &options.secret {
        Some(_) => "--secret ../secret --metadata /autograder/submission_metadata.json".to_owned(),
        None => Seed::replay(seed::drawn()?),
    };
    Ok(template
        .replace("@LAB@", &options.lab)
        .replace("@EXERCISE@", &exercise)
        .replace("@TESTS@", tests)
        .replace("@SEED@", &seed))
}

/// One file, stored: it is little, and deflate would be one more thing to build for a first `cargo xtask`.
fn add<W: std::io::Write>(
    archive: &mut rawzip::ZipArchiveWriter<W>,
    name: &str,
    text: &[u8],
    mode: u32,
) -> anyhow::Result<()> {
    let (mut entry, config) = archive.new_file(name).unix_permissions(mode).start()?;
    let mut writer = config.wrap(&mut entry);
    writer.write_all(text)?;
    let (_, descriptor) = writer.finish()?;
    entry.finish(descriptor)?;
    Ok(())
}

fn find(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join(below)).with_context(|| paths::shown(&root.join(below)))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() { find(root, &path, found)? } else { found.push(path) }
    }
    Ok(())
}
