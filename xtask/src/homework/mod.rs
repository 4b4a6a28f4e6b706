//! `cargo xtask homework`: exercises, from handing out to grading.
//!
//! One spec an exercise. Checking, verifying and grading build it in the [`room`], with other files in the exercise's
//! place, and [`judge`] its tests one process each.

mod catalogue;
mod check;
mod compile;
mod judge;
mod process;
mod room;
mod seed;
mod variants;
mod verify;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How far you are: the first test that fails, and what to try next
    Check(check::Options),
    /// Prove that starters fail, solutions pass, and wrong ones are caught
    Verify(verify::Options),
}

pub(crate) fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Check(options) => check::run(&options),
        Command::Verify(options) => verify::run(&options),
    }
}
