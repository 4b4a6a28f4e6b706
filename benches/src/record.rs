//! Results as they are kept: `benches/record/DATE-MACHINE.json` of all labs, `DATE-MACHINE-LAB.json` of one, each with
//! the same as Markdown beside it. None is ever replaced: the second of a day is called `…-2`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kit::Summary;
use kit::machine::Machine;
use kit::stats::{Ratio, figure};
use serde::{Deserialize, Serialize};

use crate::judge::Finding;
use crate::noise::Noise;

/// The document's version. A reader refuses what it does not know.
pub const SCHEMA: u32 = 2;

/// What was found in one session, with where and when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The day, as ISO 8601 writes it.
    pub date: String,
    /// The machine; its load is of the beginning.
    pub machine: Machine,
    /// What else of the machine and the tools can matter: compiler, mitigations, clock.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Whether it was made with few rounds.
    #[serde(default)]
    pub quick: bool,
    /// How long it took.
    #[serde(default)]
    pub seconds: f64,
    /// By lab.
    pub labs: Vec<Lab>,
}

/// One lab's results.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Lab {
    /// Its name.
    pub lab: String,
    /// Comparisons with peers.
    pub outcomes: Vec<Outcome>,
    /// What the figures mean, goals, and which were missed.
    pub notes: Vec<String>,
    /// Its own parts, as Criterion measured them.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// How long that took.
    #[serde(default)]
    pub parts_seconds: f64,
}

/// What a comparison found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What was compared.
    pub title: String,
    /// Unit of the figures; less is better.
    pub unit: String,
    /// What is not fair about it, to whom.
    pub unfair: String,
    /// Whose cost is 1 in [`Row::to_base`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Why other processes do not touch the costs, if they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<String>,
    /// Whether it stands in the README's table.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headline: bool,
    /// A row a contender, ours first.
    pub rows: Vec<Row>,
    /// What else the machine was doing; not known of old records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// How long it took.
    #[serde(default)]
    pub seconds: f64,
}

/// One contender's figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Who.
    pub name: String,
    /// Its costs.
    pub summary: Summary,
    /// Our cost divided by its cost, paired by round; none for ourselves and for who could not be measured.
    pub ours_to_this: Option<Ratio>,
    /// What may be said of that ratio.
    #[serde(default)]
    pub finding: Option<Finding>,
    /// Its cost divided by the base's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_base: Option<Ratio>,
    /// What was counted beside the cost: the median a round.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, f64>,
    /// Why it could not be measured.
    pub missing: Option<String>,
    /// Its costs, round by round; not kept by old records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<f64>,
}

/// One function that Criterion measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Group, function and parameter.
    pub name: String,
    /// Median time, ns.
    pub ns: f64,
    /// Its 95 % interval, ns.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Bytes or elements that one call works on, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<(f64, String)>,
}

/// Why a record cannot be used.
#[derive(Debug)]
pub struct Unreadable(String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

impl Record {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is something else, or of another version.
    pub fn load(path: &Path) -> Result<Self, Unreadable> {
        let name = path.display();
        let text = fs::read_to_string(path).map_err(|e| Unreadable(format!("cannot read {name}: {e}")))?;
        let not_one = |why: &dyn std::fmt::Display| Unreadable(format!("{name} is not a record: {why}"));
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| not_one(&e))?;
        if let Some(schema) = value["schema"].as_u64().filter(|s| *s != u64::from(SCHEMA)) {
            return Err(Unreadable(format!("{name} has schema {schema}; this reads {SCHEMA}")));
        }
        plausible(&value).map_err(|why| not_one(&why))?;
        serde_json::from_value(value).map_err(|e| not_one(&e))
    }

    /// Writes it, and the same as Markdown beside it, into `folder`, under a name that none has; where.
    pub fn add(&self, folder: &Path) -> io::Result<PathBuf> {
        let names = std::iter::once(String::new()).chain((2..).map(|n| format!("-{n}")));
        let mut paths = names.map(|n| folder.join(format!("{}{n}.json", self.stem())));
        let free = paths.find(|path| !path.exists()).unwrap_or_default();
        self.write(&free)
    }

    /// The same, in place of what was called so.
    pub fn save(&self, folder: &Path) -> io::Result<PathBuf> {
        self.write(&folder.join(format!("{}.json", self.stem())))
    }

    fn write(&self, json: &Path) -> io::Result<PathBuf> {
        json.parent().map_or(Ok(()), fs::create_dir_all)?;
        kit::run::write_whole(json, &(serde_json::to_string_pretty(self)? + "\n"))?;
        kit::run::write_whole(&json.with_extension("md"), &self.markdown())?;
        Ok(json.to_owned())
    }

    /// `DATE-MACHINE` of all labs, `DATE-MACHINE-LAB` of one.
    fn stem(&self) -> String {
        let mut stem = format!("{}-{}-{}cpu", self.date, self.machine.arch, self.machine.cpus);
        if let [one] = self.labs.as_slice() {
            stem += &format!("-{}", one.lab);
        }
        if self.quick { stem + "-quick" } else { stem }
    }

    /// Where it was made, in one line.
    pub fn machine_line(&self) -> String {
        let m = &self.machine;
        format!("{} · {} · load {:.1} · revision {}", m.line(), m.cpu, m.load, m.revision)
    }

    /// The whole, for people.
    pub fn markdown(&self) -> String {
        let names: Vec<&str> = self.labs.iter().map(|l| l.lab.as_str()).collect();
        let quick = if self.quick { " (quick: few rounds)" } else { "" };
        let mut out = format!("# {}: {}{quick}\n\n{}\n\n", names.join(", "), self.date, self.machine_line());
        for (name, value) in &self.settings {
            let _ = writeln!(out, "- {name}: {value}");
        }
        if !self.settings.is_empty() {
            out.push('\n');
        }
        for lab in &self.labs {
            if self.labs.len() > 1 {
                let _ = writeln!(out, "## {}\n", lab.lab);
            }
            out += &markdown_of(lab);
        }
        out
    }

    /// A lab's results.
    pub fn lab(&self, name: &str) -> Option<&Lab> {
        self.labs.iter().find(|l| l.lab == name)
    }
}

/// Whether all texts and numbers can be shown: a record may come from anybody.
fn plausible(value: &serde_json::Value) -> Result<(), String> {
    match value {
        serde_json::Value::String(s) if s.chars().any(char::is_control) => {
            Err(format!("it has a control character in {s:?}"))
        }
        serde_json::Value::Number(n) if n.as_f64().is_none_or(|n| n.abs() > 1e18) => {
            Err(format!("no figure is {n}"))
        }
        serde_json::Value::Array(all) => all.iter().try_for_each(plausible),
        serde_json::Value::Object(all) => all.values().try_for_each(plausible),
        _ => Ok(()),
    }
}

/// A lab's tables and notes.
pub fn markdown_of(lab: &Lab) -> String {
    let mut out: String = lab.outcomes.iter().map(Outcome::markdown).collect();
    for note in &lab.notes {
        let _ = writeln!(out, "- {note}");
    }
    if !lab.parts.is_empty() {
        out += "\n### parts, by Criterion\n\n| part | median | 95 % | throughput |\n| --- | ---: | ---: | ---: |\n";
        for p in &lab.parts {
            let [ns, low, high] = [p.ns, p.low, p.high].map(time);
            let _ = writeln!(out, "| {} | {ns} | {low}..{high} | {} |", p.name, p.rate());
        }
    }
    out.push('\n');
    out
}

impl Part {
    /// Bytes or elements a second.
    pub fn rate(&self) -> String {
        let Some((amount, unit)) = &self.throughput else { return "-".into() };
        format!("{} {unit}/s", figure(amount * 1e9 / self.ns))
    }
}

/// Nanoseconds as people read them.
pub fn time(ns: f64) -> String {
    match ns {
        _ if ns < 1e3 => format!("{} ns", figure(ns)),
        _ if ns < 1e6 => format!("{} us", figure(ns / 1e3)),
        _ if ns < 1e9 => format!("{} ms", figure(ns / 1e6)),
        _ => format!("{} s", figure(ns / 1e9)),
    }
}

/// Five digits: more than any measurement has, and a record that is not twice as long.
pub fn rounded(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}

/// A ratio with its interval: two decimals, three where it is close to 1, more where it is small.
pub fn ratio_words(r: &Ratio) -> String {
    let digits = if r.ratio < 0.095 || (r.ratio - 1.0).abs() < 0.05 { 3 } else { 2 };
    format!("{:.digits$} ({:.digits$}..{:.digits$})", r.ratio, r.low, r.high)
}

impl Row {
    /// What was counted beside its cost, in words.
    pub fn counted(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(n, c)| format!("{} {n}", figure(*c))).collect();
        counts.join(", ")
    }

    /// What is said of it, in the last column.
    pub fn verdict(&self) -> String {
        match (&self.missing, &self.finding, &self.ours_to_this) {
            (Some(why), _, _) => format!("not measured: {why}"),
            (None, Some(finding), _) => finding.words(),
            (None, None, Some(ratio)) => {
                Finding { verdict: Some(ratio.verdict()), why: String::new() }.words()
            }
            (None, None, None) => "-".into(),
        }
    }
}

impl Outcome {
    /// How many rounds there were.
    pub fn rounds(&self) -> usize {
        self.rows.iter().map(|r| r.summary.n).max().unwrap_or(0)
    }

    /// The table, in Markdown.
    pub fn markdown(&self) -> String {
        let (base, rule) = match &self.base {
            Some(base) => (format!(" x {base} |"), " ---: |"),
            None => (String::new(), ""),
        };
        let mut out = format!(
            "### {}\n\n| who | median {} | 10th..90th |{base} ours / this (95 %) | verdict |\n\
             | --- | ---: | ---: |{rule} ---: | --- |\n",
            self.title, self.unit
        );
        for row in &self.rows {
            let s = &row.summary;
            let ratio = row.ours_to_this.as_ref().map_or_else(|| "-".into(), ratio_words);
            let to_base = match (&self.base, &row.to_base) {
                (None, _) => String::new(),
                (Some(base), None) if *base == row.name => " 1 |".into(),
                (Some(_), None) => " - |".into(),
                (Some(_), Some(r)) => format!(" {} |", ratio_words(r)),
            };
            let _ = writeln!(
                out,
                "| {} | {} | {}..{} |{to_base} {ratio} | {} |",
                row.name,
                figure(s.median),
                figure(s.p10),
                figure(s.p90),
                row.verdict()
            );
        }
        let _ = write!(out, "\n{} interleaved rounds", self.rounds());
        if let Some(noise) = &self.noise {
            let _ = write!(out, "; {}", noise.words());
        }
        if let Some(apart) = &self.apart {
            let _ = write!(out, "; other processes do not count: {apart}");
        }
        let _ = writeln!(out, ". Not fair: {}", self.unfair);
        for row in self.rows.iter().filter(|r| !r.counts.is_empty()) {
            let _ = writeln!(out, "- {}: {}", row.name, row.counted());
        }
        out.push('\n');
        out
    }
}
