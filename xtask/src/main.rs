//! The runner behind `cargo xtask`: one file per subcommand.
//!
//! It links no lab, so that a lab that does not compile breaks neither this nor the other labs.

mod bench;
mod book;
mod bpf;
mod ci;
mod doctor;
mod homework;
mod labs;
mod list;
mod new_lab;
mod paths;
mod report;
mod run;
mod tidy;
mod warm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs, lists, checks and makes Benchtop's labs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The labs by track, and what each can do on this machine
    List(list::Options),
    /// Build one lab, only that one, and run it
    Run(run::Options),
    /// What this machine can do, found out by doing it
    Doctor(doctor::Options),
    /// Measure the labs, and hold them against their peers
    Bench(bench::Options),
    /// Make a lab that builds, runs, passes its tests and is listed
    NewLab(new_lab::Options),
    /// Exercises: check, hand out, grade
    #[command(subcommand)]
    Homework(homework::Command),
    /// BPF programs in C: compile them, or prove that their objects are up to date
    #[command(subcommand)]
    Bpf(bpf::Sub),
    /// Check that labs and code have the shape of CONTRIBUTING.md
    Tidy,
    /// What a change must pass besides `cargo test`
    Ci,
    /// Build all that a meeting needs
    Warm,
    /// Generate and build the book
    Book(book::Options),
}

/// Exit codes beyond 0; the labs use the same.
mod exit {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const UNAVAILABLE: u8 = 4;
}

/// Something that the user got wrong: exit code 2.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help asked for is an answer (0), a usage error is not (2); clap knows which.
            let _ = e.print();
            return ExitCode::from(e.exit_code() as u8);
        }
    };
    let done = run::refuse_cargo_under_sudo().and_then(|()| match cli.command {
        Command::Bench(options) => bench::run(&options),
        Command::List(options) => list::run(&options),
        Command::Run(options) => run::run(options),
        Command::Doctor(options) => doctor::run(&options),
        Command::NewLab(options) => new_lab::run(&options),
        Command::Homework(command) => homework::run(command),
        Command::Bpf(command) => bpf::run(command),
        Command::Tidy => tidy::run(),
        Command::Ci => ci::run(),
        Command::Warm => warm::run(),
        Command::Book(options) => book::run(&options),
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            report::complain(&format!("{e:#}"));
            ExitCode::from(if e.is::<Usage>() { exit::USAGE } else { exit::FAILED })
        }
    }
}
