//! What is a virtual machine, from outside? Arguments and narration; the machine is in the library.

#[cfg(target_arch = "x86_64")]
mod draw;
#[cfg(target_arch = "x86_64")]
mod show_devices;
#[cfg(target_arch = "x86_64")]
mod show_dirty;
#[cfg(target_arch = "x86_64")]
mod show_exits;
#[cfg(target_arch = "x86_64")]
mod show_hello;
#[cfg(target_arch = "x86_64")]
mod show_misbehave;
#[cfg(target_arch = "x86_64")]
mod show_modes;
#[cfg(target_arch = "x86_64")]
mod show_paging;

use std::process::ExitCode;

use kit::Session;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of this lab")]
struct Options {
    /// The processor's mode when the guest starts; `all` compares them
    #[arg(long, value_parser = ["real", "protected", "paging32", "long", "user", "all"])]
    mode: Option<String>,
    /// What each kind of exit costs
    #[arg(long, conflicts_with_all = ["devices", "dirty", "misbehave", "mode", "trace", "single_step", "timeout"])]
    exits: bool,
    /// A serial port, a timer and a device of our own
    #[arg(long, conflicts_with_all = ["dirty", "misbehave", "mode", "trace", "single_step"])]
    devices: bool,
    /// Which pages the guest wrote; snapshots and clones
    #[arg(long, conflicts_with_all = ["misbehave", "mode", "trace", "single_step", "timeout"])]
    dirty: bool,
    /// Guests that go wrong, and what the host sees of it
    #[arg(long, num_args = 0..=1, default_missing_value = "all", value_name = "WHICH",
          value_parser = ["loop", "triple-fault", "no-memory", "no-device", "no-code", "not-emulated", "all"],
          conflicts_with_all = ["mode", "trace", "single_step"])]
    misbehave: Option<String>,
    /// Show every exit
    #[arg(long)]
    trace: bool,
    /// Walk the guest instruction by instruction
    #[arg(long)]
    single_step: bool,
    /// How long a guest may run before it is taken back [default: 1000, with --devices 5000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout: Option<u64>,
    /// Samples of each kind of exit, with --exits
    #[arg(long, value_name = "N", requires = "exits", conflicts_with_all = ["devices", "dirty", "misbehave", "mode", "trace", "single_step"], default_value_t = 2000, value_parser = clap::value_parser!(u32).range(20..=200_000))]
    samples: u32,
    /// Clones of one snapshot, with --dirty
    #[arg(long, value_name = "N", requires = "dirty", conflicts_with_all = ["exits", "devices", "misbehave", "mode", "trace", "single_step"], default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    clones: u64,
}

fn main() -> ExitCode {
    #[cfg(target_arch = "x86_64")]
    if std::env::args_os().skip(1).eq(["--quick"])
        && let Some(text) = show_hello::bare()
    {
        return show_hello::print(&text);
    }
    kit::main!(run)
}

#[cfg(not(target_arch = "x86_64"))]
fn run(_: &mut Session, _: &Options) -> anyhow::Result<()> {
    Err(kit::Unavailable {
        what: "the guests of this lab are x86-64 programs".into(),
        why: format!("this machine is {}", std::env::consts::ARCH),
        fix: vec!["run it on an x86-64 machine with KVM".into()],
    }
    .into())
}

#[cfg(target_arch = "x86_64")]
fn run(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    tell(s, o).map_err(|e| match e.downcast::<kvm_hello::error::Error>() {
        // The frame knows what to say about a failed call, so it gets the call itself.
        Ok(kvm_hello::error::Error::Sys(call)) => call.into(),
        Ok(other) => other.into(),
        Err(e) => e,
    })
}

#[cfg(target_arch = "x86_64")]
fn tell(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    use kvm_hello::mode::Mode;
    if o.exits {
        return show_exits::tell(s, o.samples as usize);
    }
    if o.dirty {
        return show_dirty::tell(s, o.clones);
    }
    let ms = o.timeout.unwrap_or(if o.devices { 5000 } else { 1000 });
    let timeout = std::time::Duration::from_millis(ms);
    s.param("timeout_ms", ms);
    if o.devices {
        return show_devices::tell(s, timeout);
    }
    if let Some(which) = &o.misbehave {
        s.param("misbehave", which.as_str());
        return show_misbehave::tell(s, which, timeout);
    }
    s.param("trace", o.trace);
    s.param("single_step", o.single_step);
    let watch = show_hello::Watching { every_exit: o.trace, every_instruction: o.single_step, timeout };
    match o.mode.as_deref() {
        None if s.quick() && !o.trace && !o.single_step => show_hello::quick(s, timeout),
        None => show_hello::tell(s, watch),
        Some("all") if o.trace || o.single_step => {
            Err(kit::Usage("--trace and --single-step follow one mode: name it".into()).into())
        }
        Some("all") => show_modes::compare(s, timeout),
        Some(name) => {
            let mode = Mode::ALL.into_iter().find(|m| m.name() == name).unwrap_or(Mode::Real);
            show_modes::tell(s, mode, watch)
        }
    }
}
