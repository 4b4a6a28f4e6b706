//! One record held against another: what has become cheaper or dearer between the two.

use benches::judge;
use benches::record::{Outcome, Part, Record, Row, ratio_words};
use kit::machine::Machine;
use kit::stats::{Ratio, SplitMix, figure, percentile, sorted};

use crate::report::hanging;
use crate::{exit, report};

/// Prints the comparison of two records; of different machines only when told to.
pub(super) fn run(a: &Record, b: &Record, across_machines: bool) -> anyhow::Result<u8> {
    let different = differences(&a.machine, &b.machine);
    if !different.is_empty() && !across_machines {
        report::complain(&format!(
            "these records are of different machines: their figures say nothing about the code\n  {}\n  \
             --across-machines compares them nevertheless",
            different.join("\n  ")
        ));
        return Ok(exit::FAILED);
    }
    if !a.labs.iter().any(|lab| b.lab(&lab.lab).is_some()) {
        report::complain("these records have no lab in common");
        return Ok(exit::FAILED);
    }
    report::print(&text(a, b, &different))?;
    Ok(0)
}

/// What [`Machine::like`] goes by, and what it found.
fn differences(a: &Machine, b: &Machine) -> Vec<String> {
    if a.like(b) {
        return Vec::new();
    }
    let all = [
        ("kernel", a.kernel.clone(), b.kernel.clone()),
        ("processor", a.cpu.clone(), b.cpu.clone()),
        ("CPUs", a.cpus.to_string(), b.cpus.to_string()),
    ];
    all.into_iter().filter(|(_, a, b)| a != b).map(|(what, a, b)| format!("{what}: {a} / {b}")).collect()
}

fn text(a: &Record, b: &Record, different: &[String]) -> String {
    let mut out = String::new();
    for (name, record) in [("A  ", a), ("B  ", b)] {
        out += &hanging(name, &format!("{}  {}", record.date, record.machine_line()));
    }
    for line in different {
        out += &hanging("!  ", line);
    }
    for (name, before) in &a.settings {
        if let Some(after) = b.settings.get(name).filter(|after| *after != before && name != "up for") {
            out += &hanging("!  ", &format!("{name}: {before} / {after}"));
        }
    }
    out += "\nB / A is of two sessions, so what else the machine did is in it; ours / this is of\none session each.\n";
    let mut alone = Vec::new();
    for lab in &a.labs {
        let Some(after) = b.lab(&lab.lab) else {
            alone.push(format!("A: {}", lab.lab));
            continue;
        };
        out += &format!("\n{}\n", lab.lab);
        for o in &lab.outcomes {
            match after.outcomes.iter().find(|n| n.title == o.title) {
                Some(n) => out += &outcome(o, n),
                None => alone.push(format!("A: {}, {}", lab.lab, o.title)),
            }
        }
        for p in &lab.parts {
            match after.parts.iter().find(|n| n.name == p.name) {
                Some(n) => out += &part(p, n),
                None => alone.push(format!("A: {}", p.name)),
            }
        }
        let new = after.outcomes.iter().filter(|n| lab.outcomes.iter().all(|o| o.title != n.title));
        alone.extend(new.map(|n| format!("B: {}, {}", lab.lab, n.title)));
        let new = after.parts.iter().filter(|n| lab.parts.iter().all(|p| p.name != n.name));
        alone.extend(new.map(|n| format!("B: {}", n.name)));
    }
    alone.extend(b.labs.iter().filter(|l| a.lab(&l.lab).is_none()).map(|l| format!("B: {}", l.lab)));
    if !alone.is_empty() {
        out += "\nIn one of them only:\n";
        alone.iter().for_each(|what| out += &hanging("  ", what));
    }
    out
}

fn changed(cheaper: bool) -> &'static str {
    if cheaper { "cheaper" } else { "dearer" }
}

/// Criterion's intervals, of the two sessions: a gap between them is a difference.
fn part(a: &Part, b: &Part) -> String {
    let gap = b.low > a.high || b.high < a.low;
    let word = if gap { changed(b.ns < a.ns) } else { "no difference shown" };
    format!("  {:44} B / A {:.2}  {word}\n", a.name, b.ns / a.ns)
}

fn outcome(a: &Outcome, b: &Outcome) -> String {
    let mut out = hanging("  ", &format!("{}: {}", a.title, a.unit));
    for (before, after) in a.rows.iter().filter_map(|r| Some((r, b.rows.iter().find(|n| n.name == r.name)?)))
    {
        let across = match between(before, after) {
            Some(r) => format!("B / A {}", ratio_words(&r)),
            None => format!("{} -> {}", figure(before.summary.median), figure(after.summary.median)),
        };
        out += &format!("    {:36} {across}\n", before.name);
        if let (Some(x), Some(y)) = (&before.ours_to_this, &after.ours_to_this) {
            let gap = x.low > y.high || y.low > x.high;
            let word = if gap { format!("  {}", changed(y.ratio < x.ratio)) } else { String::new() };
            out += &format!("      ours / this {} -> {}{word}\n", ratio_words(x), ratio_words(y));
        }
    }
    out
}

/// B's cost by A's, of samples that are not paired: each side is resampled by itself.
fn between(a: &Row, b: &Row) -> Option<Ratio> {
    let (a, b) = (&a.samples, &b.samples);
    if a.len() < judge::ENOUGH || b.len() < judge::ENOUGH {
        return None;
    }
    let median = |values: &[f64]| percentile(&sorted(values), 0.5);
    let mut random = SplitMix(0x5eed);
    let mut resampled = |from: &[f64]| {
        let picked: Vec<f64> = from.iter().map(|_| from[random.below(from.len())]).collect();
        median(&picked)
    };
    let ratios: Vec<f64> = (0..2000).map(|_| resampled(b) / resampled(a)).collect();
    let ratios = sorted(&ratios);
    Some(Ratio {
        n: a.len().min(b.len()),
        ratio: median(b) / median(a),
        low: percentile(&ratios, 0.025),
        high: percentile(&ratios, 0.975),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(kernel: &str, cpus: usize) -> Machine {
        Machine { kernel: kernel.into(), cpus, ..Machine::default() }
    }

    #[test]
    fn machines_that_differ_are_named() {
        assert_eq!(differences(&machine("6.1", 2), &machine("6.1", 2)), [""; 0]);
        assert_eq!(differences(&machine("6.1", 2), &machine("6.2", 4)), ["kernel: 6.1 / 6.2", "CPUs: 2 / 4"]);
    }

    #[test]
    fn two_sessions_are_compared_by_their_medians() {
        let row = |scale: f64| Row {
            name: "a".into(),
            summary: kit::Summary::default(),
            ours_to_this: None,
            finding: None,
            to_base: None,
            counts: Default::default(),
            missing: None,
            samples: (0..30).map(|i| scale * (100.0 + f64::from(i % 7))).collect(),
        };
        let ratio = between(&row(1.0), &row(1.5)).unwrap();
        assert!(ratio.low <= 1.5 && 1.5 <= ratio.high && ratio.high < 1.6, "{ratio}");
        let few = Row { samples: vec![1.0; 3], ..row(1.0) };
        assert_eq!(between(&few, &row(1.0)), None);
    }
}
