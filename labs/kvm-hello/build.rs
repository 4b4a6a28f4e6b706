//! A shorter start: `--quick` is held against a C program, and a good part of both is starting and ending.
//!
//! Finding, mapping and relocating shared libraries costs a Rust binary about as much as creating a VM. So the
//! binary is linked statically, at a fixed address, where the C compiler has its libraries as archives (Debian's
//! libc6-dev does); elsewhere it is linked as usual, and starts a little later.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// What rustc asks the linker for by `-l`, and the archives that hold it.
const LIBRARIES: [(&str, &[&str]); 3] = [
    ("c", &["libc.a", "libgcc_eh.a", "libgcc.a"]),
    ("m", &["libm.a"]),
    ("gcc_s", &["libgcc_eh.a", "libgcc.a", "libc.a"]),
];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let is_gnu = env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|e| e == "gnu");
    let is_native = env::var("TARGET").ok() == env::var("HOST").ok();
    if !(is_gnu && is_native) {
        return Ok(());
    }
    let Some(scripts) =
        LIBRARIES.iter().map(|(name, archives)| script(name, archives)).collect::<Option<Vec<_>>>()
    else {
        return Ok(());
    };
    for (file, text) in scripts {
        fs::write(out.join(file), text)?;
    }
    // The linker looks here before its own folders, and finds scripts that name archives where it would find
    // shared libraries. For the binary only: tests and benches are linked as usual.
    println!("cargo::rustc-link-arg-bins=-L{}", out.display());
    println!("cargo::rustc-link-arg-bins=-static");
    println!("cargo::rustc-link-arg-bins=-no-pie");
    Ok(())
}

/// A linker script (ld(1), GROUP) for `-lname`; none where an archive is not installed.
fn script(name: &str, archives: &[&str]) -> Option<(String, String)> {
    let paths: Vec<String> = archives.iter().map(|a| installed(a)).collect::<Option<_>>()?;
    Some((format!("lib{name}.so"), format!("GROUP ( {} )\n", paths.join(" "))))
}

/// Where the C compiler would find an archive, if it has it.
fn installed(archive: &str) -> Option<String> {
    let asked = Command::new("cc").arg(format!("-print-file-name={archive}")).output().ok()?;
    let path = String::from_utf8(asked.stdout).ok()?.trim().to_owned();
    // Not found, the compiler repeats the bare name.
    (Path::new(&path).is_absolute() && Path::new(&path).exists()).then_some(path)
}
