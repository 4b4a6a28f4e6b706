//! The one event stream: what a lab tells, as data.
//!
//! A lab's narration makes [`Event`]s. The terminal prints them as they come; [`Run`] collects them,
//! and is what `--json` prints, `--save` writes, `--replay` reads and the HTML report draws.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::Summary;

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

/// Rows and columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Column heads; all empty: no head is shown.
    pub head: Vec<String>,
    /// The cells.
    pub rows: Vec<Vec<String>>,
    /// Columns set to the right, for figures.
    #[serde(default)]
    pub right: Vec<usize>,
    /// Rows that matter most.
    #[serde(default)]
    pub marked: Vec<usize>,
}

impl Table {
    /// A table with these column heads (empty strings: no head).
    pub fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self { head: head.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets columns (from 0) to the right.
    #[must_use]
    pub fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.right = columns.into_iter().collect();
        self
    }

    /// With one more row.
    #[must_use]
    pub fn row<S: Into<String>>(mut self, cells: impl IntoIterator<Item = S>) -> Self {
        self.push(cells);
        self
    }

    /// With one more row, the one that matters.
    #[must_use]
    pub fn mark<S: Into<String>>(mut self, cells: impl IntoIterator<Item = S>) -> Self {
        self.push(cells);
        self.marked.push(self.rows.len() - 1);
        self
    }

    /// Adds a row.
    pub fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

/// A bar chart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bars {
    /// What it shows.
    pub title: String,
    /// Unit of the values.
    pub unit: String,
    /// The bars.
    pub bars: Vec<Bar>,
    /// Whether each bar's share of the sum is written beside it.
    #[serde(default)]
    pub share: bool,
}

/// One bar.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its length.
    pub value: f64,
    /// Where it begins: with starts, the chart is a waterfall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<f64>,
    /// Words beside it.
    #[serde(default)]
    pub note: String,
}

impl Bars {
    /// A chart without bars yet.
    pub fn new(title: &str, unit: &str) -> Self {
        Self { title: title.into(), unit: unit.into(), ..Self::default() }
    }

    /// Writes each bar's share of the sum beside it.
    #[must_use]
    pub fn with_share(mut self) -> Self {
        self.share = true;
        self
    }

    /// With one more bar.
    #[must_use]
    pub fn bar(mut self, label: impl Into<String>, value: f64, note: impl Into<String>) -> Self {
        self.bars.push(Bar { label: label.into(), value, start: None, note: note.into() });
        self
    }

    /// With one more bar of a waterfall, from `start`.
    #[must_use]
    pub fn from(mut self, start: f64, label: impl Into<String>, value: f64) -> Self {
        self.bars.push(Bar { label: label.into(), value, start: Some(start), note: String::new() });
        self
    }
}

/// How an axis is divided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// By powers of ten.
    Log,
    /// Fractions, evenly in the number of nines: 0.9, 0.99, 0.999 … (the tail of a CDF).
    Nines,
}

/// One axis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// What it counts, with the unit.
    pub label: String,
    /// How it is divided.
    #[serde(default)]
    pub scale: Scale,
}

/// An x/y chart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lines {
    /// What it shows.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The curves.
    pub series: Vec<Series>,
}

/// One curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points, in order of x.
    pub points: Vec<(f64, f64)>,
}

impl Lines {
    /// A chart without curves yet, both axes linear.
    pub fn new(title: &str, x: &str, y: &str) -> Self {
        let axis = |label: &str| Axis { label: label.into(), scale: Scale::Linear };
        Self { title: title.into(), x: axis(x), y: axis(y), series: Vec::new() }
    }

    /// With these scales.
    #[must_use]
    pub fn scales(mut self, x: Scale, y: Scale) -> Self {
        self.x.scale = x;
        self.y.scale = y;
        self
    }

    /// With one more curve.
    #[must_use]
    pub fn series(mut self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        self.series.push(Series { name: name.into(), points });
        self
    }
}

/// Timelines side by side, one a lane.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lanes {
    /// What it shows.
    pub title: String,
    /// Unit of time.
    pub unit: String,
    /// The lanes, top to bottom.
    pub lanes: Vec<Lane>,
}

/// One timeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// Who.
    pub name: String,
    /// What it did, when.
    pub spans: Vec<Span>,
}

/// A stretch of time in a lane; a moment where `from == to`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Begin.
    pub from: f64,
    /// End.
    pub to: f64,
    /// What happened, in a few words.
    pub label: String,
    /// Spans of one kind look alike: `holds`, `spins`, `asleep`.
    #[serde(default)]
    pub kind: String,
}

impl Lanes {
    /// A drawing without lanes yet.
    pub fn new(title: &str, unit: &str) -> Self {
        Self { title: title.into(), unit: unit.into(), lanes: Vec::new() }
    }

    /// With one more lane.
    #[must_use]
    pub fn lane(mut self, name: impl Into<String>, spans: Vec<Span>) -> Self {
        self.lanes.push(Lane { name: name.into(), spans });
        self
    }
}

impl Span {
    /// A stretch.
    pub fn new(from: f64, to: f64, kind: &str, label: impl Into<String>) -> Self {
        Self { from, to, label: label.into(), kind: kind.into() }
    }

    /// A moment.
    pub fn moment(at: f64, kind: &str, label: impl Into<String>) -> Self {
        Self::new(at, at, kind, label)
    }
}

/// Bytes with notes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hexdump {
    /// What the bytes are.
    pub title: String,
    /// Address of the first byte.
    pub base: u64,
    /// The bytes.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// What ranges mean, in order.
    pub notes: Vec<ByteNote>,
}

/// What a range of bytes means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteNote {
    /// Offset of the first byte from the dump's begin.
    pub from: usize,
    /// How many.
    pub len: usize,
    /// What they mean.
    pub text: String,
}

impl Hexdump {
    /// A dump without notes yet.
    pub fn new(title: &str, base: u64, bytes: &[u8]) -> Self {
        Self { title: title.into(), base, bytes: bytes.to_vec(), notes: Vec::new() }
    }

    /// With a note on `len` bytes from offset `from`.
    #[must_use]
    pub fn note(mut self, from: usize, len: usize, text: impl Into<String>) -> Self {
        self.notes.push(ByteNote { from, len, text: text.into() });
        self
    }
}

/// Lines shown as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// What they are.
    pub title: String,
    /// The lines.
    pub lines: Vec<ListingLine>,
}

/// One line, with a note at its right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingLine {
    /// The line.
    pub text: String,
    /// A note, shown after `<-`; empty for none.
    #[serde(default)]
    pub note: String,
}

impl Listing {
    /// A listing without lines yet.
    pub fn new(title: &str) -> Self {
        Self { title: title.into(), lines: Vec::new() }
    }

    /// The lines of `text`, without notes.
    pub fn text(title: &str, text: &str) -> Self {
        text.lines().fold(Self::new(title), |l, line| l.line(line, ""))
    }

    /// With one more line.
    #[must_use]
    pub fn line(mut self, text: impl Into<String>, note: impl Into<String>) -> Self {
        self.lines.push(ListingLine { text: text.into(), note: note.into() });
        self
    }
}

/// Bytes as a hex string in JSON.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        if !text.is_ascii() || text.len() % 2 != 0 {
            return Err(D::Error::custom("bytes are not an even number of hex digits"));
        }
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).map_err(D::Error::custom))
            .collect()
    }
}
