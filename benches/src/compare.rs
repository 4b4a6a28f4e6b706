//! Several ways to do one job, measured in turn, and what may be said of the difference.
//!
//! Rounds are interleaved and their order is shuffled, so that what the machine does to one contender it does to
//! all. What is reported is the median, and the paired ratio to the first contender with its 95 % interval.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kit::Summary;
use kit::machine::Machine;
use kit::stats::{Ratio, SplitMix, Verdict, figure};
use serde::Serialize;

/// Measures one round; returns its cost (less is better), or why it could not be measured.
type Measure<'a> = Box<dyn FnMut() -> Result<f64, String> + 'a>;

/// Several ways to do one job. The first contender is ours: the others are held against it.
pub struct Comparison<'a> {
    title: String,
    unit: &'static str,
    unfair: String,
    contenders: Vec<(String, Measure<'a>)>,
}

/// What a comparison found.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was compared.
    pub title: String,
    /// Unit of the figures; less is better.
    pub unit: &'static str,
    /// What is not fair about it, to whom.
    pub unfair: String,
    /// A row a contender, ours first.
    pub rows: Vec<Row>,
}

/// One contender's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Who.
    pub name: String,
    /// Its costs.
    pub summary: Summary,
    /// Our cost divided by its cost, paired by round; none for ourselves and for who could not be measured.
    pub ours_to_this: Option<Ratio>,
    /// Why it could not be measured.
    pub missing: Option<String>,
}

impl<'a> Comparison<'a> {
    /// A comparison of costs in `unit`; `unfair` says what is not fair about it.
    pub fn new(title: impl Into<String>, unit: &'static str, unfair: impl Into<String>) -> Self {
        Self { title: title.into(), unit, unfair: unfair.into(), contenders: Vec::new() }
    }

    /// With one more contender; ours comes first.
    #[must_use]
    pub fn contender(
        mut self,
        name: impl Into<String>,
        measure: impl FnMut() -> Result<f64, String> + 'a,
    ) -> Self {
        self.contenders.push((name.into(), Box::new(measure)));
        self
    }

    /// Measures `rounds` rounds after one of warm-up. A contender that fails is out, with its reason.
    pub fn run(mut self, rounds: usize) -> Outcome {
        let count = self.contenders.len();
        let mut costs = vec![Vec::with_capacity(rounds); count];
        let mut missing: Vec<Option<String>> = vec![None; count];
        let mut random = SplitMix(0xbe7c);
        for round in 0..=rounds {
            let mut order: Vec<usize> = (0..count).collect();
            for i in (1..count).rev() {
                order.swap(i, random.below(i + 1));
            }
            for i in order {
                if missing[i].is_some() {
                    continue;
                }
                match (self.contenders[i].1)() {
                    Ok(_) if round == 0 => {}
                    Ok(cost) => costs[i].push(cost),
                    Err(why) => missing[i] = Some(why),
                }
            }
        }
        let rows = self.contenders.iter().enumerate().map(|(i, (name, _))| Row {
            name: name.clone(),
            summary: Summary::of(&costs[i]),
            ours_to_this: if i == 0 || missing[i].is_some() {
                None
            } else {
                Ratio::paired(&costs[0], &costs[i])
            },
            missing: missing[i].clone(),
        });
        Outcome { title: self.title, unit: self.unit, unfair: self.unfair, rows: rows.collect() }
    }
}

impl Outcome {
    /// The table, in Markdown.
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "### {}\n\n| who | median {unit} | 10th..90th | ours / this (95 %) | verdict |\n| --- | ---: | ---: | ---: | --- |\n",
            self.title,
            unit = self.unit
        );
        for row in &self.rows {
            let s = &row.summary;
            let (ratio, verdict) = match (&row.ours_to_this, &row.missing) {
                (_, Some(why)) => ("-".into(), format!("not measured: {why}")),
                (Some(r), None) => (
                    format!("{:.2} ({:.2}..{:.2})", r.ratio, r.low, r.high),
                    match r.verdict() {
                        Verdict::Less => "ours costs less".into(),
                        Verdict::More => "ours costs more".into(),
                        Verdict::NoDifference => "no difference shown".into(),
                    },
                ),
                (None, None) => ("1".into(), "ours".into()),
            };
            let _ = writeln!(
                out,
                "| {} | {} | {}..{} | {ratio} | {verdict} |",
                row.name,
                figure(s.median),
                figure(s.p10),
                figure(s.p90)
            );
        }
        let n = self.rows.iter().map(|r| r.summary.n).max().unwrap_or(0);
        let _ = writeln!(out, "\n{n} interleaved rounds. Not fair: {}\n", self.unfair);
        out
    }
}

/// How a comparison was asked to run, by the arguments after `cargo bench … --`.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// `--test`: once, to see that it runs.
    pub test: bool,
    /// `--quick`: fewer rounds.
    pub quick: bool,
    /// `--record`: write a dated record into `benches/record/`.
    pub record: bool,
}

impl Asked {
    /// From this process's arguments; what cargo and Criterion add besides is passed over.
    pub fn by_arguments() -> Self {
        let has = |name: &str| std::env::args().any(|a| a == name);
        Self { test: has("--test"), quick: has("--quick"), record: has("--record") }
    }

    /// `full` rounds, or as many fewer as asked for.
    pub fn rounds(&self, full: usize) -> usize {
        match self {
            Self { test: true, .. } => 1,
            Self { quick: true, .. } => full.div_ceil(5).max(3),
            _ => full,
        }
    }
}

/// Everything that one lab's comparisons found, with where and when.
#[derive(Debug, Serialize)]
struct Record<'a> {
    lab: &'a str,
    date: String,
    machine: Machine,
    outcomes: &'a [Outcome],
    notes: &'a [&'a str],
}

/// Prints what was found, and with `--record` writes it to `benches/record/DATE-HOST-LAB.{json,md}`.
/// `notes` say what the figures mean and which goals were missed.
pub fn publish(asked: Asked, lab: &str, outcomes: &[Outcome], notes: &[&str]) -> io::Result<()> {
    let machine = Machine::fingerprint(env!("CARGO_MANIFEST_DIR"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let date = kit::machine::date(now);
    let mut text = format!(
        "# {lab}: {date}\n\n{} · {} · load {:.1} · revision {}\n\n",
        machine.line(),
        machine.cpu,
        machine.load,
        machine.revision
    );
    for outcome in outcomes {
        text.push_str(&outcome.markdown());
    }
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    io::stdout().write_all(text.as_bytes())?;
    if asked.record {
        let place = |extension: &str| -> PathBuf {
            let kind = format!("{}-{}cpu", machine.arch, machine.cpus);
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("record/{date}-{kind}-{lab}.{extension}"))
        };
        std::fs::create_dir_all(Path::new(env!("CARGO_MANIFEST_DIR")).join("record"))?;
        let record = Record { lab, date: date.clone(), machine: machine.clone(), outcomes, notes };
        kit::run::write_whole(&place("md"), &text)?;
        kit::run::write_whole(&place("json"), &(serde_json::to_string_pretty(&record)? + "\n"))?;
    }
    Ok(())
}
