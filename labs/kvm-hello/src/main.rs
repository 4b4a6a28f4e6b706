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
    #[arg(long)]
    exits: bool,
    /// A serial port, a timer and a device of our own
    #[arg(long)]
    devices: bool,
    /// Which pages the guest wrote; snapshots and clones
    #[arg(long)]
    dirty: bool,
    /// Guests that go wrong, and what the host sees of it
    #[arg(long, num_args = 0..=1, default_missing_value = "all", value_name = "WHICH",
          value_parser = ["loop", "triple-fault", "no-memory", "no-device", "no-code", "not-emulated", "all"])]
    misbehave: Option<String>,
    /// Show every exit
    #[arg(long)]
    trace: bool,
    /// Walk the guest instruction by instruction
    #[arg(long)]
    single_step: bool,
    /// How long a guest may run before it is taken back
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout: u64,
    /// Samples of each kind of exit, with --exits
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(20..=200_000))]
    samples: u32,
    /// Clones of one snapshot, with --dirty
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    clones: u64,
}

fn main() -> ExitCode {
    #[cfg(target_arch = "x86_64")]
    if std::env::args_os().skip(1).eq(["--quick"]) && show_hello::bare() {
        return ExitCode::SUCCESS;
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
    let views = [o.exits, o.devices, o.dirty, o.misbehave.is_some()].iter().filter(|v| **v).count();
    let guest_view = o.mode.is_some() || o.trace || o.single_step;
    if views > 1 || (views == 1 && guest_view) {
        return Err(
            kit::Usage("--exits, --devices, --dirty, --misbehave and --mode: one at a time".into()).into()
        );
    }
    let timeout = std::time::Duration::from_millis(o.timeout);
    if o.exits {
        return show_exits::tell(s, o.samples as usize);
    }
    if o.devices {
        return show_devices::tell(s, timeout);
    }
    if o.dirty {
        return show_dirty::tell(s, o.clones);
    }
    if let Some(which) = &o.misbehave {
        return show_misbehave::tell(s, which, timeout);
    }
    let watch = show_hello::Watching { every_exit: o.trace, every_instruction: o.single_step, timeout };
    match o.mode.as_deref() {
        None if s.quick() && !guest_view => show_hello::quick(s),
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
