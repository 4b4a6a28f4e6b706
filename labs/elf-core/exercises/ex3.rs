//! Exercise 3: a mini gcore. The statement is in the lab's README; `cargo xtask homework check elf-core ex3` says how far
//! you are.
//!
//! ```text
//!   stop all threads  ->  registers, /proc/PID/maps, /proc/PID/mem  ->  a core  ->  let all threads go on
//! ```
//!
//! `elf_core::writer` lays out the file (`Layout`, `Load`) and the notes (`note`, `prstatus`, `files`); nix has ptrace(2)
//! and waitpid(2). Graded are the choice of memory, the file, that no thread is missing, and that the process goes on as if
//! nothing had been, also where you fail.

use std::fs::File;
use std::io;
use std::path::Path;

use super::register_bytes;

/// A mapping: a line of /proc/PID/maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    pub start: u64,
    pub end: u64,
    /// 4 read, 2 write, 1 execute, as in `p_flags`.
    pub flags: u32,
    /// `s`, not `p`.
    pub shared: bool,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What stands at the end of the line; empty for memory without a name.
    pub name: String,
}

/// A thread that stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    pub tid: i32,
    /// `user_regs_struct`; see `register_bytes`.
    pub registers: [u8; 216],
}

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Reads all lines of /proc/PID/maps. A name may hold spaces.
///
/// ```text
/// 7f01c0a00000-7f01c0a28000 r--p 00000000 08:01 1234                 /usr/lib/my libc.so.6
/// ```
pub fn parse_maps(_text: &str) -> Vec<Map> {
    unimplemented!("TODO(you): five fields, and the rest of the line")
}

/// How many bytes of a mapping go into the core, from its start.
///
/// - None of what cannot be read, of what is shared, of `[vvar…]` and of `[vsyscall]`.
/// - Of a file's private mapping that cannot be written, the first page if it maps the file's start, else none: the file has
///   it. A file's name starts with `/`.
/// - All of the rest.
pub fn dumped(_map: &Map) -> u64 {
    unimplemented!("TODO(you): the three rules")
}

/// Writes a core into an empty file: for each thread `NT_PRSTATUS`, the first thread's followed by `NT_FILE` of all mapped
/// files; then a segment for each mapping. Its length is where the last segment's bytes end.
///
/// `read(address, buffer)` fills the buffer from memory, or says false if *any* page of it cannot be read. Such pages, and
/// only those, are zeros in the core. Memory may be larger than ours: read it in pieces.
pub fn write_core(
    _out: &File,
    _threads: &[Thread],
    _maps: &[Map],
    _read: &dyn Fn(u64, &mut [u8]) -> bool,
) -> io::Result<()> {
    unimplemented!("TODO(you): notes, layout, head, memory")
}

/// Writes the core of a running process, which then goes on, whatever happened here.
///
/// Threads may be born while you stop the others. Of a path that cannot be written to, or a process that cannot be traced,
/// the error is returned.
pub fn snapshot(_pid: i32, _path: &Path) -> io::Result<()> {
    let _ = register_bytes;
    unimplemented!("TODO(you): PTRACE_SEIZE and PTRACE_INTERRUPT each thread, wait for it, write, detach")
}
