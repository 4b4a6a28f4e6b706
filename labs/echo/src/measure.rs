//! Rounds: one server, one generator, each on a CPU of its own; and what a request cost.

use std::process::Command;
use std::time::Duration;

use kit::SysError;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::control::Target;
use crate::counts::Counts;
use crate::load::{Arrivals, Client, Load, LoadError, Payload, Report, Until};
use crate::server;
use crate::spec::Spec;

/// The two CPUs of a measurement. Back to all of them when dropped.
#[derive(Debug)]
pub struct Cpus {
    all: CpuSet,
    /// The server's CPU.
    pub server: usize,
    /// The generator's; the same if there is only one.
    pub client: usize,
}

impl Cpus {
    /// Takes the first and the last CPU that this thread may use, and goes to the last.
    ///
    /// # Errors
    /// sched_getaffinity(2), sched_setaffinity(2).
    pub fn take() -> Result<Cpus, SysError> {
        let this = Pid::from_raw(0);
        let all = sched_getaffinity(this).map_err(SysError::nix("sched_getaffinity"))?;
        let mut usable = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap_or(false));
        let server = usable.next().unwrap_or(0);
        let cpus = Cpus { all, server, client: usable.next_back().unwrap_or(server) };
        cpus.go(cpus.client)?;
        Ok(cpus)
    }

    /// Does something on the server's CPU; a thread or process that it starts stays there.
    ///
    /// # Errors
    /// sched_setaffinity(2).
    pub fn on_server<T>(&self, start: impl FnOnce() -> T) -> Result<T, SysError> {
        self.go(self.server)?;
        let started = start();
        self.go(self.client)?;
        Ok(started)
    }

    fn go(&self, cpu: usize) -> Result<(), SysError> {
        let mut one = CpuSet::new();
        one.set(cpu).map_err(SysError::nix("CPU_SET"))?;
        sched_setaffinity(Pid::from_raw(0), &one).map_err(SysError::nix("sched_setaffinity"))
    }
}

impl Drop for Cpus {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.all);
    }
}

/// How a server under measurement is run.
#[derive(Debug, Clone)]
pub enum Host {
    /// As a thread of this process.
    Thread,
    /// As this program with these arguments, to which the name of the server is added.
    Program(std::path::PathBuf, Vec<String>),
}

impl Host {
    /// Starts a server on its CPU.
    ///
    /// # Errors
    /// [`server::start`], [`Target::spawn`].
    pub fn start(&self, spec: Spec, cpus: &Cpus) -> Result<Target, SysError> {
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        cpus.on_server(|| match self {
            Host::Thread => server::start(spec, any).map(Target::Thread),
            Host::Program(program, args) => {
                Target::spawn(Command::new(program).args(args).arg(spec.to_string()))
            }
        })?
    }
}

/// A server with a generator connected to it.
#[derive(Debug)]
pub struct Pair {
    /// The server.
    pub target: Target,
    /// The generator.
    pub client: Client,
}

/// What a round came to, a request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// All that the generator measured.
    pub report: Report,
    /// What the server counted during the round.
    pub counts: Counts,
    /// CPU time of the server.
    pub server_cpu: Duration,
    /// Context switches of the server, waiting and preempted.
    pub switches: u64,
}

impl Sample {
    /// CPU time of the server for a request, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.requests()
    }

    /// System calls of the server for a request.
    pub fn syscalls(&self) -> f64 {
        self.counts.syscalls() as f64 / self.requests()
    }

    /// Context switches of the server for a request.
    pub fn switches(&self) -> f64 {
        self.switches as f64 / self.requests()
    }

    /// Completions taken for each io_uring_enter(2).
    pub fn completions_per_enter(&self) -> f64 {
        self.counts.completions as f64 / self.counts.wait.max(1) as f64
    }

    /// Share of one CPU that the server used, 0 to 1 (more if it has several threads on several CPUs).
    pub fn server_share(&self) -> f64 {
        self.server_cpu.as_secs_f64() / self.report.elapsed.as_secs_f64().max(1e-9)
    }

    /// Whether the generator was busier than the server: then it limits the throughput, not the server.
    pub fn client_bound(&self) -> bool {
        self.report.cpu_share() > 0.9 && self.report.cpu_share() > self.server_share()
    }

    fn requests(&self) -> f64 {
        self.report.requests.max(1) as f64
    }
}

impl Pair {
    /// Connects a generator to a server.
    ///
    /// # Errors
    /// [`Client::connect`].
    pub fn connect(target: Target, load: Load) -> Result<Pair, LoadError> {
        let client = Client::connect(Load { addr: target.addr(), ..load })?;
        Ok(Pair { target, client })
    }

    /// One round.
    ///
    /// # Errors
    /// [`Client::run`]; reading the server's counters.
    pub fn round(&mut self, until: Until) -> Result<Sample, LoadError> {
        let (counts, usage) = (self.target.counts()?, self.target.usage()?);
        let report = self.client.run(until)?;
        let after = self.target.usage()?;
        let counts = self.target.counts()?.since(&counts);
        let switches = |u: &crate::control::Usage| u.voluntary + u.involuntary;
        Ok(Sample {
            report,
            counts,
            server_cpu: after.cpu.saturating_sub(usage.cpu),
            switches: switches(&after).saturating_sub(switches(&usage)),
        })
    }
}

/// A closed loop of requests of one size, one under way at a time on each connection.
pub fn ping_pong(connections: usize, payload: usize) -> Load {
    Load {
        addr: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        connections,
        payload: Payload::Fixed(payload),
        depth: 1,
        arrivals: Arrivals::Closed,
    }
}

/// Where servers are measured in turn.
pub const HERE: kit::Place = kit::here!();

/// Rounds in turn: each pair one round, then all again, so that what the machine does to one it does to
/// the others. Sample `[i][r]` is round `r` of pair `i`. A round before the first is thrown away.
///
/// # Errors
/// As [`Pair::round`].
pub fn in_turn(
    pairs: &mut [Pair],
    rounds: usize,
    each: Duration,
    mut done: impl FnMut(),
) -> Result<Vec<Vec<Sample>>, LoadError> {
    let mut samples: Vec<Vec<Sample>> = pairs.iter().map(|_| Vec::new()).collect();
    for pair in pairs.iter_mut() {
        pair.client.run(Until::Elapsed(each / 4))?;
    }
    for round in 0..rounds {
        // Every other round backwards: who goes first has no advantage.
        let order: Vec<usize> =
            if round % 2 == 0 { (0..pairs.len()).collect() } else { (0..pairs.len()).rev().collect() };
        for i in order {
            samples[i].push(pairs[i].round(Until::Elapsed(each))?);
            done();
        }
    }
    Ok(samples)
}
