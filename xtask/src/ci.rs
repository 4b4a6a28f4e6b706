//! `cargo xtask ci`: what a change must pass, besides the tests: format, lints, shape, BPF objects,
//! benches, exercises, links, book.

use std::time::Instant;

use crate::{bench, book, bpf, exit, homework, paths, report, tidy};

/// A step: its name, and what it does; an error ends the whole.
type Step = (&'static str, fn() -> anyhow::Result<()>);

const STEPS: [Step; 12] = [
    ("fmt", || cargo(&["fmt", "--all", "--check"])),
    ("tidy", tidy::check),
    // Objects of programs in C are committed; here they are made again.
    ("bpf", bpf::check),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])),
    // All at once, for the three steps that follow: built one by one, each leaves a CPU idle while it links.
    ("build", || cargo(&["bench", "--package", "benches", "--quiet", "--no-run", "--bench", "*"])),
    // Each bench runs once, unmeasured: it must work, not be fast.
    ("benches", || cargo(&["bench", "--package", "benches", "--quiet", "--", "--test"])),
    ("peers", bench::check_peers),
    // Counts that noise does not touch.
    ("counts", bench::check_instructions),
    ("figures", bench::check_readme),
    ("homework", homework::verify_all),
    ("links", book::check_links),
    ("book", || book::check_generated().and_then(|()| book::build(&[]))),
];

pub(crate) fn run() -> anyhow::Result<u8> {
    let mut summary = String::new();
    let mut failure = None;
    for (name, step) in STEPS {
        report::note(&format!("--- {name}"));
        let start = Instant::now();
        let done = step();
        let word = if done.is_ok() { "ok  " } else { "FAIL" };
        summary += &format!("{word}  {name:10} {:6.1} s\n", start.elapsed().as_secs_f64());
        if let Err(e) = done {
            failure = Some(e);
            break;
        }
    }
    report::print(&summary)?;
    let Some(e) = failure else { return Ok(0) };
    report::complain(&format!("{e:#}"));
    Ok(exit::FAILED)
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let status = paths::cargo().args(arguments).stdin(std::process::Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "cargo {} failed (see above)", arguments.join(" "));
    Ok(())
}
