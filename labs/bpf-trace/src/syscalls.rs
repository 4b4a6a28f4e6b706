//! The view `syscalls`.

use std::collections::BTreeMap;

use crate::filter::Filter;
use crate::tracer::{Means, Plan, TraceError, Tracer};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/syscalls.bpf.o");

/// x
pub fn start(filter: Filter, timing: bool, means: Option<Means>) -> Result<Tracer, TraceError> {
    let mut hooks = vec!["sys_exit"];
    if timing { hooks.push("sys_enter"); }
    if filter.follow { hooks.extend(["sched_process_exec", "sched_process_fork", "sched_process_exit"]); }
    Tracer::start(&Plan { object: OBJECT, hooks: &hooks, filter, constants: vec![("timing", u32::from(timing).to_ne_bytes().to_vec())], means, ..Plan::default() })
}

/// x
pub fn read(t: &Tracer) -> Result<BTreeMap<[u32; 2], [u64; 2]>, TraceError> {
    t.per_cpu("calls", |v: &[[u64; 2]]| v.iter().fold([0, 0], |a, b| [a[0] + b[0], a[1] + b[1]]))
}
