//! `cargo xtask run LAB`: builds that lab, then becomes it.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use kit::probe;

use crate::labs::{self, Lab};
use crate::{Usage, bpf, exit, paths, report};

/// What follows LAB is the lab's, with or without `--` before it.
const HELP: &str = "\
Options of every lab:
  --step  --big  --quick  -v  --no-color  --json
  --report FILE.html  --save FILE  --replay [FILE]
and the lab's own: cargo xtask run LAB --help";

#[derive(Debug, Args)]
#[command(override_usage = "cargo xtask run LAB [--elevate] [--] [OPTIONS OF THE LAB]", after_help = HELP)]
pub(crate) struct Options {
    /// The lab, then its options; --elevate runs its binary, only that, by sudo
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "LAB")]
    words: Vec<OsString>,
}

pub(crate) fn run(options: Options) -> anyhow::Result<u8> {
    let Words { lab, elevate, args } = Words::sort(options.words)?;
    let lab = labs::find(&lab)?;
    if !bpf::refresh(&lab.folder)? {
        return Ok(exit::UNAVAILABLE);
    }
    let program = build(&lab)?;
    let mut command = if elevate && !is_root() { by_sudo(&lab, &program) } else { Command::new(&program) };
    // Becoming the lab passes on its exit code, its signals and the terminal, and costs nothing.
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("cannot run {:?}", command.get_program()))
}

/// A command line, sorted out.
#[derive(Debug, PartialEq)]
struct Words {
    lab: String,
    elevate: bool,
    args: Vec<OsString>,
}

impl Words {
    /// The first word without a dash is the lab. `--elevate` before a `--` is ours; the rest is the lab's.
    fn sort(words: Vec<OsString>) -> anyhow::Result<Self> {
        let mut sorted = Self { lab: String::new(), elevate: false, args: Vec::new() };
        let mut ours = true;
        for word in words {
            if ours && word == "--" {
                ours = false;
            } else if ours && word == "--elevate" {
                sorted.elevate = true;
            } else if sorted.lab.is_empty() && !word.as_encoded_bytes().starts_with(b"-") {
                sorted.lab = word.to_string_lossy().into_owned();
            } else {
                sorted.args.push(word);
            }
        }
        if sorted.lab.is_empty() {
            bail!(Usage("which lab?\n  cargo xtask list shows what there is".into()));
        }
        Ok(sorted)
    }
}

/// Builds one lab; its program, as cargo names it.
fn build(lab: &Lab) -> anyhow::Result<PathBuf> {
    let mut cargo = paths::cargo();
    cargo.args(["build", "--release", "--message-format=json-render-diagnostics", "--package", &lab.name]);
    if std::io::stderr().is_terminal() {
        // Its standard error goes through us (see `forward`), but ends on a terminal.
        cargo.env("CARGO_TERM_COLOR", "always");
        cargo.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "80");
    }
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (out, err) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
    let progress = std::thread::spawn(move || forward(err));
    let mut program = None;
    for line in BufReader::new(out).lines() {
        program = executable(&line?, &lab.name).or(program);
    }
    let status = child.wait()?;
    let _ = progress.join();
    if !status.success() {
        bail!("{} does not compile (see above); the other labs still run", lab.name);
    }
    program.with_context(|| format!("{} has no binary called {}", paths::shown(&lab.folder), lab.name))
}

/// The path that a message of cargo gives for the binary `name`.
fn executable(message: &str, name: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    let wanted =
        message["reason"] == "compiler-artifact" && target["name"] == name && target["kind"][0] == "bin";
    wanted.then(|| message["executable"].as_str().map(PathBuf::from))?
}

/// Passes cargo's progress on, but is silent if all it says is that there was nothing to do.
fn forward(mut from: impl Read) {
    let mut held = Vec::new();
    let mut buffer = [0; 4096];
    let mut talking = false;
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        held.extend_from_slice(&buffer[..n]);
        talking |= match held.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            Some(end) => !String::from_utf8_lossy(&held[..end]).contains("Finished"),
            None => false,
        };
        if talking {
            let _ = std::io::stderr().write_all(&held);
            held.clear();
        }
    }
}

/// The lab's program by sudo, after saying what and why.
fn by_sudo(lab: &Lab, program: &Path) -> Command {
    let names: Vec<&str> = lab.meta.needs.iter().chain(&lab.meta.wants).map(String::as_str).collect();
    let missing: Vec<_> = probe::findings(&names).iter().filter(|f| !f.works()).map(|f| f.name).collect();
    let why = if missing.is_empty() { "nothing that it names is missing".into() } else { missing.join(", ") };
    report::note(&format!(
        "xtask: running sudo {}\n  only this program becomes root; without it here: {why}",
        paths::shown(program)
    ));
    let mut sudo = Command::new("sudo");
    sudo.arg("--").arg(program);
    sudo
}

fn is_root() -> bool {
    // Our own files in /proc belong to the effective user.
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// `sudo cargo …` fills target/ with root's files, which the user's next build cannot replace.
pub(crate) fn refuse_cargo_under_sudo() -> anyhow::Result<()> {
    let Some(user) = std::env::var_os("SUDO_USER").filter(|u| u != "root") else { return Ok(()) };
    let owner = std::fs::metadata(paths::root()).map_or(0, |m| m.uid());
    if is_root() && owner != 0 {
        bail!(Usage(format!(
            "never cargo under sudo: what it builds here would belong to root\n  \
             as {}: cargo xtask run LAB --elevate   (builds as you, runs only the lab as root)",
            user.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(line: &str) -> (String, bool, Vec<String>) {
        let words = Words::sort(line.split(' ').map(OsString::from).collect()).unwrap();
        (words.lab, words.elevate, words.args.into_iter().map(|a| a.into_string().unwrap()).collect())
    }

    #[test]
    fn options_reach_the_lab_with_and_without_dashes() {
        let expected =
            |args: &[&str]| ("echo".to_owned(), false, args.iter().map(|a| (*a).to_owned()).collect());
        assert_eq!(sort("echo"), expected(&[]));
        assert_eq!(sort("echo --step --map"), expected(&["--step", "--map"]));
        assert_eq!(sort("echo -- --rate 5"), expected(&["--rate", "5"]));
        assert_eq!(sort("--json echo --replay x.json"), expected(&["--json", "--replay", "x.json"]));
        assert_eq!(sort("echo -- -- --elevate"), expected(&["--", "--elevate"]));
    }

    #[test]
    fn elevate_is_ours_unless_after_dashes() {
        assert_eq!(sort("echo --elevate --big"), ("echo".into(), true, vec!["--big".into()]));
        assert!(Words::sort(vec!["--step".into()]).is_err());
    }

    #[test]
    fn only_the_binary_of_the_lab_counts() {
        let artifact = |name: &str, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}","kind":["{kind}"]}},"executable":"/t/{name}"}}"#
            )
        };
        assert_eq!(executable(&artifact("echo", "bin"), "echo"), Some("/t/echo".into()));
        assert_eq!(executable(&artifact("echo", "lib"), "echo"), None);
        assert_eq!(executable(&artifact("kit", "bin"), "echo"), None);
        assert_eq!(executable("not json", "echo"), None);
    }
}
