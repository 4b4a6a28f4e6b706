//! The README's table of figures: made from the newest records, never by hand.

use std::path::Path;

use anyhow::{Context as _, bail};
use benches::record::{Lab, Outcome, Record, ratio_words};
use kit::stats::figure;

use crate::{book, paths, report};

const BEGIN: &str = "<!-- figures: made by `cargo xtask bench --readme` from benches/record -->";
const END: &str = "<!-- end of figures -->";

/// Puts the table into the README.
pub(super) fn write(records: &Path) -> anyhow::Result<()> {
    let path = paths::root().join("README.md");
    let (old, new) = both(records, &path)?;
    if old == new {
        report::note("README.md is up to date");
    } else {
        kit::run::write_whole(&path, &new)?;
        report::note("README.md: the table of figures is new");
    }
    Ok(())
}

/// Whether the README's table is what the records say.
pub(super) fn check(records: &Path) -> anyhow::Result<()> {
    let (old, new) = both(records, &paths::root().join("README.md"))?;
    if old != new {
        bail!("README.md: its table of figures is not that of benches/record\n  cargo xtask bench --readme");
    }
    Ok(())
}

/// The README as it is and as it should be.
fn both(records: &Path, path: &Path) -> anyhow::Result<(String, String)> {
    let old = std::fs::read_to_string(path).context("README.md")?;
    let record = super::current(records)?;
    let new = book::between(&old, BEGIN, END, &table(&record))?;
    Ok((old, new))
}

fn table(record: &Record) -> String {
    let mut out = format!(
        "{}, {}, {}. A ratio below 1: ours costs less. Its 95 % interval is in parentheses; \"no difference\" means \
         none shown.\n[All figures](benches/record), with what is unfair about each.\n\n\
         | lab | cost | ours | ours / theirs |\n| --- | --- | ---: | --- |\n",
        record.date,
        record.machine.line(),
        record.machine.cpu
    );
    for lab in &record.labs {
        for outcome in shown(lab) {
            out += &line(&lab.lab, outcome);
        }
    }
    out
}

/// The comparisons that stand in the README: those marked; of a record that marks none, the first.
fn shown(lab: &Lab) -> Vec<&Outcome> {
    let marked: Vec<&Outcome> = lab.outcomes.iter().filter(|o| o.headline).collect();
    if marked.is_empty() { lab.outcomes.first().into_iter().collect() } else { marked }
}

/// A line a comparison, with all whom we are held against in its last cell.
fn line(lab: &str, outcome: &Outcome) -> String {
    let Some((ours, others)) = outcome.rows.split_first() else { return String::new() };
    let others: Vec<String> = others
        .iter()
        .filter_map(|row| {
            let ratio = row.ours_to_this.as_ref()?;
            let verdict = match &row.finding {
                Some(f) if f.verdict.is_none() => ", not judged",
                _ if ratio.low <= 1.0 && ratio.high >= 1.0 => ", no difference",
                _ => "",
            };
            Some(format!("{}: {}{verdict}", cell(&row.name), ratio_words(ratio)))
        })
        .collect();
    let (title, median) = (cell(&outcome.title), figure(ours.summary.median));
    format!("| {lab} | {title} | {median} {} | {} |\n", outcome.unit, others.join("<br>"))
}

/// Text that does not end a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
