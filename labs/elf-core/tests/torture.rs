//! Cores that lie, end early, or are none: what can be read is shown, and nothing panics, hangs or takes memory for a lie.

mod common;

use std::fs;
use std::path::Path;

use common::{CODE, STACK, TIDS, notes, sample, sample_with};
use elf_core::s2_notes::{BUILD_ID, Owner};
use elf_core::s4_memory::Lookup;
use elf_core::source::Source;
use elf_core::writer::{Layout, Load, note};
use elf_core::{Core, Error, Problem, ask_everything};
use kit::testing::watchdog;
use proptest::prelude::*;

const NOWHERE: Lookup = Lookup { sysroot: None, exe: None, none: true };

fn read(bytes: Vec<u8>) -> Core {
    Core::read(Source::bytes(bytes)).unwrap()
}

fn said(core: &Core) -> String {
    core.problems.iter().map(|p| format!("{p}\n")).collect()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn the_sample_is_read_whole() {
    let mut core = read(sample());
    assert_eq!(said(&core), "");
    assert_eq!(core.process.threads.iter().map(|t| t.tid).collect::<Vec<_>>(), TIDS);
    assert_eq!(core.process.program.as_ref().unwrap().args, "made-up --arg");
    assert_eq!(core.process.files[0].path, Path::new("/made/up"));
    let memory = core.memory(&NOWHERE);
    assert_eq!(core.arguments(&memory), (vec!["made-up".into(), "--arg".into()], vec!["HOME=/x".into()]));
    assert_eq!(memory.search(b"BENCHTOP", 10), [STACK + 0x600]);
    assert_eq!(
        core.cause(&memory, None),
        "SIGSEGV: it used a null pointer (address 0x10; SEGV_MAPERR: nothing is mapped there)."
    );
    let traces = core.backtraces(&memory);
    let pcs = |i: usize| traces[i].as_ref().unwrap().frames.iter().map(|f| f.pc).collect::<Vec<_>>();
    assert_eq!(
        pcs(0),
        [CODE + 0x20, CODE + 0x55, CODE + 0x55, CODE + 0x55],
        "two by frame pointer, one by scan"
    );
    assert_eq!(pcs(2)[..2], [0, CODE + 0x55], "a jump to nowhere is crossed by scanning");
}

#[test]
fn truncated_at_every_structural_boundary() {
    let _dog = watchdog(180);
    let whole = sample();
    let core = read(whole.clone());
    let mut cuts = vec![0, 3, 15, 16, 63, 64, 65, 119, 120];
    for s in &core.segments {
        cuts.extend([s.offset, s.offset + s.filesz].map(|o| o as usize));
    }
    for n in &core.notes {
        cuts.extend(
            [n.offset - 20, n.offset - 8, n.offset, n.offset + 1, n.offset + n.len].map(|o| o as usize),
        );
    }
    for cut in cuts.into_iter().flat_map(|c| [c.saturating_sub(1), c, c + 1]).filter(|c| *c < whole.len()) {
        match Core::read(Source::bytes(whole[..cut].to_vec())) {
            Ok(mut core) => {
                let memory = core.memory(&NOWHERE);
                core.backtraces(&memory);
                assert!(
                    core.problems.iter().any(|p| matches!(p, Problem::Truncated { .. })),
                    "cut at {cut}: {}",
                    said(&core)
                );
            }
            Err(e) => assert!(cut < 64 && matches!(e, Error::NotElf(_)), "cut at {cut}: {e}"),
        }
    }
}

#[test]
fn truncated_memory_leaves_the_threads() {
    let mut bytes = sample();
    bytes.truncate(4096);
    let mut core = read(bytes);
    core.memory(&NOWHERE);
    assert_eq!(core.process.threads.len(), 3);
    assert!(said(&core).contains("memory, 3 segments: truncated: 4096 of 20480 bytes"), "{}", said(&core));
}

#[test]
fn not_a_core() {
    let elf = fs::read("/proc/self/exe").unwrap();
    assert!(matches!(Core::read(Source::bytes(elf)), Err(Error::NotCore { .. })));
    for bytes in [
        b"".to_vec(),
        b"#!/bin/sh\n".to_vec(),
        vec![0; 4096],
        b"\x7fELF".to_vec(),
        [b"\x7fELF\x09\x01".as_slice(), &[0; 90]].concat(),
    ] {
        assert!(matches!(Core::read(Source::bytes(bytes)), Err(Error::NotElf(_))));
    }
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _dog = watchdog(180);
    for path in [dir.path(), Path::new("/dev/zero"), &fifo] {
        assert!(matches!(Core::open(path), Err(Error::NotRegular { .. })), "{path:?}");
    }
    assert!(matches!(Core::open(&dir.path().join("none")), Err(Error::Io { .. })));
}

#[test]
fn no_permission() {
    if nix::unistd::geteuid().is_root() {
        kit::skip!("plain_user", "root may read everything");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core");
    fs::write(&path, sample()).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let error = Core::open(&path).unwrap_err().to_string();
    assert!(error.contains("Permission denied"), "{error}");
}

#[test]
fn counts_and_sizes_that_lie() {
    let _dog = watchdog(180);
    // e_phnum of 65,534, with 56 bytes each, in a file of 20 KiB
    let mut bytes = sample();
    put(&mut bytes, 56, &0xfffe_u16.to_le_bytes());
    assert!(said(&read(bytes)).contains("program headers: truncated"));
    // e_phoff beyond the end, and one that wraps
    for phoff in [1_u64 << 40, u64::MAX] {
        let mut bytes = sample();
        put(&mut bytes, 32, &phoff.to_le_bytes());
        assert!(said(&read(bytes)).contains("truncated"));
    }
    // segments of 2^63 bytes, at the top of the address space and of the file
    for (field, value) in [(32, u64::MAX / 2), (40, u64::MAX), (16, u64::MAX - 1), (8, u64::MAX - 8)] {
        let mut bytes = sample();
        put(&mut bytes, 64 + 56 + field, &value.to_le_bytes());
        let _ = ask_everything(Source::bytes(bytes));
    }
    // an NT_FILE of 2^60 mappings
    let mut liar = notes();
    let mut desc = vec![0; 64];
    put(&mut desc, 0, &(1_u64 << 60).to_le_bytes());
    note(&mut liar, "CORE", elf_core::s2_notes::FILE, &desc);
    assert!(said(&read(sample_with(liar))).contains("1152921504606846976 mappings where 1 fit"));
}

#[test]
fn segments_that_overlap_or_repeat() {
    let mut bytes = sample();
    let code = bytes[64 + 56..64 + 112].to_vec();
    put(&mut bytes, 64 + 112, &code); // the stack's header says what the code's says
    let mut core = read(bytes);
    let memory = core.memory(&NOWHERE);
    assert_eq!(memory.segments().len(), 2);
    assert!(said(&core).contains("1 overlap another"));
    // two PT_NOTE over the same bytes count once
    let mut bytes = sample();
    let notes = bytes[64..120].to_vec();
    put(&mut bytes, 64 + 112, &notes);
    let core = read(bytes);
    assert_eq!(core.process.threads.len(), 3);
    assert!(said(&core).contains("overlaps the one before"));
}

#[test]
fn notes_that_lie() {
    // a desc longer than the segment
    let mut liar = notes();
    let at = liar.len();
    note(&mut liar, "CORE", 99, &[1; 8]);
    put(&mut liar, at + 4, &u32::MAX.to_le_bytes());
    let core = read(sample_with(liar));
    assert_eq!(core.process.threads.len(), 3);
    assert!(said(&core).contains("8 of 4294967295 bytes"), "{}", said(&core));
    // a name longer than the segment
    let mut liar = notes();
    put(&mut liar, at - 532, &u32::MAX.to_le_bytes());
    assert!(said(&read(sample_with(liar))).contains("leaves the segment"));
    // no name, a name without NUL, an empty desc, and a name that would move the cursor
    let mut odd = notes();
    odd.extend([0, 0, 7_u32].iter().flat_map(|w| w.to_le_bytes()));
    odd.extend([4, 4, 1_u32].iter().flat_map(|w| w.to_le_bytes()));
    odd.extend(b"CORE\0\0\0\0");
    odd.extend([8, 0, 7_u32].iter().flat_map(|w| w.to_le_bytes()));
    odd.extend(b"\x1b[2Jabcd");
    let core = read(sample_with(odd));
    let names: Vec<&str> = core.notes.iter().rev().take(3).map(|n| n.owner.name()).collect();
    assert_eq!(names, ["\\u{1b}[2Jabcd", "CORE", ""]);
    assert!(said(&core).contains("4 bytes are too few: no thread"));
}

#[test]
fn type_3_of_two_owners() {
    let mut both = Vec::new();
    note(&mut both, "GNU", BUILD_ID, &[0xab; 20]);
    both.extend(notes());
    let core = read(sample_with(both));
    assert_eq!(core.notes[0].name(), "NT_GNU_BUILD_ID");
    assert_eq!(core.notes[0].owner, Owner::Gnu);
    assert_eq!(core.process.program.unwrap().name, "made-up");
}

#[test]
fn alignment_of_8_and_0() {
    for align in [0_u64, 1, 4] {
        let mut bytes = sample();
        put(&mut bytes, 64 + 48, &align.to_le_bytes());
        assert_eq!(read(bytes).process.threads.len(), 3, "p_align {align}");
    }
    // names of 5 bytes and descs of 4: with 8-byte padding both move
    let mut eight = Vec::new();
    for i in 0..3_u32 {
        eight.extend([5, 4, 6].iter().flat_map(|w: &u32| w.to_le_bytes()));
        eight.extend(b"CORE\0\0\0\0\0\0\0\0");
        eight.extend(i.to_le_bytes());
        eight.extend([0; 4]);
    }
    let mut bytes = sample_with(eight);
    put(&mut bytes, 64 + 48, &8_u64.to_le_bytes());
    let core = read(bytes);
    assert_eq!(core.notes.iter().map(|n| (n.len, n.name())).collect::<Vec<_>>(), [(4, "NT_AUXV"); 3]);
}

#[test]
fn no_threads_and_no_notes() {
    let core = read(sample_with(Vec::new()));
    assert!(said(&core).contains("no thread to show"));
    assert_eq!(ask_everything(Source::bytes(sample_with(Vec::new()))).unwrap(), (0, 0));
}

#[test]
fn more_than_65535_segments() {
    let loads =
        (0..70_000_u64).map(|i| Load { vaddr: CODE + 8192 * i, memsz: 4096, filesz: 0, flags: 4 }).collect();
    let (bytes, _) = Layout { machine: 62, notes: notes(), loads }.head();
    let mut core = read(bytes.clone());
    assert!(core.header.extended);
    assert_eq!((core.segments.len(), core.process.threads.len(), said(&core)), (70_001, 3, String::new()));
    let memory = core.memory(&NOWHERE);
    assert!(memory.segment(CODE + 8192 * 69_999).is_some());
    // and without the section header that holds the count
    let mut bytes = bytes;
    put(&mut bytes, 40, &[0; 8]);
    let core = read(bytes);
    assert!(said(&core).contains("PN_XNUM without a section header 0"));
    assert_eq!(core.process.threads.len(), 3);
}

/// Written by hand in the other byte order and class: the common parts are read, registers are not.
#[test]
fn other_machines() {
    let big = |words: &[u32]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
    let mut desc = vec![0; 144];
    put(&mut desc, 12, &11_u16.to_be_bytes());
    put(&mut desc, 24, &77_u32.to_be_bytes());
    let mut notes = big(&[5, 144, 1]);
    notes.extend(b"CORE\0\0\0\0");
    notes.extend(&desc);
    let mut bytes = b"\x7fELF\x01\x02\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([0, 4, 0, 8]); // ET_CORE, EM_MIPS
    bytes.extend(big(&[1, 0, 52, 0, 0]));
    bytes.extend([0, 52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(big(&[4, 84, 0, 0, notes.len() as u32, 0, 0, 4]));
    bytes.extend(notes);
    let mut core = read(bytes);
    assert_eq!(
        (core.header.big_endian, core.header.is_64, core.header.machine_name()),
        (true, false, "MIPS")
    );
    assert_eq!((core.process.threads[0].tid, core.process.threads[0].signal), (77, 11));
    assert!(core.process.threads[0].registers.is_none());
    core.memory(&NOWHERE);

    let mut bytes = sample();
    put(&mut bytes, 18, &183_u16.to_le_bytes());
    let core = read(bytes);
    assert_eq!(core.header.machine_name(), "aarch64");
    assert_eq!(core.process.threads.len(), 3);
    assert!(core.process.threads[0].registers.is_none());
}

#[test]
fn a_file_that_shrinks_while_it_is_read() {
    let _dog = watchdog(180);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core");
    fs::write(&path, sample()).unwrap();
    let mut core = Core::open(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let memory = core.memory(&NOWHERE);
    let mut page = [0; 8192];
    assert!(memory.read(common::VDSO, &mut page) < 8192);
    core.backtraces(&memory);
    assert!(memory.search(b"BENCHTOP", 1).is_empty());
}

/// Against the naive search: where the needle overlaps itself, and where it crosses from one piece read to the next.
#[test]
fn a_search_finds_what_a_naive_one_does() {
    const AT: u64 = 0x10_0000;
    let mut bytes: Vec<u8> =
        (0..(5_u32 << 19) + 7).map(|i| b'b' + (i.wrapping_mul(i) >> 7) as u8 % 3).collect();
    for at in [0, (1 << 20) - 2, (2 << 20) - 1, bytes.len() - 5] {
        put(&mut bytes, at, b"aaaaa");
    }
    let len = bytes.len() as u64;
    let loads = vec![Load { vaddr: AT, memsz: len, filesz: len, flags: 6 }];
    let (mut file, segments) = Layout { machine: 62, notes: notes(), loads }.head();
    file.resize(segments[0].offset as usize, 0);
    file.extend(&bytes);
    let mut core = read(file);
    let memory = core.memory(&NOWHERE);
    for needle in [&b"aa"[..], b"aaaaa", b"a", b"bcd", b"aaaaaa", b"bbaa"] {
        let naive = bytes.windows(needle.len()).enumerate().filter(|(_, w)| *w == needle);
        let naive: Vec<u64> = naive.map(|(i, _)| AT + i as u64).collect();
        assert_eq!(memory.search(needle, usize::MAX), naive, "{needle:?}");
    }
}

/// A sparse core of 256 GiB, with notes that say they fill it: neither time nor memory follows.
#[test]
fn huge_and_sparse() {
    let _dog = watchdog(180);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core");
    let size = 256_u64 << 30;
    let mut bytes = sample();
    put(&mut bytes, 64 + 56 * 2 + 32, &size.to_le_bytes()); // the stack's p_filesz and p_memsz
    put(&mut bytes, 64 + 56 * 2 + 40, &size.to_le_bytes());
    put(&mut bytes, 64 + 32, &size.to_le_bytes()); // and the notes'
    fs::write(&path, &bytes).unwrap();
    if let Err(e) = fs::File::options().write(true).open(&path).unwrap().set_len(size) {
        kit::skip!("sparse_files", "{e}");
    }
    let core = Core::open(&path).unwrap();
    assert_eq!(core.process.threads.len(), 3);
    assert!(said(&core).contains("all zero"));
    ask_everything(Source::open(&path).unwrap()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes may be changed to anything, any tail may be cut: it ends, and does not panic.
    #[test]
    fn mutated_cores(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 0..40),
        near_the_start in prop::collection::vec((0_usize..3000, any::<u8>()), 0..20),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let _dog = watchdog(180);
        let mut bytes = sample();
        let len = bytes.len();
        for (at, value) in changes {
            bytes[at.index(len)] = value;
        }
        for (at, value) in near_the_start {
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(len));
        }
        let _ = ask_everything(Source::bytes(bytes));
    }

    /// Whole 64-bit fields of the headers, replaced by the numbers that break arithmetic.
    #[test]
    fn extreme_fields(
        fields in prop::collection::vec((0_usize..60, prop::sample::select(vec![
            0, 1, 4, 8, 0xfff, 0x1000, 0x7fff_ffff, 0xffff_ffff, 1 << 40, i64::MAX as u64, 1 << 63, u64::MAX - 0xfff, u64::MAX - 1, u64::MAX,
        ])), 1..6),
    ) {
        let _dog = watchdog(180);
        let mut bytes = sample();
        for (at, value) in fields {
            put(&mut bytes, 24 + 8 * at, &value.to_le_bytes());
        }
        let _ = ask_everything(Source::bytes(bytes));
    }
}
