//! A lab's Cargo.toml.

use std::fs;
use std::path::Path;

use kit::probe;
use toml::{Table, Value};

use super::{Found, line_of};
use crate::book;
use crate::labs::{Meta, TRACKS};

/// Characters that a question may have: it stands in one line of a list.
const QUESTION_MAX: usize = 60;

pub(super) fn check(folder: &Path, found: &mut Found) -> anyhow::Result<()> {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path)?;
    let manifest: Table = match toml::from_str(&text) {
        Ok(table) => table,
        Err(e) => {
            found.add(&path, 0, e.message(), "make it a manifest; xtask/template/Cargo.toml is one");
            return Ok(());
        }
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let at = |needle: &str| line_of(&text, needle);
    let package = table(&manifest, "package");

    if string(package, "name") != name {
        found.add(
            &path,
            at("name ="),
            "the package is not called as its folder",
            format!("name = \"{name}\""),
        );
    }
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        if !inherits(package.get(key)) {
            found.add(
                &path,
                at("[package]"),
                format!("{key} is not the workspace's"),
                format!("{key}.workspace = true"),
            );
        }
    }
    if !inherits(manifest.get("lints").map(|l| &l["workspace"]).map(|_| &manifest["lints"])) {
        found.add(&path, at("[lints]"), "the lints are not the workspace's", "[lints]\nworkspace = true");
    }
    check_targets(&manifest, &name, &path, &text, found);
    check_dependencies(&manifest, &path, &text, found);

    let meta = package.get("metadata").and_then(|m| m.get("lab")).cloned();
    let Some(meta) = meta else {
        let fix = "add it; xtask/template/Cargo.toml has one";
        found.add(&path, 0, "there is no [package.metadata.lab]", fix);
        return Ok(());
    };
    match meta.try_into::<Meta>() {
        Ok(meta) => check_meta(&meta, string(package, "description"), &path, &text, found)?,
        Err(e) => {
            found.add(&path, at("[package.metadata.lab]"), e.message(), "see CONTRIBUTING.md on the manifest")
        }
    }
    Ok(())
}

/// A table of a manifest; an empty one where there is none.
fn table<'a>(manifest: &'a Table, key: &str) -> &'a Table {
    static EMPTY: std::sync::LazyLock<Table> = std::sync::LazyLock::new(Table::new);
    manifest.get(key).and_then(Value::as_table).unwrap_or(&EMPTY)
}

fn string<'a>(table: &'a Table, key: &str) -> &'a str {
    table.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `key.workspace = true`
fn inherits(value: Option<&Value>) -> bool {
    value.and_then(|v| v.get("workspace")).and_then(Value::as_bool) == Some(true)
}

/// Criterion owns `cargo bench`, so no other target may take its arguments.
fn check_targets(manifest: &Table, name: &str, path: &Path, text: &str, found: &mut Found) {
    let is = |table: &Table, key: &str, wanted: bool| table.get(key).and_then(Value::as_bool) == Some(wanted);
    if !is(table(manifest, "lib"), "bench", false) {
        found.add(
            path,
            line_of(text, "[lib]"),
            "the library takes part in cargo bench",
            "[lib]\nbench = false",
        );
    }
    let bins = manifest.get("bin").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let own = bins.iter().filter_map(Value::as_table).find(|b| string(b, "name") == name);
    let fine = own
        .is_some_and(|b| string(b, "path") == "src/main.rs" && is(b, "bench", false) && is(b, "test", false));
    if !fine {
        let fix = format!("[[bin]]\nname = \"{name}\"\npath = \"src/main.rs\"\nbench = false\ntest = false");
        found.add(path, line_of(text, "[[bin]]"), "the binary is not declared as every lab's", fix);
    }
}

fn check_dependencies(manifest: &Table, path: &Path, text: &str, found: &mut Found) {
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (name, value) in table(manifest, section) {
            if !inherits(Some(value)) {
                let fix = format!("{name}.workspace = true, and the version in the workspace's Cargo.toml");
                found.add(path, line_of(text, name), format!("{name} has a version of its own"), fix);
            }
        }
    }
}

fn check_meta(
    meta: &Meta,
    description: &str,
    path: &Path,
    text: &str,
    found: &mut Found,
) -> anyhow::Result<()> {
    let at = |key: &str| line_of(text, &format!("{key} ="));
    if meta.question.chars().count() > QUESTION_MAX || !meta.question.ends_with('?') {
        let fix = format!("one question, with its mark, of at most {QUESTION_MAX} characters");
        found.add(path, at("question"), "the question does not fit into a list", fix);
    }
    if description != meta.question {
        let fix = format!("description = {:?}", meta.question);
        found.add(path, at("description"), "the description is not the question", fix);
    }
    if !TRACKS.contains(&meta.track.as_str()) {
        found.add(
            path,
            at("track"),
            format!("no such track: {:?}", meta.track),
            format!("one of {}", TRACKS.join(", ")),
        );
    }
    if meta.minutes == 0 || meta.title.is_empty() {
        found.add(path, at("minutes"), "no title, or no minutes to present it", "fill them in");
    }
    for (key, names) in [("needs", &meta.needs), ("wants", &meta.wants)] {
        for name in names.iter().filter(|n| !probe::NAMES.contains(&n.as_str())) {
            let fix = format!("one of {}", probe::NAMES.join(", "));
            found.add(path, at(key), format!("{key}: doctor has no finding {name:?}"), fix);
        }
    }
    for name in meta.without.keys().filter(|n| !meta.wants.contains(n)) {
        found.add(
            path,
            line_of(text, "without"),
            format!("without: {name:?} is not in wants"),
            "add it there, or take it out here",
        );
    }
    let topics = book::topics()?;
    for number in meta.topics.iter().filter(|n| topics.iter().all(|t| t.number != **n)) {
        let fix = "a number of docs/topics.toml";
        found.add(path, at("topics"), format!("there is no topic {number}"), fix);
    }
    Ok(())
}
