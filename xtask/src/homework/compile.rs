//! Builds a spec with given files in the exercise's place: one call of rustc, in a folder of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::catalogue::Exercise;
use super::process::Ended;
use super::room::{Call, copy};
use super::sandbox::{Task, View};
use super::variants::Variant;
use super::words::{self, Word};
use super::workshop::Workshop;
use crate::paths;

/// Attributes that reach beyond the module: into the linker, or into the spec, whose `assert!` could be another then.
/// No spelling hides them: an identifier is in one piece, whatever is around it, and has no escapes.
const REFUSED: [&str; 6] =
    ["link_section", "no_mangle", "export_name", "macro_export", "macro_use", "macro_escape"];

/// A spec with something in the exercise's place.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// Like the lab's folder: `tests/`, `exercises/`, and links to the rest.
    pub(crate) place: PathBuf,
    pub(crate) program: PathBuf,
    /// How paths in `place` are shown: as if they were the lab's own.
    pub(crate) shown_as: String,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Compiled {
    Built(Built),
    /// It says what it may not, in words. Nothing was built.
    Forbidden(String),
    /// What rustc said.
    Refused(String),
    /// It took too long, in words.
    Late(String),
}

impl Built {
    /// Text of rustc or of a test, with paths as the student knows them.
    pub(crate) fn readable(&self, text: &str) -> String {
        let here = self.place.display().to_string();
        text.replace(&here, &self.shown_as).replace("/tests/../exercises/", "/exercises/")
    }
}

/// Lays out a variant and builds it.
pub(crate) fn compile(
    shop: &Workshop,
    slot: usize,
    call: &Call,
    exercise: &Exercise,
    variant: &Variant,
) -> anyhow::Result<Compiled> {
    if let Some(words) = refused(exercise, call, variant)? {
        return Ok(Compiled::Forbidden(words));
    }
    let place = shop.room.place(exercise, &variant.name);
    lay_out(shop, exercise, variant, &place).with_context(|| paths::shown(&place))?;
    let built = Built {
        program: place.join("out").join(&exercise.id),
        shown_as: format!("labs/{}", exercise.lab),
        place,
    };
    let mut variables = call.variables.clone();
    variables.insert("CARGO_MANIFEST_DIR".into(), built.place.display().to_string());
    let task = Task {
        program: shop.room.rustc().to_owned(),
        arguments: arguments(call, &exercise.id, &built),
        variables,
        folder: shop.room.root(),
        seconds: shop.compile_limit,
        view: View {
            read: vec![shop.room.toolchain(), shop.room.root(), shop.room.target(), built.place.clone()],
            write: vec![built.place.join("out")],
            devices: Vec::new(),
        },
        privileged: false,
        may_nest: false,
        may_look: false,
        slot,
    };
    let ran = shop.guard.run(&task, None)?;
    let said = built.readable(&ran.stderr);
    Ok(match ran.ended {
        Ended::Exit(0) => Compiled::Built(built),
        Ended::Exit(_) => Compiled::Refused(said),
        // Whose fault that is cannot be known from here.
        Ended::Late(_) => Compiled::Late(format!(
            "rustc ran into the limit of {} s: the machine is too busy, run again; or the code keeps the compiler busy",
            shop.compile_limit
        )),
        other => Compiled::Refused(format!("{said}rustc {other}\n")),
    })
}

/// What an exercise may not say, if it says so.
fn refused(exercise: &Exercise, call: &Call, variant: &Variant) -> anyhow::Result<Option<String>> {
    for (name, path) in &variant.files {
        let text = fs::read(path).with_context(|| paths::shown(path))?;
        let text = String::from_utf8_lossy(&text);
        if let Some((line, word)) = reaches_beyond(&text) {
            return Ok(Some(format!(
                "{name}:{line}: says {word}, which reaches beyond the exercise's module; no exercise needs it\n"
            )));
        }
        if let Some(from) = exercise.only_from.as_deref().filter(|_| name.ends_with(".rs"))
            && let Some((line, word)) = takes_from_elsewhere(&text, from, &crates(call))
        {
            return Ok(Some(format!(
                "{name}:{line}: says {word}\n  fix: use {from} alone: the model sees no other atomics, and nothing of std, \
                 of other crates, files or modules\n"
            )));
        }
    }
    Ok(None)
}

/// The crates that a spec is built with.
fn crates(call: &Call) -> Vec<&str> {
    let named = call.arguments.windows(2).filter(|two| two[0] == "--extern");
    named.filter_map(|two| two[1].split('=').next()?.rsplit(':').next()).collect()
}

/// The first line, from 1, that takes a name from elsewhere than `from`; and by which word.
fn takes_from_elsewhere(text: &str, from: &str, crates: &[&str]) -> Option<(usize, String)> {
    let words = words::of(text);
    // Wherever they stand: a macro could make a path of them.
    let elsewhere = |w: &&Word<'_>| {
        ["std", "core", "alloc", "include", "path"].contains(&w.text) || crates.contains(&w.text)
    };
    let named = words.iter().find(elsewhere).map(|w| (w.line, w.text.to_owned()));
    let around =
        words::from_outside(&words).into_iter().find(|w| Some(w.text) != from.strip_prefix("super::"));
    named.or_else(|| around.map(|w| (w.line, format!("super::{}", w.text.escape_debug()))))
}

/// The first line, from 1, that says one of the words; and which.
fn reaches_beyond(text: &str) -> Option<(usize, &'static str)> {
    text.lines()
        .enumerate()
        .find_map(|(n, line)| Some((n + 1, *REFUSED.iter().find(|w| line.contains(**w))?)))
}

/// A folder like the lab's, in which the spec finds the variant's files beside it. Made anew each time.
fn lay_out(shop: &Workshop, exercise: &Exercise, variant: &Variant, place: &Path) -> anyhow::Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    let lab = shop.room.root().join("labs").join(&exercise.lab);
    for folder in ["tests", "exercises", "out"] {
        fs::create_dir_all(place.join(folder))?;
    }
    link_all(&lab, place, &["tests", "exercises"])?;
    let spec = format!("{}.rs", exercise.id);
    link_all(&lab.join("tests"), &place.join("tests"), &[&spec])?;
    fs::copy(lab.join("tests").join(&spec), place.join("tests").join(&spec))?;
    if let Some(overlay) = shop.overlay(exercise) {
        for entry in fs::read_dir(&overlay)? {
            let entry = entry?;
            let to = place.join("tests").join(entry.file_name());
            let _ = fs::remove_file(&to);
            if entry.file_type()?.is_dir() {
                copy(&entry.path(), &to)?
            } else {
                fs::copy(entry.path(), &to).map(drop)?
            }
        }
    }
    for (name, from) in &variant.files {
        let to = place.join("exercises").join(name);
        fs::copy(from, &to).with_context(|| paths::shown(from))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn link_all(from: &Path, to: &Path, but: &[&str]) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if but.iter().all(|b| entry.file_name() != *b) {
            symlink(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Cargo's own arguments, but for where things are and how rustc says what is wrong.
fn arguments(call: &Call, id: &str, built: &Built) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut words = call.arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--out-dir" => drop(words.next()),
            "-C" => {
                let option = words.next().cloned().unwrap_or_default();
                if !["incremental=", "metadata=", "extra-filename="].iter().any(|o| option.starts_with(o)) {
                    arguments.extend(["-C".to_owned(), option]);
                }
            }
            w if w.ends_with(&format!("tests/{id}.rs")) => {
                arguments.push(built.place.join("tests").join(format!("{id}.rs")).display().to_string());
            }
            w if w.starts_with("--error-format")
                || w.starts_with("--json")
                || w.starts_with("--diagnostic-width") => {}
            w if w.starts_with("--emit") => arguments.push("--emit=link".to_owned()),
            w => arguments.push(w.to_owned()),
        }
    }
    // These are for our own code: what a student leaves undocumented is not an error.
    arguments.extend(["-Amissing_docs", "-Wunused_must_use", "--color=never"].map(str::to_owned));
    arguments.extend(["--out-dir".to_owned(), built.place.join("out").display().to_string()]);
    let remap = format!("--remap-path-prefix={}={}", built.place.display(), built.shown_as);
    arguments.push(remap);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_an_attribute_reaches_beyond() {
        for (text, line) in [
            ("#![macro_use]", 1),
            ("#! [ /* */\n macro_use\n]", 2),
            ("#![r#macro_use]", 1),
            ("#![cfg_attr(all(), macro_escape)]", 1),
            ("\n#[macro_export]", 2),
            ("#[unsafe(export_name = \"write\")]", 1),
        ] {
            assert_eq!(reaches_beyond(text).map(|(n, _)| n), Some(line), "{text}");
        }
        assert_eq!(reaches_beyond("macro_rules! twice { () => {} }\nuse twice;"), None);
    }
    #[test]
    fn names_are_from_one_module_only() {
        let refused = |text| takes_from_elsewhere(text, "super::sync", &["loom", "kit"]);
        for text in [
            "use std::sync::atomic::AtomicU32;",
            "use ::core::sync::atomic;",
            "extern crate alloc as a;",
            "macro_rules! p { ($a:ident) => { $a::f() } }\np!(std)",
            "loom::stop_exploring()",
            "use r#kit;",
            "include!(\"x\");",
            "#[path = \"x\"] mod x;",
            "super::thread::yield_now()",
            "use super::*;",
            "use super as s;",
            "use super::{sync, Cell};",
            "crate::Cell",
        ] {
            assert!(refused(text).is_some(), "{text}");
        }
        let text = "//! Better than std::sync.\nuse super::sync::{AtomicU32, spin};\npub(crate) fn standard() { \"std::\"; }";
        assert_eq!(refused(text), None);
        assert_eq!(refused("\nsuper::x()"), Some((2, "super::x".to_owned())));
    }
}
