//! `cargo xtask warm`: builds all that a meeting needs, so that nobody waits in it.

use std::time::Instant;

use anyhow::bail;

use crate::{paths, report};

/// What is built after the labs.
const BUILDS: [(&str, &[&str]); 2] = [
    ("tests", &["test", "--workspace", "--no-run"]),
    ("benches", &["bench", "--package", "benches", "--no-run"]),
];

pub(crate) fn run() -> anyhow::Result<u8> {
    for lab in crate::labs::all()? {
        // One by one, as features are unified over what is built together: `run` must find nothing to do.
        cargo(&lab.name, &["build", "--release", "--package", &lab.name])?;
    }
    for (what, arguments) in BUILDS {
        cargo(what, arguments)?;
    }
    report::print("all is built\n")?;
    Ok(0)
}

fn cargo(what: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let start = Instant::now();
    let status = paths::cargo().args(arguments).status()?;
    if !status.success() {
        bail!("{what}: cargo {} failed (see above)", arguments.join(" "));
    }
    report::note(&format!("ok  {what:14} {:6.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}
