//! Exercise 2: what the view shows of what the program in `ex2.bpf.c` has found.

use bpf_trace::ring::Record;

/// Waits for one futex of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Process.
    pub tgid: u32,
    /// Address of the futex.
    pub address: u64,
    /// How often somebody waited.
    pub count: u64,
    /// How long, all together, in nanoseconds.
    pub ns: u64,
}

/// The rows of a map, longest first.
pub fn rows(map: &[([u8; 16], [u8; 16])]) -> Vec<Row> {
    let row = |(key, value): &([u8; 16], [u8; 16])| {
        let (mut key, mut value) = (Record(key), Record(value));
        let (address, tgid) = (key.u64(), key.u32());
        Row { tgid, address, count: value.u64(), ns: value.u64() }
    };
    let mut rows: Vec<Row> = map.iter().map(row).collect();
    rows.sort_by_key(|r| (std::cmp::Reverse(r.ns), r.tgid, r.address));
    rows
}
