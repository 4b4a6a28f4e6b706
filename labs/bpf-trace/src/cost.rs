//! What a trace costs: in the kernel by the kernel's own statistics, outside by this process's CPU time.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::error::TraceError;
use crate::sys::bpf;
use crate::tracer::Tracer;

/// How long the kernel's statistics are on: they cost two readings of the clock for each run.
pub const SAMPLE: Duration = Duration::from_millis(250);

/// Measures from its making on.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    cpu: Duration,
    statistics: Option<OwnedFd>,
}

/// What a trace cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Runs of programs that were timed.
    pub sampled: u64,
    /// Nanoseconds a run, on average over these.
    pub ns_a_run: f64,
    /// Share of one CPU that this process took, 0 to 1.
    pub own_cpu: f64,
}

impl Meter {
    /// Begins; without the kernel's statistics where it has none (before 5.8).
    pub fn start() -> Self {
        Self { began: Instant::now(), cpu: own_cpu(), statistics: bpf::stats_on().ok() }
    }

    /// Ends the kernel's statistics once there are enough of them; to be called now and then.
    pub fn tick(&mut self) {
        if self.began.elapsed() >= SAMPLE {
            self.statistics = None;
        }
    }

    /// The cost so far.
    pub fn read(&self, tracer: &Tracer) -> Result<Cost, TraceError> {
        let infos = tracer.infos()?;
        let sampled = infos.iter().map(|(_, i)| i.run_count).sum::<u64>();
        let ns: u64 = infos.iter().map(|(_, i)| i.run_time_ns).sum();
        let wall = self.began.elapsed().as_secs_f64();
        let cpu = own_cpu().saturating_sub(self.cpu).as_secs_f64();
        Ok(Cost { sampled, ns_a_run: ns as f64 / sampled.max(1) as f64, own_cpu: cpu / wall })
    }
}

fn own_cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let of =
            |t: nix::sys::time::TimeVal| Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()) as u64);
        of(usage.user_time()) + of(usage.system_time())
    })
}
