//! What can be shown in a step: tables, charts, timelines, bytes, code. Each is data; the renderers draw it.

use serde::{Deserialize, Serialize};

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
