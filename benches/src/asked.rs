//! How a comparison was asked to run, and how it answers.

use std::io::{self, IsTerminal as _, Write as _};

use serde::{Deserialize, Serialize};

use crate::record::Outcome;

/// By the arguments after `cargo bench … --`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// `--test`: once, to see that it runs.
    pub test: bool,
    /// `--quick`: fewer rounds.
    pub quick: bool,
    /// `--events`: tell `cargo xtask bench` how far it is, a JSON line each, and print no table.
    pub events: bool,
}

/// What is told with `--events`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A comparison begins.
    Begin(String),
    /// So many rounds of so many are done.
    Round(usize, usize),
    /// A comparison is over.
    Outcome(Box<Outcome>),
    /// The lab's comparisons are over.
    Notes(Vec<String>),
}

impl Asked {
    /// From this process's arguments; what cargo and Criterion add besides is passed over.
    pub fn by_arguments() -> Self {
        let has = |name: &str| std::env::args().any(|a| a == name);
        Self { test: has("--test"), quick: has("--quick"), events: has("--events") }
    }

    /// `full` rounds, or as many fewer as asked for.
    pub fn rounds(&self, full: usize) -> usize {
        match self {
            Self { test: true, .. } => 1,
            Self { quick: true, .. } => full.div_ceil(5).max(6),
            _ => full,
        }
    }

    /// Tells where a comparison is: to xtask, or on a terminal.
    pub fn tell(&self, event: &Event) {
        if self.events {
            let line = serde_json::to_string(event).unwrap_or_default();
            // A reader that went away will not miss it.
            let _ = writeln!(io::stdout(), "{line}");
        } else if io::stderr().is_terminal() {
            let mut err = io::stderr();
            let _ = match event {
                Event::Begin(title) => write!(err, "\r\x1b[K{title}"),
                Event::Round(done, of) => write!(err, "\r\x1b[K{done} of {of} rounds"),
                Event::Outcome(_) | Event::Notes(_) => write!(err, "\r\x1b[K"),
            };
            let _ = err.flush();
        }
    }
}

/// Ends a lab's comparisons: prints their tables, or hands them to xtask. `notes` say what the figures mean, and
/// the goals.
pub fn publish(asked: Asked, lab: &str, outcomes: &[Outcome], notes: &[&str]) -> io::Result<()> {
    let notes: Vec<String> = notes.iter().map(|n| (*n).to_owned()).collect();
    if asked.events {
        asked.tell(&Event::Notes(notes));
        return Ok(());
    }
    let lab =
        crate::record::Lab { lab: lab.into(), outcomes: outcomes.to_vec(), notes, ..Default::default() };
    io::stdout().write_all(crate::record::markdown_of(&lab).as_bytes())
}
