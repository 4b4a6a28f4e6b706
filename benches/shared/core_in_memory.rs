//! A core as the kernel would write it, without its memory: the same bytes on every machine.

use elf_core::writer::{self, Layout, Load};

/// Of so many threads, with 1000 mappings.
pub fn core(threads: usize) -> Vec<u8> {
    let mut notes = Vec::new();
    let registers: Vec<u8> = (0..216).map(|i| i as u8).collect();
    for thread in 0..threads as i32 {
        let ids = [1001 + thread, 1, 1001, 1];
        writer::note(&mut notes, "CORE", 1, &writer::prstatus(11, ids, &registers));
    }
    writer::note(
        &mut notes,
        "CORE",
        3,
        &writer::prpsinfo(b'R', [0, 0], [1001, 1, 1001, 1], b"victim", b"victim 64"),
    );
    let files: Vec<(u64, u64, u64, Vec<u8>)> = (0..1000_u64)
        .map(|i| (i << 20, (i << 20) + 4096, i * 4096, format!("/usr/lib/library-{i}.so").into_bytes()))
        .collect();
    writer::note(&mut notes, "CORE", 0x4649_4c45, &writer::files(&files));
    let loads = (0..1000_u64).map(|i| Load { vaddr: i << 20, memsz: 4096, filesz: 0, flags: 5 }).collect();
    Layout { machine: 62, notes, loads }.head().0
}
