//! Tests only: drives the kit as a user does, by `cargo xtask` in a checkout.

pub mod demo;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The checkout that is tested.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout").to_owned()
}

/// The cargo that runs the tests.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()
}

/// Why `cargo` cannot build in the checkout, if it cannot: a read-only checkout, another user's.
pub fn obstacle() -> Option<String> {
    let version = Command::new(cargo()).arg("--version").output();
    if let Err(e) = version {
        return Some(format!("cannot run cargo: {e}"));
    }
    let probe = target().join(format!(".probe-{}", std::process::id()));
    let written = std::fs::write(&probe, "");
    let _ = std::fs::remove_file(&probe);
    written.err().map(|e| format!("cannot write to {}: {e}", target().display()))
}

/// The folder that cargo builds in: this very test is somewhere below it.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(3).map_or_else(|| root().join("target"), Path::to_owned)
}

/// `cargo xtask …` in a checkout, with no terminal and no colour.
pub fn xtask(checkout: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo());
    command.arg("xtask").args(arguments).current_dir(checkout).env("CARGO_TARGET_DIR", target());
    command.stdin(std::process::Stdio::null());
    // What cargo tells a test about its own package is not about the packages that are built now.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it: exit code, standard output, standard error.
///
/// # Panics
/// If it cannot be started.
pub fn ran(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("cargo starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

/// The command lines of processes that have this word.
pub fn processes(word: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    let lines = lines.map(|l| String::from_utf8_lossy(&l).replace('\0', " "));
    lines.filter(|l| l.split_whitespace().any(|w| w == word)).collect()
}
