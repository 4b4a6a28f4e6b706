//! How can a program see every system call, and why is it safe? Arguments and narration; the mechanism is in the
//! library.

mod args;
mod show;
mod show_gallery;
mod show_syscalls;

use std::process::ExitCode;

use args::{Options, View};
use kit::Session;

fn main() -> ExitCode {
    kit::main!(run)
}

fn run(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    if let Some(exhibit) = &o.verifier {
        return show_gallery::show(s, exhibit);
    }
    match o.view()? {
        None | Some(View::Syscalls) => show_syscalls::show(s, o),
    }
}
