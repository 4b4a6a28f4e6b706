//! Why is a PID not a handle, and what is? Arguments and narration; the mechanism is in the library.

#[cfg(target_arch = "x86_64")]
mod show_getfd;
#[cfg(target_arch = "x86_64")]
mod show_race;
#[cfg(target_arch = "x86_64")]
mod show_rss;
#[cfg(target_arch = "x86_64")]
mod show_supervise;
#[cfg(target_arch = "x86_64")]
mod show_wait;
#[cfg(target_arch = "x86_64")]
mod show_ways;

use std::path::PathBuf;
use std::process::ExitCode;

use kit::Session;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of this lab")]
struct Options {
    /// Every way of creating a process: cost, abilities, errors; io_uring and std
    #[arg(long)]
    ways: bool,
    /// Every way of waiting for a thousand children; what else a pidfd can do
    #[arg(long)]
    wait: bool,
    /// Take a listening socket out of a running server
    #[arg(long)]
    getfd: bool,
    /// Run a supervisor over the services of a file (without one: a demonstration)
    #[arg(long, num_args = 0..=1, value_name = "FILE.toml")]
    supervise: Option<Option<PathBuf>>,
    /// With --supervise: kill so many of its processes at random, and account for each
    #[arg(long, value_name = "KILLS", requires = "supervise")]
    soak: Option<usize>,
    /// The cost of each way over the parent's memory, up to 1 GiB
    #[arg(long)]
    rss: bool,
}

fn main() -> ExitCode {
    match part() {
        None => kit::main!(run),
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(why)) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// What this program is when it runs itself as another process; `None`: it is the lab.
#[cfg(target_arch = "x86_64")]
fn part() -> Option<Result<(), String>> {
    use pidfd_spawn::{evidence, handover, supervise};
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    Some(match args.as_slice() {
        [first, file, root] if first == supervise::INNER => {
            supervise::guard::inner(file.as_ref(), root.as_ref())
        }
        [first, how] if first == evidence::STD_ONCE => {
            evidence::std_once(how == "pre_exec").map_err(|e| e.to_string())
        }
        [first] if first == handover::OLD_SERVER => handover::old_server().map_err(|e| e.to_string()),
        _ => return None,
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn part() -> Option<Result<(), String>> {
    None
}

/// For a part of ours that runs as another process: its errors, on its standard error.
fn complain(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{why}");
}

#[cfg(not(target_arch = "x86_64"))]
fn run(_: &mut Session, _: &Options) -> anyhow::Result<()> {
    Err(kit::Unavailable {
        what: "this lab enters the kernel by hand, on x86-64 only".into(),
        why: format!("this machine is {}", std::env::consts::ARCH),
        fix: vec!["run it on an x86-64 machine".into()],
    }
    .into())
}

#[cfg(target_arch = "x86_64")]
fn run(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let views = [o.ways, o.wait, o.getfd, o.supervise.is_some(), o.rss].iter().filter(|v| **v).count();
    if views > 1 {
        return Err(kit::Usage("--ways, --wait, --getfd, --supervise and --rss: one at a time".into()).into());
    }
    raise_descriptor_limit();
    if o.ways {
        show_ways::tell(s)
    } else if o.wait {
        show_wait::tell(s)
    } else if o.getfd {
        show_getfd::tell(s)
    } else if let Some(file) = &o.supervise {
        show_supervise::tell(s, file.as_deref(), o.soak)
    } else if o.rss {
        show_rss::tell(s)
    } else {
        show_race::tell(s)
    }
}

/// A thousand children are a thousand pidfds: the soft limit of many systems is 1024.
#[cfg(target_arch = "x86_64")]
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 16), hard);
    }
}
