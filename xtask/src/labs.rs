//! The labs: folders of `labs/` with a manifest that says so.
//!
//! The manifests are read directly: `cargo metadata --no-deps` would say the same, a tenth of a second later.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kit::probe::Finding;
use serde::{Deserialize, Serialize};

use crate::{Usage, paths, report};

/// The tracks in the order of a list; others follow by name.
pub(crate) const TRACKS: [&str; 6] =
    ["virtualization", "input and output", "debugging", "processes", "concurrency", "tracing"];

/// A lab, as its manifest has it.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) meta: Meta,
}

/// `[package.metadata.lab]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub(crate) title: String,
    pub(crate) question: String,
    pub(crate) track: String,
    pub(crate) order: i64,
    pub(crate) minutes: u32,
    /// Findings that must work.
    #[serde(default)]
    pub(crate) needs: Vec<String>,
    /// Findings that it is better with.
    #[serde(default)]
    pub(crate) wants: Vec<String>,
    /// For some of `wants`: what the lab does without.
    #[serde(default)]
    pub(crate) without: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) topics: Vec<u32>,
}

#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    lab: Meta,
}

/// What a lab can do on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Full,
    Reduced,
    Unavailable,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Reduced => "reduced",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Lab {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| paths::shown(&path))?;
        let manifest: Manifest = toml::from_str(&text).with_context(|| paths::shown(&path))?;
        let Package { name, metadata } = manifest.package;
        Ok(Self { name, folder: folder.to_owned(), meta: metadata.lab })
    }

    /// The findings that it needs or wants, of those given, that do not work.
    pub(crate) fn missing<'a>(&self, findings: &'a [Finding]) -> Vec<&'a Finding> {
        findings.iter().filter(|f| !f.works() && self.names(f.name)).collect()
    }

    fn names(&self, finding: &str) -> bool {
        self.meta.needs.iter().chain(&self.meta.wants).any(|n| n == finding)
    }

    /// Whether it cannot do without.
    pub(crate) fn needs(&self, finding: &str) -> bool {
        self.meta.needs.iter().any(|n| n == finding)
    }

    /// What it can do, given findings for all that it needs and wants.
    pub(crate) fn verdict(&self, findings: &[Finding]) -> Verdict {
        let missing = self.missing(findings);
        if missing.iter().any(|f| self.needs(f.name)) {
            Verdict::Unavailable
        } else if missing.is_empty() {
            Verdict::Full
        } else {
            Verdict::Reduced
        }
    }
}

/// The folders below `labs/` that are packages, by name.
pub(crate) fn folders() -> anyhow::Result<Vec<PathBuf>> {
    let labs = paths::root().join("labs");
    let mut folders = Vec::new();
    for entry in fs::read_dir(&labs).with_context(|| paths::shown(&labs))? {
        let path = entry?.path();
        if path.join("Cargo.toml").exists() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Every lab, by track, order and name. One whose manifest does not say what it should is left out, aloud.
pub(crate) fn all() -> anyhow::Result<Vec<Lab>> {
    let mut labs = Vec::new();
    for folder in folders()? {
        match Lab::read(&folder) {
            Ok(lab) => labs.push(lab),
            Err(e) => {
                report::complain(&format!("{e:#}\n  left out; `cargo xtask tidy` says what it should have"))
            }
        }
    }
    let track = |lab: &Lab| TRACKS.iter().position(|t| *t == lab.meta.track).unwrap_or(TRACKS.len());
    labs.sort_by_key(|l| (track(l), l.meta.track.clone(), l.meta.order, l.name.clone()));
    Ok(labs)
}

/// The lab called `name`; else an error that names the nearest ones.
pub(crate) fn find(name: &str) -> anyhow::Result<Lab> {
    let labs = all()?;
    if let Some(lab) = labs.iter().find(|l| l.name == name) {
        return Ok(lab.clone());
    }
    let near = nearest(name, labs.iter().map(|l| l.name.as_str()));
    if near.is_empty() {
        bail!(Usage(format!("there is no lab {name:?}\n  cargo xtask list shows what there is")));
    }
    bail!(Usage(format!("there is no lab {name:?}; did you mean {}?", near.join(" or "))))
}

/// Up to three names that `wrong` may have meant.
fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(usize, &str)> = names
        .map(|n| (if n.contains(wrong) || wrong.contains(n) { 0 } else { distance(wrong, n) }, n))
        .filter(|(d, n)| *d <= n.len().max(wrong.len()) / 2)
        .collect();
    near.sort();
    near.into_iter().take(3).map(|(_, n)| n).collect()
}

/// How many letters to change, add or take away to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The names of findings that some of the labs need or want.
pub(crate) fn named(labs: &[Lab]) -> Vec<&str> {
    labs.iter().flat_map(|l| l.meta.needs.iter().chain(&l.meta.wants)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let labs = ["kvm-hello", "echo", "elf-core", "pidfd-spawn", "rseq-spinlock"];
        assert_eq!(nearest("kvm", labs.into_iter()), ["kvm-hello"]);
        assert_eq!(nearest("kvm-helo", labs.into_iter()), ["kvm-hello"]);
        assert_eq!(nearest("ecko", labs.into_iter()), ["echo"]);
        assert_eq!(nearest("pidfd-sprawn", labs.into_iter()), ["pidfd-spawn"]);
        assert_eq!(nearest("zzzzzzzzzz", labs.into_iter()), [""; 0]);
    }

    #[test]
    fn edit_distance() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
