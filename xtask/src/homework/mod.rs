//! `cargo xtask homework`: exercises, from handing out to grading.
//!
//! One spec an exercise. Checking, verifying and grading build it in the [`room`], with other files in the exercise's
//! place, and [`judge`] its tests one process each.

mod catalogue;
mod check;
mod compile;
mod grade;
mod judge;
mod process;
mod room;
mod sandbox;
mod seed;
mod variants;
mod verify;
mod workshop;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How far you are: the first test that fails, and what to try next
    Check(check::Options),
    /// Points for a submission, or for a class
    Grade(grade::Options),
    /// Prove that starters fail, solutions pass, and wrong ones are caught
    Verify(verify::Options),
    /// A step of the sandbox
    #[command(hide = true)]
    Sandbox(sandbox::Words),
}

pub(crate) fn run(command: Command) -> anyhow::Result<u8> {
    // What is made here is read in a sandbox by somebody else.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    match command {
        Command::Check(options) => check::run(&options),
        Command::Grade(options) => grade::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Sandbox(words) => sandbox::step(&words),
    }
}
