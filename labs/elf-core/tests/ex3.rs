//! Spec of exercise 3: a mini gcore.

#![allow(missing_docs, reason = "test")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex3.rs"]
mod exercise;

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use elf_core::Core;
use elf_core::catch::Victim;
use elf_core::s2_notes::{FILE, PRSTATUS};
use elf_core::s4_memory::Lookup;
use elf_core::victim::{Crash, pattern};
use exercise::{Thread, snapshot, write_core};
use kit::spec::property;

const PAGE: u64 = 4096;

/// The exercise's `Map`, with an equality of this spec's own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Map {
    start: u64,
    end: u64,
    flags: u32,
    shared: bool,
    offset: u64,
    name: String,
}

impl Map {
    fn theirs(&self) -> exercise::Map {
        let Self { start, end, flags, shared, offset, name } = self.clone();
        exercise::Map { start, end, flags, shared, offset, name }
    }
}

fn parse_maps(text: &str) -> Vec<Map> {
    let each = exercise::parse_maps(text).into_iter();
    each.map(|exercise::Map { start, end, flags, shared, offset, name }| Map {
        start,
        end,
        flags,
        shared,
        offset,
        name,
    })
    .collect()
}

fn dumped(map: &Map) -> u64 {
    exercise::dumped(&map.theirs())
}

/// Registers as `NT_PRSTATUS` has them.
pub fn register_bytes(r: &libc::user_regs_struct) -> [u8; 216] {
    let words = [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi,
        r.rdi, r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds, r.es, r.fs, r.gs,
    ];
    let mut bytes = [0; 216];
    for (place, word) in bytes.chunks_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn map(start: u64, pages: u64, permissions: &str, offset: u64, name: &str) -> Map {
    let bit = |letter, value| if permissions.contains(letter) { value } else { 0 };
    let flags = bit('r', 4) | bit('w', 2) | bit('x', 1);
    Map {
        start,
        end: start + pages * PAGE,
        flags,
        shared: permissions.contains('s'),
        offset,
        name: name.to_owned(),
    }
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex3.rs"]
fn maps_are_read() {
    kit::spec::run(|| {
        let text = "\
00400000-00403000 r-xp 00000000 08:01 131                                /usr/bin/x
00602000-00603000 rw-p 00002000 08:01 131                                /usr/bin/x
01a00000-01a21000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000001000 ---p 00000000 00:00 0 
7f0000001000-7f0000002000 rw-s 00001000 00:01 9                          /memfd:two  words (deleted)
7fff00000000-7fff00021000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";
        let expected = vec![
            map(0x40_0000, 3, "r-xp", 0, "/usr/bin/x"),
            map(0x60_2000, 1, "rw-p", 0x2000, "/usr/bin/x"),
            map(0x1a0_0000, 0x21, "rw-p", 0, "[heap]"),
            map(0x7f00_0000_0000, 1, "---p", 0, ""),
            map(0x7f00_0000_1000, 1, "rw-s", 0x1000, "/memfd:two  words (deleted)"),
            map(0x7fff_0000_0000, 0x21, "rw-p", 0, "[stack]"),
            map(0xffff_ffff_ff60_0000, 1, "--xp", 0, "[vsyscall]"),
        ];
        property(
            "each line is a mapping, and its name is all that is left of the line",
            "which fields have no spaces?",
        )
        .same(expected, parse_maps(text));
        let ours = fs::read_to_string("/proc/self/maps").expect("our own mappings");
        property("no line of a real process is left out", "what has no name?")
            .same(ours.lines().count(), parse_maps(&ours).len());
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex3.rs"]
fn what_belongs_into_a_core() {
    kit::spec::run(|| {
        for (permissions, offset, name, pages) in [
            ("rw-p", 0, "", 5),
            ("r--p", 0, "", 5),
            ("rw-p", 0, "[heap]", 5),
            ("r-xp", 0, "[vdso]", 5),
            ("rw-p", 0x3000, "/lib/x.so", 5),
            ("r-xp", 0x3000, "/lib/x.so", 0),
            ("r--p", 0, "/lib/x.so", 1),
            ("rw-s", 0, "/tmp/shared", 0),
            ("rw-s", 0, "/dev/zero (deleted)", 0),
            ("---p", 0, "", 0),
            ("r--p", 0, "[vvar]", 0),
            ("r--p", 0, "[vvar_vclock]", 0),
            ("r-xp", 0, "[vsyscall]", 0),
        ] {
            property(
                format!("of {permissions} {name:?} from {offset:#x} on, {pages} of 5 pages go into the core"),
                "can it be read? Does a file have the same bytes?",
            )
            .same(pages * PAGE, dumped(&map(0x10_0000, 5, permissions, offset, name)));
        }
    });
}

/// What the made-up memory holds at a page.
fn content(page: u64) -> Vec<u8> {
    (0..PAGE / 8).flat_map(|i| (page + 8 * i).to_le_bytes()).collect()
}

/// Writes a core of `maps` and opens it again. `hole` is a page that cannot be read.
fn written(threads: &[Thread], maps: &[Map], hole: u64) -> (Core, u64, u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("core");
    let largest = std::cell::Cell::new(0);
    let read = |at: u64, buffer: &mut [u8]| {
        largest.set(largest.get().max(buffer.len() as u64));
        let end = at + buffer.len() as u64;
        for page in (at..end).step_by(PAGE as usize) {
            let there = maps.iter().any(|m| (m.start..m.end).contains(&page));
            if page == hole || !there {
                return false;
            }
            let (from, to) = ((page - at) as usize, (page - at + PAGE).min(end - at) as usize);
            buffer[from..to].copy_from_slice(&content(page)[..to - from]);
        }
        true
    };
    let out = File::create(&path).expect("a file");
    let theirs: Vec<_> = maps.iter().map(Map::theirs).collect();
    write_core(&out, threads, &theirs, &read).expect("write_core has no reason to fail");
    let length = out.metadata().expect("a length").len();
    (
        Core::read(elf_core::source::Source::bytes(fs::read(&path).expect("the core"))).expect("an ELF core"),
        length,
        largest.get(),
    )
}

fn some_threads() -> [Thread; 3] {
    [301, 302, 303].map(|tid| Thread { tid, registers: std::array::from_fn(|i| (i as i32 + tid) as u8) })
}

fn some_maps() -> Vec<Map> {
    vec![
        map(0x40_0000, 3, "r-xp", 0, "/usr/bin/x"),
        map(0x60_2000, 2, "rw-p", 0x2000, "/usr/bin/x"),
        map(0x7f00_0000_0000, 4, "---p", 0, ""),
        map(0x7f00_0000_4000, 320, "rw-p", 0, ""),
        map(0x7fff_0000_0000, 9, "rw-p", 0, "[stack]"),
    ]
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex3.rs"]
fn the_core_can_be_read() {
    kit::spec::run(|| {
        let (threads, maps) = (some_threads(), some_maps());
        let (mut core, length, largest) = written(&threads, &maps, 0);
        let kinds: Vec<u32> = core.notes.iter().map(|n| n.kind).collect();
        property(
            "a PRSTATUS for each thread, and NT_FILE after the first",
            "which note starts a new thread?",
        )
        .same(vec![PRSTATUS, FILE, PRSTATUS, PRSTATUS], kinds);
        let seen: Vec<(i32, Option<u64>)> =
            core.process.threads.iter().map(|t| (t.tid, t.registers.as_ref().map(|r| r.rip()))).collect();
        let rip = |t: &Thread| t.registers[128..136].first_chunk().map(|b| u64::from_le_bytes(*b));
        let expected: Vec<_> = threads.iter().map(|t| (t.tid, rip(t))).collect();
        property("each thread has its registers", "what is the order of prstatus' arguments?")
            .same(expected, seen);
        let files: Vec<(u64, u64)> = core.process.files.iter().map(|f| (f.start, f.offset)).collect();
        property("NT_FILE has the mapped files, and nothing else", "what does a file's name start with?")
            .same(vec![(0x40_0000, 0), (0x60_2000, 0x2000)], files);
        let segments: Vec<(u64, u64, u64)> =
            core.segments.iter().filter(|s| s.is_load()).map(|s| (s.vaddr, s.memsz, s.filesz)).collect();
        let expected: Vec<_> = maps.iter().map(|m| (m.start, m.end - m.start, dumped(m))).collect();
        property("each mapping is a segment, also one that is left out", "what are memsz and filesz of it?")
            .same(expected, segments);
        let end = core.segments.iter().map(|s| s.offset + s.filesz).max().unwrap_or(0);
        property("the file ends where the last segment does", "what if its last pages were zeros?")
            .same(end, length);
        property(
            "memory is read in pieces",
            "what if the process has more memory than the machine has free?",
        )
        .holds(largest <= 1 << 20, "reads of at most 1 MiB", format!("a read of {largest} bytes"));
        let memory = core.memory(&Lookup { none: true, ..Lookup::default() });
        for m in &maps {
            for page in (m.start..m.start + dumped(m)).step_by(PAGE as usize) {
                let mut seen = vec![0; PAGE as usize];
                memory.read(page, &mut seen);
                property("each page is in the core, in its place", "which offset has its segment?").holds(
                    seen == content(page),
                    format!("at {page:#x} {:02x?}…", &content(page)[..16]),
                    format!("{:02x?}…", &seen[..16]),
                );
            }
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex3.rs"]
fn what_cannot_be_read_is_zero() {
    kit::spec::run(|| {
        let hole = 0x7f00_0000_4000 + 77 * PAGE;
        let (mut core, ..) = written(&some_threads(), &some_maps(), hole);
        let memory = core.memory(&Lookup { none: true, ..Lookup::default() });
        for page in
            (hole - 80 * PAGE..=hole + 80 * PAGE).step_by(PAGE as usize).filter(|p| *p >= 0x7f00_0000_4000)
        {
            let mut seen = vec![0xff; PAGE as usize];
            memory.read(page, &mut seen);
            let expected = if page == hole { vec![0; PAGE as usize] } else { content(page) };
            property(
                "a page that cannot be read is zeros, and its neighbours are as they were",
                "which page of a piece is it, and what was in the buffer before?",
            )
            .holds(
                seen == expected,
                format!("at {page:#x} {:02x?}…", &expected[..16]),
                format!("{:02x?}…", &seen[..16]),
            );
        }
    });
}

/// Waits until every thread of the victim sleeps somewhere of its own accord, and nobody traces it; else says what is.
fn goes_on(pid: i32) -> Result<(), String> {
    // Threads that were just let go run for a moment; those that stand stand for ever.
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        let mut stands = String::new();
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let field = |name| status.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
            let (state, tracer) = (field("State:"), field("TracerPid:"));
            if state.contains("\tt") || state.contains("\tT") || !tracer.ends_with("\t0") {
                stands =
                    format!("thread {}: {state}, {tracer}", task.file_name().display()).replace('\t', " ");
            }
        }
        if stands.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(stands);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A snapshot by the exercise of a process with `threads` more threads.
fn taken(threads: usize) -> (Victim, tempfile::TempDir, Core) {
    let (victim, dir) = common::victim(Crash::Park, threads);
    let path = dir.path().join("snapshot");
    if let Err(e) = snapshot(victim.pid(), &path) {
        property("a process can be snapshot", "which call failed?").holds(false, "no error", e);
    }
    let core = Core::open(&path).expect("the lab reads it");
    (victim, dir, core)
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex3.rs"]
fn no_thread_is_missing() {
    kit::spec::run(|| {
        let what = property(
            "every thread is in the core, with the registers where it stood",
            "what is in /proc/PID/task?",
        );
        let (victim, _dir, mut core) = taken(6);
        let tasks: BTreeSet<i32> = fs::read_dir(format!("/proc/{}/task", victim.pid()))
            .expect("it lives")
            .filter_map(|t| t.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        let seen: BTreeSet<i32> = core.process.threads.iter().map(|t| t.tid).collect();
        what.same(tasks, seen);
        let memory = core.memory(&Lookup::default());
        for thread in &core.process.threads {
            let r = thread.registers.as_ref().map_or((0, 0), |r| (r.rip(), r.rsp()));
            what.holds(
                memory.is_code(r.0) && memory.segment(r.1).is_some_and(|s| s.filesz == s.memsz),
                "rip in code, rsp in memory that is in the core",
                format!("thread {}: rip {:#x}, rsp {:#x}", thread.tid, r.0, r.1),
            );
        }
        property("what the process had in memory is in the core", "is what it wrote since its start there?")
            .holds(
                memory.search(pattern().as_bytes(), 10).contains(&victim.knowledge.pattern_at),
                format!("the victim's text at {:#x}", victim.knowledge.pattern_at),
                "something else",
            );
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex3.rs"]
fn the_process_goes_on() {
    kit::spec::run(|| {
        let (mut victim, dir, _) = taken(4);
        for i in 0..3 {
            let what = property(
                "all threads go on, and may be traced again",
                "who let them go, and are they in a stop of their own?",
            );
            if let Err(stands) = goes_on(victim.pid()) {
                what.holds(false, "no thread stopped or traced", stands);
            }
            what.same(true, victim.is_alive());
            if let Err(e) = snapshot(victim.pid(), &dir.path().join(format!("again-{i}"))) {
                what.holds(false, "another snapshot", e);
            }
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/elf-core/exercises/ex3.rs"]
fn a_failure_lets_go_of_all() {
    kit::spec::run(|| {
        let (mut victim, _dir) = common::victim(Crash::Park, 4);
        let error = property("a path that cannot be written to is an error", "is it handed to the caller?");
        let result = snapshot(victim.pid(), Path::new("/nowhere/at/all"));
        error.holds(result.is_err(), "an error", "Ok");
        let what = property("also after an error all threads go on", "what runs on the way out of a `?`?");
        if let Err(stands) = goes_on(victim.pid()) {
            what.holds(false, "no thread stopped or traced", stands);
        }
        what.same(true, victim.is_alive());
        let pid = victim.pid();
        drop(victim);
        property("a process that is gone is an error", "what does /proc say?").holds(
            snapshot(pid, &std::env::temp_dir().join("ex3-nobody")).is_err(),
            "an error",
            "Ok",
        );
    });
}
