//! `cargo xtask homework`: exercises, from handing out to grading.
//!
//! One spec an exercise. Checking, verifying and grading build it in the [`room`], with other files in the exercise's
//! place, and [`judge`] its tests one process each.

mod catalogue;
mod check;
mod compile;
mod grade;
mod gradescope;
mod handout;
mod judge;
mod list;
mod process;
mod progress;
mod reset;
mod room;
mod sandbox;
mod seed;
mod variants;
mod verify;
mod watch;
mod words;
mod work;
mod workshop;

use std::path::Path;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The exercises: level, minutes, points
    List(list::Options),
    /// How far you are: the first test that fails, and what to try next
    Check(check::Options),
    /// Check again each time that you save
    Watch(watch::Options),
    /// A hint, of three that say more and more
    Hint(list::HintOptions),
    /// The starter again; what was there is kept
    Reset(reset::Options),
    /// Progress over all labs, by the last check of each
    Status(list::Options),
    /// Points for a submission, or for a class
    Grade(grade::Options),
    /// The student's copy: no solutions, no wrong ones
    Handout(handout::Options),
    /// An archive for Gradescope's autograder
    GradescopeZip(gradescope::Options),
    /// Prove that starters fail, solutions pass, and wrong ones are caught
    Verify(verify::Options),
    /// A step of the sandbox
    #[command(hide = true)]
    Sandbox(sandbox::Words),
}

/// As a step of `ci`.
pub(crate) fn verify_all() -> anyhow::Result<()> {
    verify::check()
}

/// What is wrong with a lab's exercises, as far as it can be seen without building them.
pub(crate) fn faults(folder: &Path) -> anyhow::Result<Vec<String>> {
    let lab = folder.file_name().unwrap_or_default().to_string_lossy();
    let exercises = catalogue::in_folder(&lab, folder)?;
    if handout::is_one(&exercises) {
        // A student's copy: what is done has nothing left to do.
        return Ok(Vec::new());
    }
    let mut faults: Vec<String> = exercises.iter().flat_map(verify::on_paper).collect();
    // A spec that no list names is never run.
    for entry in std::fs::read_dir(folder.join("tests")).into_iter().flatten() {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let id = file.strip_suffix(".rs").filter(|id| catalogue::is_id(id));
        if let Some(id) = id.filter(|id| exercises.iter().all(|e| e.id != *id)) {
            faults.push(format!("{lab} {id}: has a spec, and is not in the list"));
        }
    }
    Ok(faults)
}

pub(crate) fn run(command: Command) -> anyhow::Result<u8> {
    // What is made here is read in a sandbox by somebody else.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    match command {
        Command::List(options) => list::list(&options),
        Command::Watch(options) => watch::run(&options),
        Command::Hint(options) => list::hint(&options),
        Command::Reset(options) => reset::run(&options),
        Command::Status(options) => list::status(&options),
        Command::Check(options) => check::run(&options),
        Command::Grade(options) => grade::run(&options),
        Command::Handout(options) => handout::run(&options),
        Command::GradescopeZip(options) => gradescope::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Sandbox(words) => sandbox::step(&words),
    }
}
