//! Real cores: what the victim knew of itself, and what other readers say.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{output, victim};
use elf_core::Core;
use elf_core::catch::Writer;
use elf_core::s3_process::Registers;
use elf_core::s4_memory::{Backing, Lookup};
use elf_core::s6_unwind::{Trust, Unwinder};
use elf_core::s7_symbols::{Symbols, fold};
use elf_core::victim::{Crash, Knowledge, pattern};
use kit::testing::watchdog;

/// Everything that the victim told about itself is found in its core.
fn agrees(path: &Path, k: &Knowledge) {
    let mut core = Core::open(path).unwrap();
    let memory = core.memory(&Lookup::default());
    assert_eq!(core.problems, []);
    let read: BTreeSet<i32> = core.process.threads.iter().map(|t| t.tid).collect();
    assert_eq!(read, k.tids.iter().copied().collect());
    let info = core.process.siginfo.unwrap();
    assert_eq!(info.signal, k.signal);
    if k.fault.is_some() {
        assert_eq!(info.address, k.fault);
    }
    assert!(memory.search(pattern().as_bytes(), 10).contains(&k.pattern_at));
    let program = core.process.program.as_ref().unwrap();
    assert_eq!((program.ids[0], program.name.as_str()), (k.pid, "elf-core"));
    let (args, env) = core.arguments(&memory);
    assert_eq!(args[1], "--victim");
    assert!(env.iter().any(|v| v.starts_with("PATH=")));

    let mut symbols = Symbols::new(&memory, None, false);
    let mut unwinder = Unwinder::new(&memory);
    for thread in &core.process.threads {
        let trace = unwinder.unwind(thread.registers.as_ref().unwrap());
        let frames = fold(&trace).into_iter().map(|f| trace.frames[f.start]);
        let names: Vec<String> = frames.map(|f| symbols.frame(&f)[0].function.clone()).collect();
        assert_eq!(trace.end, "marked as the outermost frame", "{}: {names:?}", thread.tid);
        assert!(
            trace.frames[1..].iter().all(|f| matches!(f.trust, Trust::Cfi | Trust::Signal)),
            "{:?}",
            trace.frames
        );
        if thread.tid == k.crasher {
            let mut wanted = k.functions.iter().peekable();
            for name in &names {
                wanted.next_if(|w| name.ends_with(w.as_str()));
            }
            assert_eq!(wanted.next(), None, "{names:?}");
        }
    }
}

#[test]
fn each_crash_is_read_from_the_kernels_core() {
    let _dog = watchdog(180);
    for crash in
        [Crash::Segv, Crash::Abort, Crash::StackOverflow, Crash::Div0, Crash::DeadlockKill, Crash::Uaf]
    {
        let (victim, dir) = victim(crash, 3);
        let knowledge = victim.knowledge.clone();
        if let Err(why) = elf_core::catch::kernel_writes_here() {
            kit::skip!("core_pattern", "{why}");
        }
        let (path, writer) = victim.core(dir.path()).unwrap();
        assert_eq!(writer, Writer::Kernel);
        agrees(&path, &knowledge);
    }
}

#[test]
fn each_crash_is_read_from_our_own_core() {
    let _dog = watchdog(180);
    for crash in
        [Crash::Segv, Crash::Abort, Crash::StackOverflow, Crash::Div0, Crash::DeadlockKill, Crash::Uaf]
    {
        let (victim, dir) = victim(crash, 3);
        let knowledge = victim.knowledge.clone();
        let (path, _) = match victim.core_by_gcore(dir.path(), String::new()) {
            Err(e) if e.to_string().contains("EPERM") => kit::skip!("ptrace", "{e}"),
            other => other.unwrap(),
        };
        agrees(&path, &knowledge);
    }
}

#[test]
fn a_stack_overflow_is_folded() {
    let _dog = watchdog(180);
    let (victim, dir) = victim(Crash::StackOverflow, 0);
    let crasher = victim.knowledge.crasher;
    let Ok((path, _)) = victim.core(dir.path()) else {
        kit::skip!("core_pattern", "no core of the kernel or ptrace")
    };
    let mut core = Core::open(&path).unwrap();
    let memory = core.memory(&Lookup::default());
    let thread = core.process.threads.iter().find(|t| t.tid == crasher).unwrap();
    let trace = Unwinder::new(&memory).unwind(thread.registers.as_ref().unwrap());
    assert!(trace.frames.len() > 100_000, "{}", trace.frames.len());
    let folds = fold(&trace);
    assert!(folds.len() < 40, "{}", folds.len());
    assert!(folds.iter().any(|f| f.times > 100_000));
    assert_eq!(folds.iter().map(|f| f.len * f.times).sum::<usize>(), trace.frames.len());
    assert!(trace.frames.iter().any(|f| f.trust == Trust::Signal), "the overflow's own handler is crossed");
}

/// A core of `Crash::Segv`, by the kernel or else by gcore.
fn some_core(threads: usize) -> Option<(PathBuf, tempfile::TempDir, Knowledge)> {
    let (victim, dir) = victim(Crash::Segv, threads);
    let knowledge = victim.knowledge.clone();
    let (path, _) = victim.core(dir.path()).ok()?;
    Some((path, dir, knowledge))
}

#[test]
fn memory_comes_from_the_file_where_the_core_has_none() {
    let _dog = watchdog(180);
    let Some((path, _dir, k)) = some_core(0) else { kit::skip!("core_pattern", "no core") };
    let mut core = Core::open(&path).unwrap();
    let memory = core.memory(&Lookup::default());
    let rip = core.process.threads[0].registers.as_ref().unwrap().rip();
    assert!(matches!(memory.backing(rip), Backing::File(..)), "{:?}", memory.backing(rip));
    assert!(memory.u64(rip).is_some());
    assert!(matches!(memory.backing(k.pattern_at), Backing::Core(_)));
    assert_eq!(memory.backing(16), Backing::Unmapped);
    // The file as it was and the file as it is are compared by build-id, not by name.
    let other = _dir.path().join("another");
    fs::copy("/bin/true", &other).unwrap();
    let lookup = Lookup { exe: Some(other), ..Lookup::default() };
    let mut core = Core::open(&path).unwrap();
    let memory = core.memory(&lookup);
    match memory.backing(rip) {
        Backing::Missing(why) => assert!(why.contains("another build"), "{why}"),
        other => panic!("{other:?}"),
    }
    // Without any file: frames are still found, by less trusted ways, and have module+offset for a name.
    let mut core = Core::open(&path).unwrap();
    let memory = core.memory(&Lookup { none: true, ..Lookup::default() });
    let trace = Unwinder::new(&memory).unwind(core.process.threads[0].registers.as_ref().unwrap());
    assert!(trace.frames.len() > 1 && trace.frames[1].trust != Trust::Cfi);
    let name = Symbols::new(&memory, None, true).frame(&trace.frames[0])[0].function.clone();
    assert!(name.starts_with("elf-core+0x"), "{name}");
}

#[test]
fn a_deleted_program_is_said_to_be_deleted() {
    let _dog = watchdog(180);
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("gone");
    fs::copy(env!("CARGO_BIN_EXE_elf-core"), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["--victim", "segv", "--threads-of-victim", "0"]);
    let victim = elf_core::catch::Victim::start(command, Crash::Segv, dir.path()).unwrap();
    fs::remove_file(&program).unwrap();
    let Ok((path, _)) = victim.core(dir.path()) else { kit::skip!("core_pattern", "no core") };
    let mut core = Core::open(&path).unwrap();
    let memory = core.memory(&Lookup::default());
    let module = memory.modules.iter().find(|m| m.path.starts_with(dir.path())).unwrap();
    assert!(module.elf.as_ref().unwrap_err().contains("deleted while it ran"), "{:?}", module.elf);
    // With the file at hand again, everything is as before.
    let lookup = Lookup { exe: Some(env!("CARGO_BIN_EXE_elf-core").into()), ..Lookup::default() };
    let memory = core.memory(&lookup);
    assert!(memory.modules.iter().any(|m| m.path.starts_with(dir.path()) && m.elf.is_ok()));
}

#[test]
fn readelf_reads_the_same_notes_and_registers() {
    let _dog = watchdog(180);
    let Some((path, _dir, _)) = some_core(4) else { kit::skip!("core_pattern", "no core") };
    let Some(text) = output("eu-readelf", &["-n", path.to_str().unwrap()]) else {
        kit::skip!("elfutils", "no eu-readelf")
    };
    let core = Core::open(&path).unwrap();
    let fields = |line: &'_ str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = text.lines().map(fields).collect();
    let is_head = |l: &&Vec<String>| {
        l.len() > 2 && matches!(l[0].as_str(), "CORE" | "LINUX") && l[1].parse::<u64>().is_ok()
    };
    let theirs: Vec<(String, u64)> =
        lines.iter().filter(is_head).map(|l| (l[0].clone(), l[1].parse().unwrap())).collect();
    let ours: Vec<(String, u64)> = core.notes.iter().map(|n| (n.owner.name().to_owned(), n.len)).collect();
    assert_eq!(theirs, ours);
    // `rip: 0x…` and `pid: N,` of each thread
    let after = |name: &str| -> Vec<String> {
        let at = |l: &Vec<String>| {
            Some(l.get(l.iter().position(|w| w == name)? + 1)?.trim_end_matches(',').to_owned())
        };
        lines.iter().filter_map(at).collect()
    };
    let registers = || core.process.threads.iter().map(|t| t.registers.clone().unwrap());
    assert_eq!(
        after("rip:"),
        registers().map(|r: Registers| format!("{:#018x}", r.rip())).collect::<Vec<_>>()
    );
    assert_eq!(after("rsp:"), registers().map(|r| format!("{:#018x}", r.rsp())).collect::<Vec<_>>());
    assert_eq!(after("r12:").len(), core.process.threads.len());
    for (text, r) in after("r12:").iter().zip(registers()) {
        assert_eq!(
            text.parse::<u64>().ok().or(u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()),
            r.by_name("r12")
        );
    }
    let maps = lines.iter().filter(|l| l.len() == 4 && l[3].starts_with('/') && l[0].contains('-')).count();
    assert_eq!(maps, core.process.files.len());
    for f in &core.process.files {
        let line = format!("{:08x}-{:08x} {:08x}", f.start, f.end, f.offset);
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn goblin_reads_the_same_headers_and_notes() {
    let _dog = watchdog(180);
    let Some((path, _dir, _)) = some_core(2) else { kit::skip!("core_pattern", "no core") };
    let bytes = fs::read(&path).unwrap();
    let core = Core::open(&path).unwrap();
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    let theirs: Vec<_> = elf
        .program_headers
        .iter()
        .map(|p| (p.p_type, p.p_flags, p.p_offset, p.p_vaddr, p.p_filesz, p.p_memsz))
        .collect();
    let ours: Vec<_> =
        core.segments.iter().map(|s| (s.kind, s.flags, s.offset, s.vaddr, s.filesz, s.memsz)).collect();
    assert_eq!(theirs, ours);
    let notes: Vec<_> = elf
        .iter_note_headers(&bytes)
        .unwrap()
        .map(|n| n.unwrap())
        .map(|n| (n.n_type, n.desc.to_vec()))
        .collect();
    let ours: Vec<_> = core.notes.iter().map(|n| (n.kind, n.desc(&core.source, u64::MAX))).collect();
    assert_eq!(notes, ours);
}

#[test]
fn lief_reads_the_same_threads_notes_and_mappings() {
    let _dog = watchdog(180);
    let script = "import sys, lief\n\
        core = lief.ELF.parse(sys.argv[1])\n\
        T = lief.ELF.Note.TYPE\n\
        for n in core.notes:\n\
        \x20 print('note', n.name.rstrip(chr(0)), n.original_type, len(n.description))\n\
        \x20 if n.type == T.CORE_PRSTATUS: print('tid', n.status.pid, n.pc)\n\
        \x20 if n.type == T.CORE_FILE:\n\
        \x20   for f in n: print('file', f.start, f.end, f.path)\n\
        for s in core.segments: print('segment', s.file_offset, s.physical_size, s.virtual_address, s.virtual_size)\n";
    let Some((path, _dir, _)) = some_core(4) else { kit::skip!("core_pattern", "no core") };
    if !Command::new("python3").args(["-c", "import lief"]).output().is_ok_and(|o| o.status.success()) {
        kit::skip!("lief", "no python3 with lief (pip install lief)");
    }
    let text = output("python3", &["-c", script, path.to_str().unwrap()]).unwrap();
    let core = Core::open(&path).unwrap();
    let mut ours: Vec<String> = Vec::new();
    for t in &core.process.threads {
        ours.push(format!("tid {} {}", t.tid, t.registers.as_ref().unwrap().rip()));
    }
    let theirs =
        |kind: &str| text.lines().filter(|l| l.starts_with(kind)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(theirs("tid"), ours, "{text}");
    let files: Vec<_> = core
        .process
        .files
        .iter()
        .map(|f| format!("file {} {} {}", f.start, f.end, f.path.display()))
        .collect();
    assert_eq!(theirs("file"), files);
    // LIEF leaves out a note that equals another one, as empty FPU registers do, and counts the padding to 4 bytes.
    let note = |n: &elf_core::s2_notes::Note| {
        format!("note {} {} {}", n.owner.name(), n.kind, n.len.next_multiple_of(4))
    };
    let notes: Vec<_> = core.notes.iter().map(note).collect();
    let mut rest = notes.iter();
    assert!(theirs("note").iter().all(|n| rest.any(|o| o == n)), "{:?}\n{notes:?}", theirs("note"));
    assert_eq!(theirs("note").iter().collect::<BTreeSet<_>>(), notes.iter().collect::<BTreeSet<_>>());
    let segment = |s: &elf_core::s1_header::Segment| {
        format!("segment {} {} {} {}", s.offset, s.filesz, s.vaddr, s.memsz)
    };
    assert_eq!(theirs("segment"), core.segments.iter().map(segment).collect::<Vec<_>>());
}
