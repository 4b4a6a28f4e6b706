//! The room: a private copy of the workspace in which exercises are built and run.
//!
//! It holds the kit, the labs that have exercises, and nothing that a student must not see. Each lab is built there once,
//! by cargo, which also says how it would build each spec ([`Room::calls`]); then any number of files can be put in an
//! exercise's place and built by the same call of rustc, side by side, without cargo. Both the copy and what is built are
//! kept and used again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use super::catalogue::{self, Exercise};
use crate::{labs, paths, report};

/// See the module.
#[derive(Debug)]
pub(crate) struct Room {
    /// `target/homework`
    base: PathBuf,
    /// rustc itself, without rustup in between.
    rustc: PathBuf,
    /// Held as long as the room is used.
    _lock: File,
}

/// How cargo would build a spec: rustc's arguments and the variables that are about the package.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: BTreeMap<String, String>,
}

/// What cargo runs in place of rustc. It notes down how a spec would be built, and makes empty files instead.
const WRAPPER: &str = r#"#!/bin/sh
case "$2 $3" in
"--crate-name ex"[0-9]*)
    note="$BENCHTOP_CALLS/$CARGO_PKG_NAME-$3"
    printf '%s\0' "$@" >"$note.args"
    # Not env: this shell drops names that are not its own, such as CARGO_BIN_EXE_a-lab.
    cat /proc/$$/environ >"$note.env"
    name=$3
    for word; do
        case "$before $word" in
        "--out-dir "*) folder=$word ;;
        "-C extra-filename="*) extra=${word#extra-filename=} ;;
        esac
        before=$word
    done
    : >"$folder/$name$extra"
    : >"$folder/$name$extra.d"
    exit 0 ;;
esac
exec "$@"
"#;

impl Room {
    /// Makes it, or brings it up to date; waits if somebody else is in it.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let base = base();
        fs::create_dir_all(&base).with_context(|| paths::shown(&base))?;
        let lock = File::create(base.join("lock"))?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            report::note("waiting for another `cargo xtask homework` to end");
            lock.lock()?;
        }
        let mut sysroot = Command::new("rustc");
        let said =
            sysroot.args(["--print", "sysroot"]).current_dir(paths::root()).output().context("rustc")?;
        ensure!(said.status.success(), "rustc --print sysroot: {}", String::from_utf8_lossy(&said.stderr));
        let rustc = Path::new(String::from_utf8_lossy(&said.stdout).trim()).join("bin/rustc");
        let room = Self { base, rustc, _lock: lock };
        room.fill().context("cannot copy the workspace to build exercises in")?;
        Ok(room)
    }

    /// The copied workspace.
    pub(crate) fn root(&self) -> PathBuf {
        self.base.join("room")
    }

    /// Where one thing that is put in an exercise's place is kept, with what is built of it.
    pub(crate) fn place(&self, exercise: &Exercise, variant: &str) -> PathBuf {
        self.base.join("variants").join(&exercise.lab).join(format!("{}-{variant}", exercise.id))
    }

    /// What cargo builds of it.
    pub(crate) fn target(&self) -> PathBuf {
        self.base.join("build")
    }

    /// The toolchain's own folder.
    pub(crate) fn toolchain(&self) -> PathBuf {
        self.rustc.ancestors().nth(2).unwrap_or(&self.rustc).to_owned()
    }

    pub(crate) fn rustc(&self) -> &Path {
        &self.rustc
    }

    fn fill(&self) -> anyhow::Result<()> {
        let (from, to) = (paths::root(), self.root());
        let mut members = vec!["\"kit\"".to_owned()];
        let mut wanted = vec!["kit".to_owned()];
        for lab in labs::all()? {
            if catalogue::file(&lab.folder).exists() {
                members.push(format!("\"labs/{}\"", lab.name));
                wanted.push(lab.name.clone());
                copy(&lab.folder, &to.join("labs").join(&lab.name))?;
            }
        }
        copy(&from.join("kit"), &to.join("kit"))?;
        for entry in fs::read_dir(to.join("labs")).into_iter().flatten() {
            let entry = entry?;
            if !wanted.contains(&entry.file_name().to_string_lossy().into_owned()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let manifest = fs::read_to_string(from.join("Cargo.toml")).context("Cargo.toml")?;
        let members = format!("members = [{}]", members.join(", "));
        let lines: Vec<_> =
            manifest.lines().map(|l| if l.starts_with("members =") { members.as_str() } else { l }).collect();
        write(&to.join("Cargo.toml"), &(lines.join("\n") + "\n"))?;
        copy_file(&from.join("Cargo.lock"), &to.join("Cargo.lock"))?;
        let wrapper = self.base.join("rustc.sh");
        write(&wrapper, WRAPPER)?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(self.base.join("calls"))?;
        Ok(())
    }

    /// Builds a lab with all that its specs need, and says how each spec is to be built.
    pub(crate) fn calls(&self, lab: &str, exercises: &[Exercise]) -> anyhow::Result<BTreeMap<String, Call>> {
        let mut cargo = paths::cargo();
        cargo.current_dir(self.root()).args(["test", "--no-run", "--package", lab]);
        for exercise in exercises {
            cargo.args(["--test", &exercise.id]);
        }
        for (name, _) in std::env::vars_os() {
            // What `cargo run` says of xtask is not about the lab.
            if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
                cargo.env_remove(name);
            }
        }
        cargo.env("CARGO_TARGET_DIR", self.target());
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
        cargo.env("RUSTC_WORKSPACE_WRAPPER", self.base.join("rustc.sh"));
        cargo.env("BENCHTOP_CALLS", self.base.join("calls"));
        if exercises.iter().any(|e| !self.note(lab, &e.id).with_extension("args").exists()) {
            report::note(&format!("building {lab} and what it needs: the first time, a minute or two"));
        }
        let mut said = tempfile()?;
        cargo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone()?);
        let status = cargo.status().context("cannot run cargo")?;
        if !status.success() {
            let mut text = String::new();
            said.rewind()?;
            said.read_to_string(&mut text)?;
            bail!("{lab} itself does not build:\n{text}");
        }
        exercises.iter().map(|e| Ok((e.id.clone(), self.call(lab, &e.id)?))).collect()
    }

    /// Where cargo's call for a spec is noted down.
    fn note(&self, lab: &str, id: &str) -> PathBuf {
        self.base.join("calls").join(format!("{lab}-{id}"))
    }

    fn call(&self, lab: &str, id: &str) -> anyhow::Result<Call> {
        let note = self.note(lab, id);
        let read = |ending: &str| -> anyhow::Result<Vec<String>> {
            let path = note.with_extension(ending);
            let text = fs::read(&path)
                .with_context(|| format!("cargo did not build the spec: {}", paths::shown(&path)))?;
            let words = text.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
            Ok(words.filter(|w| !w.is_empty()).collect())
        };
        // Not cargo's jobserver, whose descriptors only its own children have.
        let about_it =
            |name: &str| (name.starts_with("CARGO") && name != "CARGO_MAKEFLAGS") || name == "OUT_DIR";
        let variables = read("env")?
            .iter()
            .filter_map(|v| v.split_once('='))
            .filter(|(name, _)| about_it(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Call { arguments: read("args")?.split_off(1), variables })
    }
}

/// Where all of it is kept: `target/homework`, or what `BENCHTOP_HOMEWORK` says.
pub(crate) fn base() -> PathBuf {
    if let Some(base) = std::env::var_os("BENCHTOP_HOMEWORK") {
        return base.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    paths::root().join(target).join("homework")
}

/// A file without a name.
fn tempfile() -> anyhow::Result<File> {
    let path = base().join(format!("said-{}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// What of a lab or the kit is not copied: what gives the answer away, and what specs do not use.
const LEFT_OUT: [&str; 5] = ["solutions", "wrong", "target", "recordings", "fuzz"];

/// Makes `to` the same as `from`, and touches nothing that is so already: cargo builds again what is newer.
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    let mut kept = Vec::new();
    for entry in fs::read_dir(from).with_context(|| paths::shown(from))? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let words = name.to_string_lossy();
        if LEFT_OUT.contains(&words.as_ref()) || words.starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            copy(&entry.path(), &to.join(&name))?;
        } else if kind.is_file() {
            copy_file(&entry.path(), &to.join(&name))?;
        } else {
            continue;
        }
        kept.push(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !kept.contains(&entry.file_name()) {
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?
            } else {
                fs::remove_file(entry.path())?
            }
        }
    }
    Ok(())
}

/// A file's copy, readable by everybody: in a sandbox it is read by somebody else.
fn copy_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let text = fs::read(from).with_context(|| paths::shown(from))?;
    if fs::read(to).ok().as_ref() != Some(&text) {
        fs::write(to, text)?;
        let mode = fs::metadata(from)?.permissions().mode() | 0o444;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Writes a file if it does not say that already.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text)?;
    }
    Ok(())
}
