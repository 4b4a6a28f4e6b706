//! Where a student's code is built and run: a process of which nothing stays, and that sees and may do no more than it is
//! given.
//!
//! ```text
//! runner ---- xtask homework sandbox PLAN            outer: makes the namespaces
//!                \-- xtask homework sandbox PLAN     inner: process 1 of them; makes the view, sets the limits
//!                       \-- rustc, or one test       killed with all its descendants when its time is up or it ends
//! ```
//!
//! Two steps, as only a child is in a new PID namespace. Each step is a program of its own, so that none of this needs
//! `unsafe` between fork and exec. As root it needs no user namespace: the program is then run as a user of its own. As
//! anybody else it takes one. Where there are no namespaces at all, `inner` does what it can, and [`Guard`] says what
//! that leaves open.

mod guard;
mod inner;
mod landlock;
mod limits;
mod outer;
mod sys;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::process::{self, Ended, Ran};

pub(crate) use guard::{Guard, Task, device};
use limits::Limits;

/// A program, and how it is run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// All variables that it sees.
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) folder: PathBuf,
    /// When it is killed.
    pub(crate) seconds: u64,
    /// How much of the machine it gets; all where nothing is said.
    limits: Option<Limits>,
    /// What it sees of the file system; all where nothing is said.
    pub(crate) view: Option<View>,
    /// In namespaces of its own: processes, mounts, and where there is a view also network and IPC.
    pub(crate) namespaces: bool,
    /// Where there are no namespaces: whether Landlock takes their place for files.
    pub(crate) landlock: bool,
    /// As root: whom the program runs as.
    pub(crate) user: Option<(u32, u32)>,
    /// `cgroup.procs` files to join.
    pub(crate) cgroups: Vec<PathBuf>,
    /// Whether it may make namespaces and mounts itself: exercises about those.
    pub(crate) may_nest: bool,
    /// Whether it may look into the memory of processes, its own among them, by the kernel.
    pub(crate) may_look: bool,
    /// Root with the capabilities for BPF and perf events, and no others.
    pub(crate) privileged: bool,
}

/// Files that a program sees.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
    pub(crate) devices: Vec<PathBuf>,
}

/// Exit codes of the sandbox. Below 128 the program's own; from there the signal that ended it.
const SIGNAL: i32 = 128;
const LATE: i32 = 250;
const BROKEN: i32 = 251;

/// This program, also when a new one has been built in its place meanwhile.
const OURSELVES: &str = "/proc/self/exe";

/// What the runner hands over; nothing that a user types.
#[derive(Debug, Args)]
pub(crate) struct Words {
    plan: String,
    #[arg(long)]
    inner: bool,
}

/// Runs a plan to its end.
pub(crate) fn run(plan: &Plan, secret: Option<&[u8]>) -> anyhow::Result<Ran> {
    let mut command = Command::new(OURSELVES);
    command.args(["homework", "sandbox", &serde_json::to_string(plan)?]);
    // The sandbox ends the program in time; this is for when it cannot.
    let mut ran = process::run(command, secret, Duration::from_secs(plan.seconds + 5))?;
    ran.ended = match ran.ended {
        Ended::Exit(LATE) => Ended::Late(Duration::from_secs(plan.seconds)),
        Ended::Exit(BROKEN) => anyhow::bail!("the sandbox does not work: {}", ran.stderr.trim()),
        Ended::Exit(code) if code > SIGNAL => Ended::Signal(code - SIGNAL),
        other => other,
    };
    Ok(ran)
}

/// `cargo xtask homework sandbox`: one of the two steps.
pub(crate) fn step(words: &Words) -> anyhow::Result<u8> {
    let done = serde_json::from_str(&words.plan)
        .context("no plan")
        .and_then(|plan: Plan| if words.inner { inner::run(&plan) } else { outer::run(&plan, &words.plan) });
    match done {
        Ok(code) => Ok(code as u8),
        Err(e) => {
            crate::report::note(&format!("{e:#}"));
            Ok(BROKEN as u8)
        }
    }
}
