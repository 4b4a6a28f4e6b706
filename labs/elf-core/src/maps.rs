//! The mappings of a running process, and which of their bytes belong into a core (core(5), `coredump_filter`).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use kit::SysError;

pub(crate) const PAGE: u64 = 4096;

/// A mapping, from /proc/PID/smaps.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) flags: u32,
    shared: bool,
    pub(crate) offset: u64,
    inode: u64,
    pub(crate) name: Vec<u8>,
    /// Has pages that are not the file's: written since.
    written: bool,
    vm_flags: String,
}

impl Map {
    pub(crate) fn is_file(&self) -> bool {
        self.name.starts_with(b"/")
    }

    /// How many of its bytes go into the core: the rules of `vma_dump_size()` in the kernel's fs/coredump.c.
    pub(crate) fn dumped(&self, filter: u64, memory: &File) -> u64 {
        let (all, bit) = (self.end - self.start, |b: u32| filter >> b & 1 != 0);
        let has = |flag| self.vm_flags.split(' ').any(|f| f == flag);
        if self.name == b"[vdso]" {
            return all;
        }
        // The vvar pages are the kernel's; io is device memory.
        if has("dd") || has("io") || self.name.starts_with(b"[vvar") || self.name == b"[vsyscall]" {
            return 0;
        }
        let deleted = self.name.ends_with(b" (deleted)");
        let dump = match (has("ht"), self.shared) {
            (true, shared) => bit(if shared { 6 } else { 5 }),
            (_, true) => bit(if deleted || self.inode == 0 { 1 } else { 3 }),
            _ if self.written && bit(0) => true,
            _ => self.is_file() && bit(2),
        };
        if dump {
            return all;
        }
        let mut magic = [0; 4];
        let is_elf = self.is_file() && self.offset == 0 && self.flags & 4 != 0;
        let is_elf = is_elf && memory.read_exact_at(&mut magic, self.start).is_ok() && magic == *b"\x7fELF";
        if is_elf && bit(4) { PAGE } else { 0 }
    }

    /// The stretches of `len` bytes at `start` that must be read: pages that an anonymous mapping never touched are zero.
    pub(crate) fn present(&self, pagemap: Option<&File>, start: u64, len: u64) -> Vec<(u64, u64)> {
        let mut entries = vec![0; (len / PAGE * 8) as usize];
        let known = pagemap.is_some_and(|p| p.read_exact_at(&mut entries, start / PAGE * 8).is_ok());
        if self.is_file() || !known {
            return vec![(start, len)];
        }
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (i, entry) in entries.as_chunks::<8>().0.iter().enumerate() {
            // Bit 63: in memory, bit 62: in swap (Documentation/admin-guide/mm/pagemap.rst).
            if u64::from_le_bytes(*entry) >> 62 != 0 {
                let at = start + i as u64 * PAGE;
                match runs.last_mut() {
                    Some((from, len)) if *from + *len == at => *len += PAGE,
                    _ => runs.push((at, PAGE)),
                }
            }
        }
        runs
    }
}

/// Parses /proc/PID/smaps: a line as in maps, then `Name: value` lines up to `VmFlags`.
pub(crate) fn read_maps(pid: i32) -> Result<Vec<Map>, SysError> {
    let text = fs::read(format!("/proc/{pid}/smaps")).map_err(SysError::io("read(/proc/PID/smaps)"))?;
    let mut maps: Vec<Map> = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let text = String::from_utf8_lossy(line);
        if let Some(map) = map_line(line) {
            maps.push(map);
        } else if let Some(map) = maps.last_mut() {
            match text.split_once(':') {
                Some(("Anonymous" | "Swap", kb)) => map.written |= kb.trim() != "0 kB",
                Some(("VmFlags", flags)) => map.vm_flags = flags.trim().to_owned(),
                _ => {}
            }
        }
    }
    Ok(maps)
}

/// `start-end rwxp offset dev inode   name`
fn map_line(line: &[u8]) -> Option<Map> {
    let text = std::str::from_utf8(line.get(..line.len().min(100))?).unwrap_or_default();
    let mut fields = text.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.as_bytes();
    let hex = |s: &str| u64::from_str_radix(s, 16).ok();
    let (start, end, offset) = (hex(start)?, hex(end)?, hex(fields.next()?)?);
    let inode = fields.nth(1)?.parse().ok()?;
    let bit = |i: usize, c, value| if permissions.get(i) == Some(&c) { value } else { 0 };
    // The name starts after the fifth run of spaces and may hold spaces itself; a newline in it is written as \012.
    let mut rest = line;
    for _ in 0..5 {
        let space = rest.iter().position(|b| *b == b' ')?;
        rest = rest[space..].trim_ascii_start();
    }
    let name = String::from_utf8_lossy(rest)
        .contains("\\012")
        .then(|| String::from_utf8_lossy(rest).replace("\\012", "\n").into_bytes());
    let flags = bit(0, b'r', 4) | bit(1, b'w', 2) | bit(2, b'x', 1);
    let (shared, name) = (permissions.get(3) == Some(&b's'), name.unwrap_or_else(|| rest.to_vec()));
    Some(Map { start, end, flags, shared, offset, inode, name, written: false, vm_flags: String::new() })
}
