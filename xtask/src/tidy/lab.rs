//! What else a lab's folder must have, and what is written about it elsewhere.

use std::fs;
use std::path::Path;

use super::{Found, line_of};
use crate::{homework, labs, paths};

const README: [&str; 7] = [
    "## Question",
    "## Run",
    "## What you see",
    "## Predict first",
    "## Read in this order",
    "## Exercises",
    "## Limits",
];

const CHAPTER: [&str; 7] = [
    "## The question",
    "## Predict first",
    "## Guided run",
    "## How it works",
    "## What the numbers mean",
    "## Pitfalls",
    "## Further reading",
];

pub(super) fn check(folder: &Path, found: &mut Found) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let chapter = paths::root().join("docs/labs").join(format!("{name}.md"));
    check_headings(&folder.join("README.md"), &README, found);
    check_headings(&chapter, &CHAPTER, found);
    check_command(&folder.join("README.md"), &format!("cargo xtask run {name}"), found);
    check_recordings(folder, &name, found);
    for file in ["src/lib.rs", "src/main.rs", "tests/lab.rs"] {
        let path = folder.join(file);
        if !path.exists() {
            found.add(&path, 0, "is missing", "every lab has it; see CONTRIBUTING.md");
        }
    }
    check_exercises(folder, found);
    let changelog = paths::root().join("CHANGELOG.md");
    if !fs::read_to_string(&changelog).unwrap_or_default().contains(&format!("`{name}`")) {
        found.add(
            &changelog,
            0,
            format!("does not name {name}"),
            format!("a line: - `{name}`: what it shows"),
        );
    }
}

/// What can be seen of exercises without building any: list, statement, starter, spec.
fn check_exercises(folder: &Path, found: &mut Found) {
    let list = folder.join("exercises/exercises.toml");
    match homework::faults(folder) {
        Ok(faults) => {
            for what in faults {
                found.add(&list, 0, what, "see docs/homework/authors.md");
            }
        }
        Err(e) => found.add(&list, 0, format!("{e:#}"), "see docs/homework/authors.md"),
    }
}

/// Chapters of labs that there are not.
pub(super) fn check_orphans(found: &mut Found) -> anyhow::Result<()> {
    let chapters = paths::root().join("docs/labs");
    for entry in fs::read_dir(&chapters).into_iter().flatten() {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default();
        if !labs::folders()?.iter().any(|f| f.file_name() == Some(name)) {
            found.add(&path, 0, "there is no such lab", "remove it, and its line in the CHANGELOG");
        }
    }
    Ok(())
}

/// The second-level headings are exactly these, in this order.
fn check_headings(path: &Path, wanted: &[&str], found: &mut Found) {
    let Ok(text) = fs::read_to_string(path) else {
        found.add(path, 0, "is missing", format!("write it, with the headings {}", wanted.join(", ")));
        return;
    };
    let mut fenced = false;
    let mut headings = Vec::new();
    for (n, line) in text.lines().enumerate() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with("## ") {
            headings.push((n + 1, line.trim_end()));
        }
    }
    for (i, heading) in wanted.iter().enumerate() {
        match headings.get(i) {
            Some((_, there)) if there == heading => (),
            Some((line, there)) => {
                return found.add(
                    path,
                    *line,
                    format!("{there:?} stands where {heading:?} should"),
                    order(wanted),
                );
            }
            None => {
                return found.add(
                    path,
                    text.lines().count(),
                    format!("{heading:?} is missing"),
                    order(wanted),
                );
            }
        }
    }
    if let Some((line, there)) = headings.get(wanted.len()) {
        found.add(path, *line, format!("{there:?} is one heading too many"), order(wanted));
    }
}

fn order(wanted: &[&str]) -> String {
    let names: Vec<_> = wanted.iter().map(|w| w.trim_start_matches("## ")).collect();
    format!("the headings in this order: {}", names.join(" · "))
}

fn check_command(readme: &Path, command: &str, found: &mut Found) {
    let text = fs::read_to_string(readme).unwrap_or_default();
    if !text.contains(command) {
        found.add(readme, line_of(&text, "## Run"), "does not say how to run it", command);
    }
}

/// Recordings are what `--save` writes, of this lab, of a run that went well.
fn check_recordings(folder: &Path, name: &str, found: &mut Found) {
    let recordings = folder.join("recordings");
    let fix = format!("cargo xtask run {name} --save labs/{name}/recordings/default.json");
    if !recordings.join("default.json").exists() {
        found.add(&recordings.join("default.json"), 0, "is missing", fix.clone());
    }
    for entry in fs::read_dir(&recordings).into_iter().flatten().flatten() {
        let path = entry.path();
        match kit::run::Run::load(&path) {
            Err(e) => found.add(&path, 0, e.to_string(), fix.clone()),
            Ok(run) if run.header.lab != name => {
                found.add(&path, 0, format!("is of {:?}", run.header.lab), fix.clone())
            }
            Ok(run) if !run.ok() => found.add(&path, 0, "is of a run that failed", fix.clone()),
            Ok(_) => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(text: &str) -> Vec<(usize, String)> {
        let file = std::env::temp_dir().join(format!("benchtop-tidy-{}.md", std::process::id()));
        fs::write(&file, text).unwrap();
        let mut found = Found::default();
        check_headings(&file, &["## A", "## B"], &mut found);
        fs::remove_file(&file).unwrap();
        found.0.into_iter().map(|v| (v.line, v.what)).collect()
    }

    #[test]
    fn headings_are_these_in_this_order() {
        assert_eq!(headings("# T\n## A\n```\n## not one\n```\n## B\n"), []);
        assert_eq!(headings("## B\n## A\n"), [(1, "\"## B\" stands where \"## A\" should".into())]);
        assert_eq!(headings("## A\n"), [(1, "\"## B\" is missing".into())]);
        assert_eq!(headings("## A\n## B\n## C\n"), [(3, "\"## C\" is one heading too many".into())]);
    }
}
