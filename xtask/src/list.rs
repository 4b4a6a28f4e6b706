//! `cargo xtask list`: the labs by track, with the verdict on this machine.

use clap::Args;
use kit::probe::{self, Finding};

use crate::labs::{self, Lab, Verdict};
use crate::report::{self, Style, WIDTH, columns, hanging, wrap};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print one JSON document instead
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    let labs = labs::all()?;
    let findings = probe::findings(&labs::named(&labs));
    let text = if options.json { json(&labs, &findings)? } else { table(&labs, &findings, Style::stdout()) };
    report::print(&text)?;
    Ok(0)
}

fn json(labs: &[Lab], findings: &[Finding]) -> anyhow::Result<String> {
    let labs: Vec<_> = labs
        .iter()
        .map(|lab| {
            serde_json::json!({
                "name": lab.name,
                "meta": lab.meta,
                "verdict": lab.verdict(findings),
                "missing": lab.missing(findings),
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&serde_json::json!({ "schema": 1, "labs": labs }))? + "\n")
}

fn table(labs: &[Lab], findings: &[Finding], style: Style) -> String {
    let name_width = labs.iter().map(|l| columns(&l.name)).max().unwrap_or(0).max(10) + 2;
    // Two blanks, the name, the question, "unavailable", the minutes.
    let question_width = WIDTH - 2 - name_width - 13 - 3;
    let row = |name: &str, question: &str, here: &str, minutes: &str| {
        format!("  {name:name_width$}{question:question_width$}{here:<13}{minutes:>3}")
    };
    let mut text = style.strong(row("", "QUESTION", "HERE", "MIN").replacen("  ", "LAB", 1).trim_end());
    text = text.replacen("LAB ", "LAB", 1) + "\n";
    let mut track = "";
    for lab in labs {
        if lab.meta.track != track {
            track = &lab.meta.track;
            text += &format!("{track}\n");
        }
        let verdict = lab.verdict(findings);
        let question = wrap(&lab.meta.question, question_width - 1);
        text += &row(&lab.name, &question[0], verdict.word(), &lab.meta.minutes.to_string());
        text.push('\n');
        for line in &question[1..] {
            text += row("", line, "", "").trim_end();
            text.push('\n');
        }
        if let Some(why) = why(lab, verdict, findings) {
            text += &hanging(&format!("  {:name_width$}", ""), &why);
        }
    }
    let count = format!("{} lab{}", labs.len(), if labs.len() == 1 { "" } else { "s" });
    text + &format!("{count} · cargo xtask run LAB · cargo xtask doctor LAB says why\n")
}

/// What is missing, and what the lab does about it.
fn why(lab: &Lab, verdict: Verdict, findings: &[Finding]) -> Option<String> {
    let missing = lab.missing(findings);
    let first = match verdict {
        Verdict::Full => return None,
        Verdict::Reduced => missing.first()?,
        Verdict::Unavailable => missing.iter().find(|f| lab.needs(f.name))?,
    };
    let instead = lab.meta.without.get(first.name).map(|what| format!(": {what}")).unwrap_or_default();
    let more = if missing.len() > 1 { format!(", and {} more", missing.len() - 1) } else { String::new() };
    Some(format!("no {}{instead}{more}", first.name))
}
