//! Instruction counts of the CPU-only parts, by callgrind, held against those that are stored: a regression check that no
//! noise touches.
//!
//! The counts depend on the compiler and the C library, so both are stored beside them, and counts of another
//! compiler are not judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::settings;
use crate::{exit, paths, report};

/// A count may change by this share of itself.
const TOLERANCE: f64 = 0.02;

/// What is stored: `benches/instructions.json`.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    compiler: String,
    libc: String,
    arch: String,
    counts: BTreeMap<String, u64>,
}

/// Counts, and says what has changed by more than 2 %; with `accept` stores what was counted.
pub(super) fn run(accept: bool) -> anyhow::Result<u8> {
    if benches::peers::find("valgrind").is_none() {
        let why = "without valgrind no instructions are counted: apt install valgrind";
        let required = std::env::var("BENCHTOP_REQUIRE").unwrap_or_default();
        if required.split(',').any(|r| r == "valgrind") {
            bail!("{why}\n  BENCHTOP_REQUIRE names valgrind");
        }
        report::note(&format!("SKIPPED  {why}"));
        return Ok(0);
    }
    let now = count()?;
    let path = paths::root().join("benches/instructions.json");
    if accept {
        kit::run::write_whole(&path, &(serde_json::to_string_pretty(&now)? + "\n"))?;
        report::print(&format!("stored {} counts in {}\n", now.counts.len(), paths::shown(&path)))?;
        return Ok(0);
    }
    let text = std::fs::read_to_string(&path).with_context(|| paths::shown(&path))?;
    let stored: Stored = serde_json::from_str(&text).with_context(|| paths::shown(&path))?;
    let unlike = unlike(&stored, &now);
    if !unlike.is_empty() {
        report::note(&format!(
            "SKIPPED  counts are stored for {}\n  cargo xtask bench --instructions --accept stores those of here",
            unlike.join("; ")
        ));
    }
    let (table, changed) = judge(&stored, &now);
    report::print(&table)?;
    if changed.is_empty() || !unlike.is_empty() {
        return Ok(0);
    }
    report::complain(&format!(
        "{} changed by more than {:.0} %\n  if that is meant: cargo xtask bench --instructions --accept",
        changed.join(", "),
        100.0 * TOLERANCE
    ));
    Ok(exit::FAILED)
}

/// Because of what the counts cannot be compared.
fn unlike(stored: &Stored, now: &Stored) -> Vec<String> {
    let all = [(&stored.compiler, &now.compiler), (&stored.libc, &now.libc), (&stored.arch, &now.arch)];
    all.into_iter().filter(|(a, b)| a != b).map(|(a, b)| format!("{a}, this is {b}")).collect()
}

/// A line a count, and which changed by more than is tolerated, appeared or went.
fn judge(stored: &Stored, now: &Stored) -> (String, Vec<String>) {
    let (mut table, mut changed) = (String::new(), Vec::new());
    let names: std::collections::BTreeSet<&String> = stored.counts.keys().chain(now.counts.keys()).collect();
    for name in names {
        let (before, after) = (stored.counts.get(name), now.counts.get(name));
        let (words, large) = match (before, after) {
            (Some(b), Some(a)) => {
                let change = *a as f64 / (*b).max(1) as f64 - 1.0;
                (format!("{b:>12} {a:>12}  {:+.2} %", 100.0 * change), change.abs() > TOLERANCE)
            }
            (Some(b), None) => (format!("{b:>12} {:>12}  gone", "-"), true),
            (None, after) => (format!("{:>12} {:>12}  new", "-", after.copied().unwrap_or(0)), true),
        };
        table += &format!("{:4}  {name:44} {words}\n", if large { "!" } else { "ok" });
        if large {
            changed.push(name.clone());
        }
    }
    (table, changed)
}

fn count() -> anyhow::Result<Stored> {
    let program = build()?;
    let folder = std::env::temp_dir().join(format!("benchtop-callgrind-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let counts = callgrind(&program, &folder);
    std::fs::remove_dir_all(&folder)?;
    let machine = kit::machine::Machine::fingerprint(paths::root());
    let compiler = settings::rustc().context("rustc does not tell its version")?;
    Ok(Stored { compiler, libc: machine.libc, arch: machine.arch, counts: counts? })
}

/// The program that does what is counted, built; where it is.
fn build() -> anyhow::Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let mut cargo = paths::cargo();
    cargo.args(["bench", "--quiet", "--package", "benches", "--bench", "instructions", "--no-run"]);
    let out = cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(out.status.success(), "cargo bench --bench instructions failed (see above)");
    let text = String::from_utf8_lossy(&out.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    messages.filter_map(|m| m.executable).next_back().context("cargo has built no program")
}

fn callgrind(program: &Path, folder: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let file = folder.join("out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]);
    valgrind.arg(format!("--callgrind-out-file={}", file.display())).arg(program);
    // The C library has a memcpy for each kind of CPU: always the plain one.
    valgrind.env(
        "GLIBC_TUNABLES",
        "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM,-AVX_Fast_Unaligned_Load,-SSSE3",
    );
    let out = valgrind.stdin(Stdio::null()).output()?;
    if !out.status.success() {
        bail!("valgrind: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    }
    let counts = parse(&std::fs::read_to_string(file)?);
    anyhow::ensure!(!counts.is_empty(), "callgrind saw none of the functions called counted_…");
    Ok(counts)
}

/// Inclusive counts of the functions called `counted_…`, out of callgrind's file: below a line `fn=`, lines of a
/// position and a count are the function's own; a line `calls=` is followed by one such with what the callee took.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            current = function.split_once("counted_").map(|(_, rest)| {
                rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
            });
        } else if let Some(name) = &current
            && line.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-' || c == '*')
            && let Some(count) = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok())
        {
            *counts.entry(name.clone()).or_insert(0) += count;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_files_are_read_with_what_is_called() {
        let text = "version: 1\nevents: Ir\n\nfl=a.rs\nfn=b::counted_one\n10 5\n11 7\ncfn=c\ncalls=3 20\n12 100\n\
                    fn=other\n1 999\nfn=b::counted_two::h1234\n1 2\n";
        let expected = [("one".to_owned(), 112), ("two".to_owned(), 2)];
        assert_eq!(parse(text), expected.into_iter().collect());
    }

    #[test]
    fn more_than_two_percent_is_a_change_and_so_is_a_function_that_is_gone() {
        let of = |counts: &[(&str, u64)]| Stored {
            counts: counts.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect(),
            ..Stored::default()
        };
        let stored = of(&[("same", 1000), ("more", 1000), ("less", 1000), ("gone", 5)]);
        let now = of(&[("same", 1019), ("more", 1021), ("less", 900), ("new", 1)]);
        assert_eq!(judge(&stored, &now).1, ["gone", "less", "more", "new"]);
        assert_eq!(judge(&stored, &stored).1, [""; 0]);
    }

    #[test]
    fn another_compiler_is_not_compared() {
        let a = Stored { compiler: "rustc 1".into(), ..Stored::default() };
        let b = Stored { compiler: "rustc 2".into(), ..Stored::default() };
        assert_eq!(unlike(&a, &b), ["rustc 1, this is rustc 2"]);
        assert_eq!(unlike(&a, &a), [""; 0]);
    }
}
