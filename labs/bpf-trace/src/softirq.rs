//! The view `softirq`: what the kernel does for interrupts once their handlers have returned, by vector.

use crate::error::TraceError;
use crate::histogram::{Histogram, SIZE};
use crate::tracer::{Means, Plan, Tracer};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/softirq.bpf.o");

/// Where the vectors are read.
pub const HERE: kit::Place = kit::here!();

/// The vectors by number, as /proc/softirqs calls them, and what they work on.
pub const VECTORS: [(&str, &str); 10] = [
    ("HI", "urgent jobs"),
    ("TIMER", "timers"),
    ("NET_TX", "packets out"),
    ("NET_RX", "packets in"),
    ("BLOCK", "disks"),
    ("IRQ_POLL", "disks, polled"),
    ("TASKLET", "drivers"),
    ("SCHED", "CPU balance"),
    ("HRTIMER", "fine timers"),
    ("RCU", "freeing"),
];

/// How often a vector ran, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub vector: usize,
    /// Nanoseconds that it ran.
    pub time: Histogram,
}

impl Row {
    /// Its name, as in /proc/softirqs.
    pub fn name(&self) -> String {
        VECTORS.get(self.vector).map_or_else(|| format!("vector {}", self.vector), |v| v.0.to_owned())
    }

    /// What it works on.
    pub fn does(&self) -> &'static str {
        VECTORS.get(self.vector).map_or("", |v| v.1)
    }
}

/// A running measurement, of all CPUs.
#[derive(Debug)]
pub struct Softirq {
    tracer: Tracer,
}

impl Softirq {
    /// Attaches; every softirq that begins from the return on is counted when it ends.
    pub fn start(means: Option<Means>) -> Result<Self, TraceError> {
        // The end first: a beginning that is seen has its end seen, too.
        let hooks = &["softirq_exit", "softirq_entry"];
        let tracer = Tracer::start(&Plan { object: OBJECT, hooks, means, ..Plan::default() })?;
        Ok(Self { tracer })
    }

    /// What is attached.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// The vectors that have run, longest first.
    pub fn read(&self) -> Result<Vec<Row>, TraceError> {
        let times = self.tracer.array("vectors", |copies: &[[u8; SIZE]]| Histogram::joined(copies))?;
        let mut rows: Vec<Row> =
            times.into_iter().enumerate().map(|(vector, time)| Row { vector, time }).collect();
        rows.retain(|r| r.time.count() > 0);
        rows.sort_by_key(|r| std::cmp::Reverse(r.time.sum));
        Ok(rows)
    }
}
