//! What changed between two snapshots of one process: threads, registers, pages.

use std::collections::BTreeMap;

use crate::core_file::Core;
use crate::s3_process::REGISTER_NAMES;
use crate::s4_memory::Memory;

const PAGE: u64 = 4096;
/// 256 pages at a time.
const CHUNK: u64 = 256 * PAGE;

/// A register of a thread that differs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// The thread.
    pub tid: i32,
    /// The register.
    pub register: &'static str,
    /// Its value before.
    pub before: u64,
    /// Its value after.
    pub after: u64,
}

/// What changed.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Diff {
    /// Threads of the second only.
    pub born: Vec<i32>,
    /// Threads of the first only.
    pub gone: Vec<i32>,
    /// Registers of threads that both have.
    pub registers: Vec<Changed>,
    /// Runs of pages that differ: address and number of pages.
    pub pages: Vec<(u64, u64)>,
    /// Pages that both cores hold.
    pub compared: u64,
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

/// Compares two cores. `progress` is called with the bytes done, now and then.
pub fn diff(a: (&Core, &Memory), b: (&Core, &Memory), mut progress: impl FnMut(u64)) -> Diff {
    let mut out = Diff::default();
    let threads = |core: &Core| {
        core.process.threads.iter().map(|t| (t.tid, t.registers.clone())).collect::<BTreeMap<_, _>>()
    };
    let (old, new) = (threads(a.0), threads(b.0));
    out.born = new.keys().filter(|t| !old.contains_key(t)).copied().collect();
    out.gone = old.keys().filter(|t| !new.contains_key(t)).copied().collect();
    for (tid, before) in &old {
        if let (Some(before), Some(Some(after))) = (before, new.get(tid)) {
            for (i, register) in
                REGISTER_NAMES.iter().enumerate().filter(|(i, _)| before.0[*i] != after.0[*i])
            {
                out.registers.push(Changed { tid: *tid, register, before: before.0[i], after: after.0[i] });
            }
        }
    }
    let (mut left, mut right) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    for s in a.1.segments() {
        let mut at = 0;
        while at < s.filesz {
            let (address, len) = (s.vaddr + at, (s.filesz - at).min(CHUNK));
            // Where both files have a hole there is nothing to compare: a sparse core of 256 GiB is done at once.
            let hole = match (hole_at(a.1, address), hole_at(b.1, address)) {
                (Some(x), Some(y)) => x.min(y) / PAGE * PAGE,
                _ => 0,
            };
            if hole >= PAGE {
                let skip = hole.min(s.filesz - at);
                out.compared += skip / PAGE;
                at += skip;
                continue;
            }
            let n =
                a.1.read(address, &mut left[..len as usize])
                    .min(b.1.read(address, &mut right[..len as usize]));
            for (i, (x, y)) in
                left[..n].chunks(PAGE as usize).zip(right[..n].chunks(PAGE as usize)).enumerate()
            {
                out.compared += 1;
                if x != y {
                    push(&mut out.pages, address + i as u64 * PAGE);
                }
            }
            progress(len);
            at += len;
        }
    }
    out
}

/// How many bytes from `address` on are a hole in the core's file, within its segment; `None` where not in the file.
fn hole_at(memory: &Memory, address: u64) -> Option<u64> {
    let s = memory.segment(address).filter(|s| address - s.vaddr < s.filesz)?;
    let (at, end) = (s.offset + (address - s.vaddr), s.offset + s.filesz);
    Some(memory.source().next_data(at).unwrap_or(end).min(end).saturating_sub(at))
}

fn push(runs: &mut Vec<(u64, u64)>, page: u64) {
    match runs.last_mut() {
        Some((start, n)) if *start + *n * PAGE == page => *n += 1,
        _ => runs.push((page, 1)),
    }
}
