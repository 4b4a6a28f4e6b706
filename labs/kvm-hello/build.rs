//! A shorter start: `--quick` is held against a C program, and a good part of both is starting and ending.
//!
//! What a Rust binary does besides loading libc costs about as much as creating a VM here: moving itself to
//! its random address, and loading the unwinder. Neither is needed for a hello, so the binary gets a fixed
//! address, and the unwinder is linked into it where the C compiler has it as an archive.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-no-pie");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,lazy");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    if let Some(archive) = installed("libgcc_eh.a") {
        // The linker looks for -lgcc_s here first, and finds a script that names the archive.
        let script = format!("INPUT ( {} )\n", archive.display());
        if fs::write(out.join("libgcc_s.so"), script).is_ok() {
            println!("cargo::rustc-link-search=native={}", out.display());
        }
    }
}

/// Where the C compiler would find a library, if it has it.
fn installed(archive: &str) -> Option<PathBuf> {
    let asked = Command::new("cc").arg(format!("-print-file-name={archive}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim());
    // Not found, the compiler repeats the bare name.
    (path.is_absolute() && path.exists()).then_some(path)
}
