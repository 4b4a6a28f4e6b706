//! How can a program see every system call, and why is it safe? Arguments and narration; the mechanism is in the
//! library.

mod args;
mod show;
mod show_attach;
mod show_exec;
mod show_gallery;
mod show_inside;
mod show_lesson;
mod show_offcpu;
mod show_open;
mod show_profile;
mod show_runq;
mod show_softirq;
mod show_stacks;
mod show_syscalls;
mod show_uprobe;

use std::process::ExitCode;

use args::{Options, View};
use bpf_trace::{TraceError, workload};
use kit::{Session, SysError, Unavailable};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if workload::part(&args) { ExitCode::SUCCESS } else { kit::main!(run) }
}

fn run(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    shown(s, o).map_err(explained)
}

/// An error of the library's as the kit tells them: a call, or what the machine lacks.
fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<TraceError>() {
        Ok(TraceError::Sys(e)) => e.into(),
        Ok(TraceError::Hook { hook, tried, source }) => {
            SysError::new(format!("cannot attach to {hook}"), source.errno).with_detail(tried).into()
        }
        Ok(TraceError::NoBtf(source)) => Unavailable {
            what: "this kernel tells no types (BTF), so where members are in its structures is unknown"
                .into(),
            why: source.to_string(),
            fix: vec![
                "fix: a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build theirs".into(),
                "--inside shows a program that needs none".into(),
            ],
        }
        .into(),
        Ok(other) => other.into(),
        Err(error) => error,
    }
}

fn shown(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    if let Some(exhibit) = &o.verifier {
        return show_gallery::show(s, exhibit);
    }
    if let Some(program) = &o.inside {
        return show_inside::show(s, program);
    }
    if o.attach_points {
        return show_attach::show(s);
    }
    match o.view()? {
        None if o.command.is_empty() && o.lab.is_none() => show_lesson::show(s),
        Some(View::Uprobe) => show_uprobe::show(s, o),
        Some(View::Exec) => show_exec::show(s, o),
        Some(View::Open) => show_open::show(s, o),
        None | Some(View::Syscalls) => show_syscalls::show(s, o),
        Some(View::Offcpu) => show_offcpu::show(s, o),
        Some(View::Profile) => show_profile::show(s, o),
        Some(View::Runq) => show_runq::show(s, o),
        Some(View::Softirq) => show_softirq::show(s, o),
    }
}
