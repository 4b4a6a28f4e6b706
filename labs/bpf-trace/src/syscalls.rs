//! The view `syscalls`: which calls, how often, how they failed, how long they took. Counted in the kernel.

use std::collections::BTreeMap;

use crate::error::TraceError;
use crate::filter::Filter;
use crate::histogram::{self, Histogram};
use crate::ring::{Record, text};
use crate::tracer::{Means, Plan, Tracer};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/syscalls.bpf.o");

/// Where the counting is.
pub const HERE: kit::Place = kit::here!();

/// Bytes that the counts may take in the kernel.
const MEMORY: usize = 64 << 20;

/// Bytes of `struct timed`.
const TIMED: usize = size_of::<u64>() + histogram::SIZE;

/// What calls are counted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// All processes together.
    Syscall,
    /// Each process by itself.
    #[default]
    Process,
    /// Each thread by itself.
    Thread,
}

/// What to count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whose calls.
    pub filter: Filter,
    /// By what.
    pub by: By,
    /// Whether to time them, too: a second program, at their entry.
    pub timing: bool,
    /// Only this one.
    pub syscall: Option<u32>,
    /// Only those that failed.
    pub failed: bool,
    /// Only those that took at least so many nanoseconds; implies `timing`.
    pub slower_than: u64,
    /// Attach by these means only.
    pub means: Option<Means>,
    /// Most combinations of process (or thread), call and errno that are kept; 0: the object's own limit.
    pub entries: u32,
}

impl Options {
    /// How many counts of `size` bytes for each CPU: what fits into [`MEMORY`], at most 16,384.
    fn entries(&self, size: usize) -> u32 {
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        let fit = (MEMORY / (size * cpus)).clamp(1024, 16_384) as u32;
        if self.entries == 0 { fit } else { self.entries }
    }
}

/// Calls of one kind, by one process or thread, or by all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Process or thread; 0 for all together.
    pub id: u32,
    /// Its name.
    pub comm: String,
    /// The call's number; see [`names::syscall`].
    pub nr: u32,
    /// How often it returned.
    pub count: u64,
    /// How often with an error.
    pub failed: u64,
    /// The errors: errno and how often, most frequent first.
    pub errors: Vec<(u32, u64)>,
    /// How long it took; empty unless timed.
    pub latency: Histogram,
}

/// A running count.
#[derive(Debug)]
pub struct Syscalls {
    tracer: Tracer,
    timing: bool,
}

impl Syscalls {
    /// Attaches; from the return on, nothing is missed.
    pub fn start(o: &Options) -> Result<Self, TraceError> {
        let timing = o.timing || o.slower_than > 0;
        let mut hooks = vec!["sys_exit"];
        if timing {
            hooks.push("sys_enter");
        }
        let word = |n: u32| n.to_ne_bytes().to_vec();
        let by = match o.by {
            By::Syscall => 0,
            By::Process => 1,
            By::Thread => 2,
        };
        let size = if timing { TIMED } else { size_of::<u64>() };
        let entries = o.entries(size);
        let (calls, timed) = if timing { (1, entries) } else { (entries, 1) };
        let tracer = Tracer::start(&Plan {
            object: OBJECT,
            hooks: &hooks,
            filter: o.filter.clone(),
            constants: vec![
                ("by", word(by)),
                ("timing", word(timing.into())),
                ("failures_only", word(o.failed.into())),
                ("only_syscall", word(o.syscall.unwrap_or(u32::MAX))),
                ("slower_than", o.slower_than.to_ne_bytes().to_vec()),
            ],
            entries: vec![("places", entries), ("calls", calls), ("timed", timed)],
            means: o.means,
        })?;
        Ok(Self { tracer, timing })
    }

    /// What is attached.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// The counts so far, most frequent first.
    pub fn read(&self) -> Result<Vec<Row>, TraceError> {
        let t = &self.tracer;
        let comms: BTreeMap<u32, [u8; 16]> = t.hash("comms")?;
        let mut rows = BTreeMap::<[u32; 2], Row>::new();
        for ([id, nr, errno], place) in t.hash::<[u32; 3], u32>("places")? {
            // Two CPUs may have given a place each, and one of them was not taken up: the last ones may be beyond the end.
            let Some(index) = place.checked_sub(1) else { continue };
            let counted = if self.timing {
                t.per_cpu_at("timed", index, joined::<TIMED>)?
            } else {
                t.per_cpu_at("calls", index, |copies: &[u64]| (copies.iter().sum(), Histogram::default()))?
            };
            let Some((count, latency)) = counted.filter(|(count, _)| *count > 0) else { continue };
            let comm = || comms.get(&id).map(|c| text(c)).unwrap_or_default();
            let row = rows.entry([id, nr]).or_insert_with(|| Row { id, nr, comm: comm(), ..Row::default() });
            row.count += count;
            row.latency.add(&latency);
            if errno != 0 {
                row.failed += count;
                row.errors.push((errno, count));
            }
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        for row in &mut rows {
            row.errors.sort_by_key(|(errno, n)| (std::cmp::Reverse(*n), *errno));
        }
        rows.sort_by_key(|r| (std::cmp::Reverse(r.count), r.id, r.nr));
        Ok(rows)
    }
}

/// `struct timed`: how often, and the histogram; the copies of all CPUs as one.
fn joined<const N: usize>(copies: &[[u8; N]]) -> (u64, Histogram) {
    let mut all = (0, Histogram::default());
    for copy in copies {
        let mut record = Record(copy);
        all.0 += record.u64();
        all.1.add(&Histogram::read(&mut record));
    }
    all
}
