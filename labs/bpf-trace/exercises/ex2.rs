//! Exercise 2: what the view shows of what the program in `ex2.bpf.c` has found.

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

/// The rows of a map, `(key, value)` as the bytes of `struct key` and `struct waits`: longest first; where two are
/// alike, the smaller process first, then the smaller address.
pub fn rows(_map: &[([u8; 16], [u8; 16])]) -> Vec<Row> {
    unimplemented!("TODO(you): read the structures, and put the rows in order")
}
