//! The one event stream: what a lab tells, as data.
//!
//! A lab's narration makes [`Event`]s. The terminal prints them as they come; [`Run`] collects them,
//! and is what `--json` prints, `--save` writes, `--replay` reads and the HTML report draws.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::Summary;

mod shapes;

pub use shapes::{
    Axis, Bar, Bars, ByteNote, Hexdump, Lane, Lanes, Lines, Listing, ListingLine, Scale, Series, Span, Table,
};

/// A place in the source: the code that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct Place {
    /// Path from the workspace's root, as the compiler saw it.
    pub file: Cow<'static, str>,
    /// Line, from 1.
    pub line: u32,
}

impl Place {
    /// The place that called the caller.
    #[track_caller]
    pub fn caller() -> Self {
        let at = std::panic::Location::caller();
        Self { file: Cow::Borrowed(at.file()), line: at.line() }
    }

    /// As a reader of the lab sees it: the path inside the lab's folder.
    pub fn short(&self) -> String {
        let inside = self.file.strip_prefix("labs/").and_then(|f| f.split_once('/')).map(|(_, f)| f);
        format!("{}:{}", inside.unwrap_or(&self.file), self.line)
    }
}

impl From<Place> for String {
    fn from(p: Place) -> Self {
        format!("{}:{}", p.file, p.line)
    }
}

impl From<String> for Place {
    fn from(s: String) -> Self {
        match s.rsplit_once(':') {
            Some((file, line)) => Self { file: Cow::Owned(file.to_owned()), line: line.parse().unwrap_or(0) },
            None => Self { file: Cow::Owned(s), line: 0 },
        }
    }
}

/// This very place, as a constant: a module of a lab says with it where its heart is.
///
/// ```
/// /// Where a machine is made.
/// pub const HERE: kit::Place = kit::here!();
/// ```
#[macro_export]
macro_rules! here {
    () => {
        $crate::Place { file: ::std::borrow::Cow::Borrowed(file!()), line: line!() }
    };
}

/// One thing that happened in the telling.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run begins.
    Begin(Box<Header>),
    /// A step begins.
    Step(Step),
    /// A question that a reader answers before the step's facts are shown.
    Predict(Predict),
    /// Something shown in the current step.
    Item(Item),
    /// A number for programs.
    Metric(String, Metric),
    /// Something that must hold, and whether it did.
    Check(Check),
    /// The run ends.
    End(Ending),
}

/// What is known when a run begins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The lab's name.
    pub lab: String,
    /// The question that it answers.
    pub question: String,
    /// Seconds since 1970 when the run was made.
    pub at: u64,
    /// Where it ran.
    pub machine: Machine,
    /// Whether this is a recording being shown again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recorded: bool,
    /// The options that shaped it.
    pub params: BTreeMap<String, serde_json::Value>,
}

/// What is known when a run ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// The lesson, in one sentence.
    #[serde(default)]
    pub so: String,
    /// What to run next.
    #[serde(default)]
    pub next: String,
    /// The error that ended the run early, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long the run took, seconds.
    pub seconds: f64,
    /// Whether all checks held and no error ended it.
    pub ok: bool,
}

/// A step: one idea.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// From 1.
    pub n: usize,
    /// What is done, as an imperative sentence.
    pub title: String,
    /// The code that does it.
    pub at: Place,
    /// The question asked before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predict: Option<Predict>,
    /// What was shown.
    #[serde(default)]
    pub items: Vec<Item>,
}

/// A question with choices, asked before its answer is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predict {
    /// The question.
    pub question: String,
    /// The choices, shown as a), b), …
    pub options: Vec<String>,
    /// Index of the right one.
    pub answer: usize,
    /// Why it is right, in one or two sentences.
    pub why: String,
}

impl Predict {
    /// A prediction; `answer` counts from 0.
    pub fn new<S: Into<String>>(
        question: &str,
        options: impl IntoIterator<Item = S>,
        answer: usize,
        why: &str,
    ) -> Self {
        let options = options.into_iter().map(Into::into).collect();
        Self { question: question.into(), options, answer, why: why.into() }
    }
}

/// A number for programs: stable name, value, unit, and the spread where it was measured often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The value; the median where there is a spread.
    pub value: f64,
    /// Its unit: `us`, `ns`, `1` for counts.
    pub unit: String,
    /// How often measured, and how it spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Summary>,
}

/// Something that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name, lower_snake_case.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// What was seen, in words.
    pub detail: String,
    /// Where it is judged.
    pub at: Place,
}

/// Something shown in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Item {
    /// A sentence or two. `**…**` marks the figure that matters.
    Say {
        /// The text.
        text: String,
    },
    /// A measured figure.
    Measure {
        /// The metric's name.
        name: String,
        /// Unit of the figures.
        unit: String,
        /// The figures.
        summary: Summary,
    },
    /// Rows and columns.
    Table(Table),
    /// Bars, or a waterfall where bars have a start.
    Bars(Bars),
    /// An x/y chart.
    Lines(Lines),
    /// Timelines side by side.
    Lanes(Lanes),
    /// Bytes with notes.
    Hexdump(Hexdump),
    /// Lines shown as they are: code, a disassembly, a program's output.
    Listing(Listing),
    /// A drawing of the lab's own, for the terminal and for the page.
    Figure {
        /// What it shows.
        title: String,
        /// The drawing in characters, at most 76 columns.
        text: String,
        /// The drawing as an `<svg>` element; empty: the page shows the text.
        svg: String,
    },
    /// A part of the lesson that this machine could not show.
    Missing {
        /// What is missing.
        what: String,
        /// The evidence.
        why: String,
        /// What would help; empty if nothing does.
        fix: String,
    },
}
