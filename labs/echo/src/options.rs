//! The lab's options, and what they ask for.

use std::net::SocketAddr;
use std::time::Duration;

use echo::control::Target;
use echo::load::{Arrivals, Load, Payload};
use echo::measure::{Cpus, Host, Pair};
use echo::server;
use echo::spec::{Knobs, Spec, Taskrun};
use kit::{Session, SysError};

/// Where the ring's deferred work is done.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum TaskrunArg {
    /// Whenever it comes up
    None,
    /// At the next system call (COOP_TASKRUN)
    Coop,
    /// While waiting in io_uring_enter (DEFER_TASKRUN)
    Defer,
}

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Sweep connections, payload and pattern: who wins where (about a minute)
    #[arg(long, group = "view")]
    pub map: bool,
    /// Add the io_uring knobs one after another: what each one bought
    #[arg(long, group = "view")]
    pub knobs: bool,
    /// An open loop past saturation, beside a closed one
    #[arg(long, group = "view")]
    pub overload: bool,
    /// Only serve, on this address, until Ctrl-C (or --duration)
    #[arg(long, group = "view", value_name = "ADDR")]
    pub serve: Option<SocketAddr>,
    /// Only make load, for the server at this address
    #[arg(long, group = "view", value_name = "ADDR")]
    pub connect: Option<SocketAddr>,

    /// blocking, poll, epoll, epoll-et, oneshot, multishot, or io_uring (the best); knobs may follow with +
    #[arg(long, value_name = "SERVER", help_heading = "Server")]
    pub server: Option<Spec>,
    /// Where the ring's deferred work is done
    #[arg(long, help_heading = "Server")]
    pub taskrun: Option<TaskrunArg>,
    /// Sends that succeed post no completion
    #[arg(long, help_heading = "Server")]
    pub quiet_sends: bool,
    /// Connections live in the ring's own table of files
    #[arg(long, help_heading = "Server")]
    pub fixed_files: bool,
    /// A receive may fill several buffers
    #[arg(long, help_heading = "Server")]
    pub bundles: bool,
    /// Several buffers are sent by a bundle, not by a vectored send
    #[arg(long, help_heading = "Server")]
    pub send_bundles: bool,
    /// A kernel thread submits
    #[arg(long, help_heading = "Server")]
    pub sqpoll: bool,
    /// With --connect, on the same machine: the server's process, to read its CPU time
    #[arg(long, value_name = "PID", requires = "connect", value_parser = clap::value_parser!(i32).range(1..), help_heading = "Load")]
    pub server_pid: Option<i32>,
    /// Run servers as threads of this process, not as processes
    #[arg(long, help_heading = "Server")]
    pub in_process: bool,

    /// Connections (default 50; the default view shows 1, 50 and 500)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000), help_heading = "Load")]
    pub connections: Option<u32>,
    /// Bytes of a request (default 64)
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=64 << 20), help_heading = "Load")]
    pub payload: Option<u32>,
    /// Requests under way at once on a connection: 1 is ping-pong (default), more is streaming
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Load")]
    pub depth: Option<u16>,
    /// Open loop: requests a second, whatever the server does
    #[arg(long, value_name = "PER_SECOND", help_heading = "Load")]
    pub rate: Option<f64>,
    /// With --rate: random arrivals instead of equal distances
    #[arg(long, requires = "rate", help_heading = "Load")]
    pub poisson: bool,
    /// Seconds to serve or to make load
    #[arg(long, value_name = "SECONDS", help_heading = "Load")]
    pub duration: Option<f64>,
}

impl Options {
    /// Notes what shaped the run.
    pub fn note(&self, s: &mut Session) {
        s.param("payload", self.payload());
        s.param("depth", self.depth());
        if let Some(server) = self.server {
            s.param("server", server.to_string());
        }
        if let Some(n) = self.connections {
            s.param("connections", n);
        }
    }

    /// Refuses what the view asked for would ignore.
    ///
    /// # Errors
    /// [`kit::Usage`].
    pub fn check(&self) -> anyhow::Result<()> {
        const SERVER: &[&str] = &["--server", "--taskrun", "--quiet-sends and the like"];
        const LOAD: &[&str] = &["--connections", "--payload", "--depth"];
        let (view, takes): (&str, [&[&str]; 3]) = match self {
            Options { serve: Some(_), .. } => ("--serve", [SERVER, &["--duration"], &[]]),
            Options { connect: Some(_), .. } => ("--connect", [LOAD, &["--rate", "--duration"], &[]]),
            Options { map: true, .. } => ("--map", [SERVER, &["--in-process"], &[]]),
            Options { knobs: true, .. } => ("--knobs", [LOAD, &["--in-process"], &[]]),
            Options { overload: true, .. } => {
                ("--overload", [SERVER, &["--connections", "--payload"], &["--in-process"]])
            }
            _ => ("the default view", [SERVER, LOAD, &["--in-process"]]),
        };
        let knob = self.quiet_sends || self.fixed_files || self.bundles || self.send_bundles || self.sqpoll;
        let given = [
            (SERVER[0], self.server.is_some()),
            (SERVER[1], self.taskrun.is_some()),
            (SERVER[2], knob),
            (LOAD[0], self.connections.is_some()),
            (LOAD[1], self.payload.is_some()),
            (LOAD[2], self.depth.is_some()),
            ("--rate", self.rate.is_some()),
            ("--duration", self.duration.is_some()),
            ("--in-process", self.in_process),
        ];
        let takes = takes.concat();
        if let Some((name, _)) = given.iter().find(|(name, given)| *given && !takes.contains(name)) {
            return Err(kit::Usage(format!("{name}: {view} has no use for it")).into());
        }
        let compares = self.serve.is_none() && !self.overload;
        let kind = self.spec(if compares { Spec::IO_URING } else { Spec::EPOLL }).kind;
        if compares && !kind.is_uring() {
            let why =
                "is compared with epoll here, so it must be a server of io_uring; or --overload, --serve";
            return Err(kit::Usage(format!("--server {}: {why}", kind.name())).into());
        }
        if !kind.is_uring() && (knob || self.taskrun.is_some()) {
            return Err(kit::Usage(format!("{} has no ring, so no knobs either", kind.name())).into());
        }
        Ok(())
    }

    /// Bytes of a request.
    pub fn payload(&self) -> usize {
        self.payload.unwrap_or(64) as usize
    }

    /// Requests under way at once on a connection.
    pub fn depth(&self) -> usize {
        self.depth.map_or(1, usize::from)
    }

    /// The server asked for, or this one, with the knobs that were given besides.
    pub fn spec(&self, otherwise: Spec) -> Spec {
        let mut spec = self.server.unwrap_or(otherwise);
        let Knobs { taskrun, quiet_sends, fixed_files, bundles, send_bundles, sqpoll, .. } = &mut spec.knobs;
        match self.taskrun {
            None => {}
            Some(TaskrunArg::None) => *taskrun = Taskrun::Interrupt,
            Some(TaskrunArg::Coop) => *taskrun = Taskrun::Coop,
            Some(TaskrunArg::Defer) => *taskrun = Taskrun::Defer,
        }
        *quiet_sends |= self.quiet_sends;
        *fixed_files |= self.fixed_files;
        *bundles |= self.bundles;
        *send_bundles |= self.send_bundles;
        *sqpoll |= self.sqpoll;
        spec
    }

    /// The load asked for.
    pub fn load(&self, addr: SocketAddr) -> anyhow::Result<Load> {
        let arrivals = match self.rate {
            None => Arrivals::Closed,
            Some(rate) if !(1.0..=1e7).contains(&rate) => {
                return Err(kit::Usage(format!("--rate {rate}: from 1 to 10000000 a second")).into());
            }
            Some(rate) if self.poisson => Arrivals::Poisson(rate),
            Some(rate) => Arrivals::Constant(rate),
        };
        Ok(Load {
            addr,
            connections: self.connections.unwrap_or(50) as usize,
            payload: Payload::Fixed(self.payload()),
            depth: self.depth(),
            arrivals,
        })
    }

    /// How long to serve or to make load, if that was said.
    pub fn duration(&self) -> anyhow::Result<Option<Duration>> {
        match self.duration {
            None => Ok(None),
            Some(s) if (0.01..=86_400.0).contains(&s) => Ok(Some(Duration::from_secs_f64(s))),
            Some(s) => Err(kit::Usage(format!("--duration {s}: from 0.01 to 86400 seconds")).into()),
        }
    }

    /// A server of this kind with a generator connected to it.
    pub fn pair(&self, spec: Spec, load: Load, cpus: &Cpus) -> anyhow::Result<Pair> {
        Ok(Pair::connect(self.target(spec, cpus)?, load)?)
    }

    /// A server of this kind on its CPU.
    pub fn target(&self, spec: Spec, cpus: &Cpus) -> anyhow::Result<Target> {
        let host = if self.in_process {
            Host::Thread
        } else {
            Host::Program(std::env::current_exe()?, vec!["--child".into()])
        };
        Ok(host.start(spec, cpus)?)
    }
}

fn fix(e: &SysError) -> &'static str {
    match e.kind() {
        kit::Obstacle::Forbidden => {
            "sysctl kernel.io_uring_disabled=0, or a container whose seccomp profile allows io_uring"
        }
        _ => "Linux 6.1 or newer, built with CONFIG_IO_URING",
    }
}

/// Whether io_uring can be used; says so if not.
pub fn uring(s: &mut Session) -> bool {
    let usable = server::uring_usable();
    if let Err(e) = &usable {
        s.missing("the io_uring half", e.to_string(), fix(e));
    }
    usable.is_ok()
}

/// What a server that was asked for by name needs.
pub fn need(spec: &Spec) -> Result<(), kit::Unavailable> {
    match server::uring_usable() {
        Err(e) if spec.kind.is_uring() => Err(kit::Unavailable {
            what: format!("{} needs io_uring", spec.kind.name()),
            why: e.to_string(),
            fix: vec![format!("fix: {}", fix(&e)), "or: --server epoll".into()],
        }),
        _ => Ok(()),
    }
}

/// Says what the kernel refused a server.
pub fn tell_notes(s: &mut Session, spec: &Spec, target: &Target) {
    for note in target.notes() {
        s.missing(spec.to_string(), note.clone(), "a newer kernel");
    }
}
