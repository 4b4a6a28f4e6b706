//! Programs that labs are held against, and where they come from.

use std::path::PathBuf;
use std::process::Command;

/// Programs and their Debian packages, and which labs use them.
pub const PROGRAMS: [(&str, &str, &[&str]); 12] = [
    ("bpftrace", "bpftrace", &["bpf-trace"]),
    ("cc", "build-essential", &["echo", "kvm-hello"]),
    ("chrt", "util-linux", &["bpf-trace"]),
    ("dd", "coreutils", &["bpf-trace"]),
    ("eu-readelf", "elfutils", &["elf-core"]),
    ("eu-stack", "elfutils", &["elf-core"]),
    ("gdb", "gdb", &["elf-core"]),
    ("parallel", "parallel", &["pidfd-spawn"]),
    ("perf", "linux-perf", &["bpf-trace", "echo", "elf-core", "kvm-hello", "pidfd-spawn"]),
    ("strace", "strace", &["bpf-trace"]),
    ("taskset", "util-linux", &["bpf-trace"]),
    ("xargs", "findutils", &["pidfd-spawn"]),
];

/// Where a program is, by PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Programs that a lab is held against and that are not there, each with its package.
pub fn missing(lab: &str) -> Vec<(&'static str, &'static str)> {
    let wanted = PROGRAMS.iter().filter(|(_, _, labs)| labs.contains(&lab));
    wanted
        .filter(|(program, ..)| find(program).is_none())
        .map(|(program, package, _)| (*program, *package))
        .collect()
}

/// Why a program could not be started, with what to install if it is not there.
pub fn failed(program: &str, error: &std::io::Error) -> String {
    let package = PROGRAMS.iter().find(|(name, ..)| *name == program).map(|(_, package, _)| *package);
    match package {
        Some(package) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("{program} is not installed (Debian: apt install {package})")
        }
        _ => format!("{program}: {error}"),
    }
}

/// A lab's own program, as users run it: built where this bench was.
pub fn lab(name: &str) -> Result<PathBuf, String> {
    let built = release()?.join(name);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    match cargo.args(["build", "--quiet", "--release", "--package", name]).status() {
        Ok(status) if status.success() => Ok(built),
        Ok(status) => Err(format!("cargo build: {status}")),
        Err(e) => Err(format!("cargo build: {e}")),
    }
}

/// The folder of what is built for release, in which this bench is.
pub fn release() -> Result<PathBuf, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    Ok(me.ancestors().nth(2).ok_or("an unusual target folder")?.to_owned())
}
