//! Results as a terminal shows them: 80 columns, a line a contender, reasons below. The file that is kept has all.

use benches::record::{Lab, Outcome, Part, Record, Row, ratio_words, time};
use kit::stats::{Verdict, figure};

use crate::report::{Style, WIDTH, hanging, wrap};

/// The whole record.
pub(super) fn text(record: &Record, style: Style) -> String {
    let quick = if record.quick { "  quick: few rounds, nothing to conclude from\n" } else { "" };
    let mut out = hanging(&format!("{}  ", record.date), &record.machine_line()) + quick;
    for lab in &record.labs {
        out += &format!("\n{}\n", style.strong(&lab.lab));
        let mut unfair = "";
        for o in &lab.outcomes {
            out += &outcome(o, style);
            // Comparisons of one lab are often unfair in the same way.
            out += &hanging("    not fair: ", if o.unfair == unfair { "as above" } else { &o.unfair });
            unfair = &o.unfair;
        }
        out += &notes(lab);
        if !lab.parts.is_empty() {
            out += &format!("\n  {:32} {:>10} {:>19} {:>14}\n", "by Criterion", "median", "95 %", "a second");
            lab.parts.iter().for_each(|p| out += &part(&lab.lab, p));
        }
    }
    out
}

fn notes(lab: &Lab) -> String {
    let notes: String = lab.notes.iter().map(|n| hanging("  - ", n)).collect();
    if notes.is_empty() { notes } else { format!("\n{notes}") }
}

fn outcome(o: &Outcome, style: Style) -> String {
    let mut out = format!("\n  {}\n", style.strong(&format!("{}: {}", o.title, o.unit)));
    let base = o.base.as_ref().map_or_else(String::new, |b| format!("{:>9}", format!("x {b}")));
    // What is left for the names.
    let names = WIDTH - 2 - 9 - base.chars().count() - 2 - 20 - 2 - 13;
    out += &format!("  {:names$}{:>9}{base}  {:20}  ours costs\n", "", "median", "ours/this (95 %)");
    for row in &o.rows {
        let lines = wrap(&row.name, names - 1);
        let (first, more) = lines.split_first().expect("wrap returns a line");
        let base = if base.is_empty() { String::new() } else { format!("{:>9}", to_base(o, row)) };
        let ratio = row.ours_to_this.as_ref().map_or_else(String::new, ratio_words);
        let cost = if row.missing.is_some() { "-".into() } else { figure(row.summary.median) };
        out += format!("  {first:names$}{cost:>9}{base}  {ratio:20}  {}", verdict(row, style)).trim_end();
        out.push('\n');
        more.iter().for_each(|line| out += &format!("    {line}\n"));
    }
    for row in &o.rows {
        if let Some(why) = &row.missing {
            out += &hanging("    not measured: ", why);
        }
        if !row.counts.is_empty() {
            out += &hanging("    ", &format!("{}: {}", row.name, row.counted()));
        }
    }
    for (who, why) in reasons(&o.rows) {
        out += &hanging("    ", &format!("{who}: {why}"));
    }
    let noise = o.noise.as_ref().map_or_else(String::new, |noise| format!("; {}", noise.words()));
    let apart = o.apart.as_ref().map_or_else(String::new, |why| format!("; others do not count: {why}"));
    out + &hanging("    ", &format!("{} interleaved rounds{noise}{apart}", o.rounds()))
}

fn to_base(o: &Outcome, row: &Row) -> String {
    match &row.to_base {
        Some(ratio) => format!("{:.2}", ratio.ratio),
        None if o.base.as_ref() == Some(&row.name) => "1".into(),
        None => "-".into(),
    }
}

fn verdict(row: &Row, style: Style) -> String {
    if row.missing.is_some() {
        return style.remark("not measured");
    }
    let verdict = match (&row.finding, &row.ours_to_this) {
        (Some(finding), _) => finding.verdict,
        (None, Some(ratio)) => Some(ratio.verdict()),
        (None, None) => return String::new(),
    };
    match verdict {
        Some(Verdict::Less) => "less".into(),
        Some(Verdict::More) => style.remark("more"),
        Some(Verdict::NoDifference) => "no difference".into(),
        None => style.remark("not judged"),
    }
}

/// Why verdicts are not given, or what is to be known of them: each reason once, with whom it is about.
fn reasons(rows: &[Row]) -> Vec<(String, &str)> {
    let mut all: Vec<(String, &str)> = Vec::new();
    for row in rows {
        let Some(why) = row.finding.as_ref().map(|f| f.why.as_str()).filter(|why| !why.is_empty()) else {
            continue;
        };
        match all.iter_mut().find(|(_, known)| *known == why) {
            Some((who, _)) => *who += &format!("; {}", row.name),
            None => all.push((row.name.clone(), why)),
        }
    }
    all
}

fn part(lab: &str, p: &Part) -> String {
    // Its lab is the heading.
    let name = p.name.strip_prefix(lab).and_then(|name| name.strip_prefix('/')).unwrap_or(&p.name);
    let [ns, low, high] = [p.ns, p.low, p.high].map(time);
    // Both ends in the unit of the median, if they are.
    let (number, unit) = low.split_once(' ').unwrap_or((&low, ""));
    let low = if high.ends_with(unit) { number } else { &low };
    let rate = p.rate();
    let rate = rate.trim_end_matches("/s").replace(" elements", "");
    let lines = wrap(name, 31);
    let (first, more) = lines.split_first().expect("wrap returns a line");
    let mut out = format!("  {first:32} {ns:>10} {:>19} {rate:>14}\n", format!("{low}..{high}"));
    more.iter().for_each(|line| out += &format!("    {line}\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use benches::judge::Finding;

    #[test]
    fn a_reason_stands_once_with_all_whom_it_is_about() {
        let row = |name: &str, why: &str| Row {
            name: name.into(),
            summary: kit::Summary::default(),
            ours_to_this: None,
            finding: Some(Finding { verdict: None, why: why.into() }),
            to_base: None,
            counts: Default::default(),
            missing: None,
            samples: Vec::new(),
        };
        let rows = [row("a", "noise"), row("b", ""), row("c", "noise"), row("d", "drift")];
        assert_eq!(reasons(&rows), [("a; c".to_owned(), "noise"), ("d".to_owned(), "drift")]);
    }

    #[test]
    fn records_of_the_repository_fit_eighty_columns() {
        for record in super::super::records(&super::super::folder()) {
            for line in text(&record, Style::plain()).lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }
}
