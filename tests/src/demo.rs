//! A small checkout for the tests of `cargo xtask homework`: the kit, and one lab with two exercises.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{ran, root, target, xtask};

/// A checkout in a folder of its own. All share one room, in which what is built stays.
pub struct Demo {
    temp: tempfile::TempDir,
}

/// A checkout of the demo lab, or why there can be none.
///
/// # Errors
/// Where cargo cannot build here.
///
/// # Panics
/// If files cannot be copied.
pub fn demo() -> Result<Demo, String> {
    if let Some(why) = crate::obstacle() {
        return Err(why);
    }
    // Builds it, so that it can be run without cargo: in a checkout that has no xtask of its own.
    let (code, _, stderr) = ran(xtask(&root(), &["--version"]));
    assert_eq!(code, Some(0), "{stderr}");
    let demo = Demo { temp: tempfile::tempdir().expect("a temporary folder") };
    let to = demo.root();
    fs::create_dir_all(to.join("labs")).expect("a folder");
    for file in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        fs::copy(root().join(file), to.join(file)).expect("copied");
    }
    copy(&root().join("kit"), &to.join("kit"));
    copy(&root().join("tests/demo"), &to.join("labs/demo"));
    // Something that this machine lacks, so that a test cannot be run here.
    let lacks = kit::probe::findings(&kit::probe::NAMES)
        .into_iter()
        .find(|f| !f.works())
        .map_or("rseq.slice", |f| f.name);
    demo.edit("labs/demo/exercises/exercises.toml", "@MISSING@", lacks);
    Ok(demo)
}

impl Demo {
    /// The checkout.
    pub fn root(&self) -> PathBuf {
        self.temp.path().join("checkout")
    }

    /// A folder beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// A file of the demo lab's exercises.
    pub fn exercise(&self, file: &str) -> PathBuf {
        self.root().join("labs/demo/exercises").join(file)
    }

    /// Replaces words in a file.
    ///
    /// # Panics
    /// If they are not there.
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.root().join(file);
        let text = fs::read_to_string(&path).expect("the file is there");
        assert!(text.contains(from), "{file} has no {from:?}");
        fs::write(path, text.replace(from, to)).expect("written");
    }

    /// `cargo xtask homework …` in it: exit code, standard output, standard error.
    pub fn homework(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        ran(self.command(&self.root(), arguments))
    }

    /// The same, of another checkout, to be run.
    pub fn command(&self, checkout: &Path, arguments: &[&str]) -> Command {
        let mut command = xtask(checkout, &[]);
        let mut direct = Command::new(target().join("debug/xtask"));
        direct.arg("homework").args(arguments).current_dir(checkout).stdin(std::process::Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => direct.env(name, value),
                None => direct.env_remove(name),
            };
        }
        command = direct;
        command.env("CARGO_MANIFEST_DIR", checkout.join("xtask"));
        command.env("BENCHTOP_HOMEWORK", Self::kept());
        command
    }

    /// Where the demo's room is.
    pub fn kept() -> PathBuf {
        target().join("homework-tests")
    }
}

/// Copies a folder.
///
/// # Panics
/// If it cannot.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            if entry.file_name() != "target" {
                copy(&entry.path(), &target);
            }
        } else if kind.is_file() {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}
