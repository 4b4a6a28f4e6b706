//! `cargo xtask homework watch LAB [EX]`: checks again each time that a file is saved.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::catalogue::{self, Exercise};
use super::{check, seed::Seed};
use crate::report;

#[derive(Debug, Args)]
pub(crate) struct Options {
    lab: String,
    /// The exercise, as ex1 or 1; the one that was saved if none is named
    exercise: Option<String>,
    /// Look at the files twice a second instead of asking the kernel: for network file systems
    #[arg(long)]
    poll: bool,
    #[command(flatten)]
    seed: Seed,
}

/// How long an editor may take to write several files.
const SETTLE: Duration = Duration::from_millis(100);
/// How often files are looked at where the kernel does not tell. Also beside inotify: there are file systems on which it
/// is silent.
const POLL: Duration = Duration::from_millis(500);

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    let exercises = catalogue::chosen(Some(&options.lab), options.exercise.as_deref())?;
    let waker = if options.poll { None } else { notified(&exercises) };
    if waker.is_none() && !options.poll {
        report::note("no inotify here: looking at the files twice a second");
    }
    let mut seen = stamps(&exercises);
    let mut due: Vec<&Exercise> =
        if options.exercise.is_some() { exercises.iter().collect() } else { Vec::new() };
    loop {
        for exercise in due.drain(..) {
            // What does not compile today is no reason to stop.
            if let Err(e) = check::one(exercise, options.seed.one()?) {
                report::complain(&format!("{e:#}"));
            }
        }
        report::note(&format!("waiting for {} to be saved; Ctrl-C ends", names(&exercises)));
        seen = loop {
            wait(waker.as_ref());
            let now = stamps(&exercises);
            if now != seen {
                std::thread::sleep(SETTLE);
                let settled = stamps(&exercises);
                due = exercises
                    .iter()
                    .filter(|e| e.starters().iter().any(|f| seen.get(f) != settled.get(f)))
                    .collect();
                break settled;
            }
        };
    }
}

fn names(exercises: &[Exercise]) -> String {
    let ids: Vec<_> = exercises.iter().map(|e| e.id.as_str()).collect();
    format!("{} {}", exercises[0].lab, ids.join(", "))
}

/// Tells when something in the folder of the exercises changes. The folder, not the files: editors put a new file in the
/// old one's place.
fn notified(exercises: &[Exercise]) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let events = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
    inotify.add_watch(&exercises[0].exercises(), events).ok()?;
    Some(inotify)
}

/// Until something may have changed.
fn wait(waker: Option<&Inotify>) {
    let Some(waker) = waker else { return std::thread::sleep(POLL) };
    let mut fds = [PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::try_from(POLL).unwrap_or(PollTimeout::NONE));
    // What it says is not needed: the files say it better.
    let _ = waker.read_events();
}

/// When each file was changed last, and how long it is.
fn stamps(exercises: &[Exercise]) -> BTreeMap<PathBuf, Option<(SystemTime, u64)>> {
    let stamp = |f: &PathBuf| fs::metadata(f).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
    exercises.iter().flat_map(Exercise::starters).map(|f| (f.clone(), stamp(&f))).collect()
}
