//! The view `runq`: how long tasks that can run wait for a CPU.
//!
//! A wait begins when a task is woken, or when it is put back: preempted, or giving way, while it would like to go on.
//! It ends when it is switched to. Waits that last when the trace ends are taken in as they are then.

use std::collections::BTreeMap;

use crate::error::TraceError;
use crate::filter::Filter;
use crate::histogram::{Histogram, SIZE};
use crate::ring::text;
use crate::tracer::{Plan, Tracer};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/runq.bpf.o");

/// Where the waits are told from one another.
pub const HERE: kit::Place = kit::here!();

/// What to measure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whose waits.
    pub filter: Filter,
    /// Each thread by itself instead of each process.
    pub by_thread: bool,
    /// Only waits of at least so many nanoseconds.
    pub slower_than: u64,
}

/// The waits of a process or a thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Process or thread.
    pub id: u32,
    /// Its name.
    pub comm: String,
    /// Waits, in nanoseconds, after it was woken.
    pub woken: Histogram,
    /// Waits after it was put back though it could have gone on.
    pub put_back: Histogram,
}

impl Row {
    /// Both kinds of waits.
    pub fn all(&self) -> Histogram {
        let mut all = self.woken.clone();
        all.add(&self.put_back);
        all
    }
}

/// What is to be known about the waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// Waits that had not ended when the trace did: measured up to then.
    pub unfinished: u64,
    /// Waits that are not measured since the kernel called no program where they began or ended.
    pub unseen: u64,
}

/// A running measurement.
#[derive(Debug)]
pub struct Runq {
    tracer: Tracer,
}

impl Runq {
    /// Attaches; every wait that begins from the return on is measured.
    pub fn start(o: &Options) -> Result<Self, TraceError> {
        let tracer = Tracer::start(&Plan {
            object: OBJECT,
            hooks: &["sched_wakeup", "sched_wakeup_new", "sched_switch"],
            filter: o.filter.clone(),
            constants: vec![
                ("by_thread", u32::from(o.by_thread).to_ne_bytes().to_vec()),
                ("slower_than", o.slower_than.to_ne_bytes().to_vec()),
            ],
            ..Plan::default()
        })?;
        Ok(Self { tracer })
    }

    /// What is attached.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Takes in the waits that have not ended, as long as they are now. They are not counted again when they end.
    pub fn sweep(&mut self) -> Result<(), TraceError> {
        self.tracer.sweep("sweep")
    }

    /// What is to be known about the waits.
    pub fn notes(&self) -> Result<Notes, TraceError> {
        let notes: Vec<u64> = self.tracer.array("notes", |copies: &[u64]| copies.iter().sum())?;
        Ok(Notes { unfinished: notes[0], unseen: notes[1] })
    }

    /// The waits so far, who waited longest first.
    pub fn read(&self) -> Result<Vec<Row>, TraceError> {
        let waits: BTreeMap<[u32; 2], [u8; SIZE]> = self.tracer.hash("waits")?;
        let comms: BTreeMap<u32, [u8; 16]> = self.tracer.hash("comms")?;
        let mut rows: BTreeMap<u32, Row> = BTreeMap::new();
        for ([id, why], bytes) in waits {
            let row = rows.entry(id).or_insert_with(|| Row {
                id,
                comm: comms.get(&id).map(|c| text(c)).unwrap_or_default(),
                ..Row::default()
            });
            let kind = if why == 0 { &mut row.woken } else { &mut row.put_back };
            *kind = Histogram::joined(&[bytes]);
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        rows.sort_by_key(|r| (std::cmp::Reverse(r.woken.sum + r.put_back.sum), r.id));
        Ok(rows)
    }
}
