//! `cargo xtask doctor`: what this machine can do, and what to do about what it cannot.

use clap::Args;
use kit::probe::{self, Finding, NOISE};

use crate::exit;
use crate::labs::{self, Lab, Verdict};
use crate::report::{self, Style, WIDTH, columns, hanging};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only what this lab needs and wants
    lab: Option<String>,
    /// Print one JSON document instead
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    let (labs, findings) = match &options.lab {
        None => (labs::all()?, probe::all()),
        Some(name) => {
            let labs = vec![labs::find(name)?];
            let mut names = related(&labs::named(&labs));
            names.push(NOISE);
            (labs, probe::findings(&names))
        }
    };
    let text = if options.json { json(&labs, &findings)? } else { page(&labs, &findings, Style::stdout()) };
    report::print(&text)?;
    let all_run = labs.iter().all(|l| l.verdict(&findings) != Verdict::Unavailable);
    Ok(if all_run { 0 } else { exit::UNAVAILABLE })
}

/// The findings of the areas that `names` are of: who needs `kvm` wants to know of `kvm.speed`.
fn related(names: &[&str]) -> Vec<&'static str> {
    let area = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let areas: Vec<String> = names.iter().map(|n| area(n)).collect();
    probe::NAMES.into_iter().filter(|n| areas.contains(&area(n))).collect()
}

fn json(labs: &[Lab], findings: &[Finding]) -> anyhow::Result<String> {
    let concerned =
        |finding: &Finding| -> Vec<_> { effects(labs, finding).map(|(lab, _)| &lab.name).collect() };
    let findings_json: Vec<_> = findings
        .iter()
        .map(|f| {
            let mut value = serde_json::to_value(f)?;
            value["labs"] = serde_json::to_value(concerned(f))?;
            Ok(value)
        })
        .collect::<serde_json::Result<_>>()?;
    let labs_json: Vec<_> = labs
        .iter()
        .map(|lab| {
            let missing: Vec<_> = lab.missing(findings).iter().map(|f| f.name).collect();
            serde_json::json!({ "name": lab.name, "verdict": lab.verdict(findings), "missing": missing })
        })
        .collect();
    let ok = labs.iter().all(|l| l.verdict(findings) != Verdict::Unavailable);
    let document = serde_json::json!({
        "schema": 1,
        "machine": kit::machine::Machine::fingerprint(crate::paths::root()),
        "findings": findings_json,
        "labs": labs_json,
        "ok": ok,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// The labs that name a finding, and whether they need it.
fn effects<'a>(labs: &'a [Lab], finding: &Finding) -> impl Iterator<Item = (&'a Lab, bool)> {
    let name = finding.name;
    labs.iter()
        .map(move |lab| (lab, lab.needs(name)))
        .filter(move |(lab, needs)| *needs || lab.meta.wants.iter().any(|w| w == name))
}

fn page(labs: &[Lab], findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for finding in findings {
        text += &entry(labs, findings, finding, style);
    }
    text.push('\n');
    let name_width = labs.iter().map(|l| columns(&l.name)).max().unwrap_or(0) + 2;
    for lab in labs {
        let verdict = lab.verdict(findings);
        let missing: Vec<_> = lab.missing(findings).iter().map(|f| f.name).collect();
        let without =
            if missing.is_empty() { String::new() } else { format!(", without {}", missing.join(", ")) };
        text += &hanging(&format!("{:name_width$}", lab.name), &format!("{}{without}", verdict.word()));
    }
    text
}

/// Columns before the text of a finding: verdict, name.
const INDENT: usize = 6 + 23;

/// One finding: what, evidence at the right or below, and for a "no" the labs and the fix.
fn entry(labs: &[Lab], findings: &[Finding], finding: &Finding, style: Style) -> String {
    let word = match finding.verdict {
        _ if finding.name == NOISE => String::new(),
        probe::Verdict::Ok => "ok    ".into(),
        probe::Verdict::Note => style.remark("note  "),
        probe::Verdict::No => style.bad("no    "),
    };
    let Finding { name, what, evidence, .. } = finding;
    let first = if name == &NOISE { format!("{:INDENT$}", "noise") } else { format!("{:23}", name) };
    let room = WIDTH - INDENT;
    let mut text = if evidence.is_empty() || columns(what) + 2 + columns(evidence) > room {
        let mut both = body(what);
        if !evidence.is_empty() {
            both += &format!("{:INDENT$}{}", "", body(evidence));
        }
        both
    } else {
        format!("{what}{evidence:>rest$}\n", rest = room - columns(what))
    };
    text = format!("{word}{first}{text}");
    if !finding.works() {
        // A lab that does not run at all is not "reduced" by what else is missing.
        let concerned: Vec<_> = effects(labs, finding)
            .filter(|(lab, needs)| *needs || lab.verdict(findings) != Verdict::Unavailable)
            .map(|(lab, needs)| effect(lab, needs, name))
            .collect();
        if !concerned.is_empty() {
            text += &hanging("      labs: ", &concerned.join("; "));
        }
        if let Some(fix) = &finding.fix {
            text += &hanging("      fix:  ", &fix.to_string());
        }
    }
    text
}

/// Text that stands at the column of findings, its further lines below it.
fn body(text: &str) -> String {
    hanging(&" ".repeat(INDENT), text).split_off(INDENT)
}

fn effect(lab: &Lab, needs: bool, finding: &str) -> String {
    match (needs, lab.meta.without.get(finding)) {
        (true, _) => format!("{} does not run", lab.name),
        (false, Some(instead)) => format!("{} runs reduced ({instead})", lab.name),
        (false, None) => format!("{} runs reduced", lab.name),
    }
}
