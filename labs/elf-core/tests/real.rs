//! Real cores: what the victim knew of itself, and what other readers say.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::victim;
use elf_core::Core;
use elf_core::catch::Writer;
use elf_core::s3_process::Registers;
use elf_core::s4_memory::{Backing, Lookup};
use elf_core::s6_unwind::{Trust, Unwinder};
use elf_core::s7_symbols::{Symbols, fold};
use elf_core::victim::{Crash, Knowledge, pattern};
use kit::testing::watchdog;

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

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
    let _dog = watchdog(150);
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
    let _dog = watchdog(150);
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
    let _dog = watchdog(150);
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
    let _dog = watchdog(30);
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
    let _dog = watchdog(30);
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
    let _dog = watchdog(30);
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
    let _dog = watchdog(30);
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
    let _dog = watchdog(150);
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

/// The program for the compilers: three functions, a signal handler between two of them, a known chain.
const PROGRAM: &str = r#"
#include <signal.h>
#include <stdlib.h>
volatile int sink;
__attribute__((noinline)) void innermost(int x) { sink = x; abort(); }
__attribute__((noinline)) void handler(int s) { innermost(s); sink = 2; }
__attribute__((noinline)) int outer(int n) { if (n) { sink = outer(n - 1); return sink; } raise(SIGUSR1); return sink; }
int main(int argc, char **argv) { signal(SIGUSR1, handler); return outer(argc + 4) + sink; }
"#;

/// Runs the program `p` of a directory until it dies; its core.
fn core_of_p(dir: &Path) -> Option<PathBuf> {
    let shell = ["-c", "ulimit -c unlimited; ./p >p.out 2>&1"];
    let _ = Command::new("sh").args(shell).current_dir(dir).output();
    let is_core = |p: &PathBuf| p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"core"));
    fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).find(is_core)
}

/// The first thread's frames are gdb's, and the `wanted` functions are among them, in order.
fn unwinds_as_gdb_does(dir: &Path, path: &Path, wanted: &[&str], how: &str) {
    let mut core = Core::open(path).unwrap();
    let memory = core.memory(&Lookup::default());
    let trace = core.backtraces(&memory).remove(0).unwrap();
    let ours: Vec<u64> = trace.frames.iter().map(|f| f.pc).collect();
    let commands = ["set backtrace past-main on", "frame apply all -q printf \"PC %#lx %#lx\\n\", $pc, $sp"];
    let (program, core_path) = (dir.join("p"), path.to_str().unwrap());
    let arguments = ["-q", "-nx", "-batch", "-ex", commands[0], "-ex", commands[1]];
    let gdb = output("gdb", &[&arguments[..], &[program.to_str().unwrap(), core_path]].concat()).unwrap();
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let frame = |l: &str| {
        let (pc, sp) = l.strip_prefix("PC ")?.split_once(' ')?;
        Some((number(pc)?, number(sp)?))
    };
    let mut theirs: Vec<(u64, u64)> = gdb.lines().filter_map(frame).collect();
    // gdb counts an inlined function as a frame with the place and the stack pointer of its caller.
    theirs.dedup();
    let theirs: Vec<u64> = theirs.into_iter().map(|(pc, _)| pc).collect();
    let in_program = |pc: &u64| memory.module(*pc).is_some_and(|m| m.path.ends_with("p"));
    let own = |pcs: &[u64]| pcs.iter().copied().filter(in_program).collect::<Vec<_>>();
    assert!(own(&ours).len() >= wanted.len(), "{how}: {ours:x?}");
    assert_eq!(own(&ours), own(&theirs), "{how}, ended because {}\n{gdb}", trace.end);
    // In the C library gdb also shows tail calls, which it works out from DWARF; ours must all be among them, in order.
    let mut rest = theirs.iter();
    assert!(ours.iter().all(|pc| rest.any(|p| p == pc)), "{how}: {ours:x?}\n{gdb}");
    let mut symbols = Symbols::new(&memory, None, true);
    let names: Vec<String> = trace
        .frames
        .iter()
        .flat_map(|f| symbols.frame(f).iter().map(|p| p.function.clone()).collect::<Vec<_>>())
        .collect();
    let mut rest = names.iter();
    for name in wanted {
        assert!(rest.any(|n| n.rsplit("::").next() == Some(*name)), "{how}: {name} in {names:?}");
    }
}

#[test]
fn c_programs_of_all_kinds_unwind_as_gdb_does() {
    let _dog = watchdog(200);
    if let Err(why) = elf_core::catch::kernel_writes_here() {
        kit::skip!("core_pattern", "{why}");
    }
    if output("gcc", &["--version"]).is_none() || output("gdb", &["--version"]).is_none() {
        kit::skip!("gcc_gdb", "no gcc or gdb");
    }
    let dir = tempfile::tempdir().unwrap();
    for optimisation in ["-O0", "-O1", "-O2"] {
        for pointers in ["-fomit-frame-pointer", "-fno-omit-frame-pointer"] {
            let here = dir.path().join(format!("{optimisation}{pointers}"));
            fs::create_dir(&here).unwrap();
            fs::write(here.join("p.c"), PROGRAM).unwrap();
            let flags = ["-g", optimisation, pointers, "-o", "p", "p.c"];
            assert!(Command::new("gcc").args(flags).current_dir(&here).status().unwrap().success());
            let Some(path) = core_of_p(&here) else { kit::skip!("rlimit_core", "the program left no core") };
            let how = format!("{optimisation} {pointers}");
            unwinds_as_gdb_does(&here, &path, &["innermost", "handler", "outer", "main"], &how);
        }
    }
}

/// The same in Rust: recursion, a closure behind a pointer, generic code of the library between it and main.
const RUST_PROGRAM: &str = r#"
use std::hint::black_box;
#[inline(never)]
fn innermost(n: u32) -> u32 { if black_box(n) == 0 { std::process::abort() } n + 1 }
#[inline(never)]
fn outer(n: u32) -> u32 {
    if n > 0 { return black_box(outer(n - 1)) + 1; }
    black_box(innermost(n)) + 1
}
fn main() {
    let sum: u32 = black_box(vec![4_u32]).iter().map(|n| black_box(outer(*n)) + 1).sum();
    println!("{sum}");
}
"#;

#[test]
fn rust_programs_of_all_kinds_unwind_as_gdb_does() {
    let _dog = watchdog(200);
    if let Err(why) = elf_core::catch::kernel_writes_here() {
        kit::skip!("core_pattern", "{why}");
    }
    if output("gdb", &["--version"]).is_none() {
        kit::skip!("gdb", "not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    for (level, pointers) in [("0", "no"), ("1", "yes"), ("2", "no"), ("2", "yes")] {
        let here = dir.path().join(format!("{level}{pointers}"));
        fs::create_dir(&here).unwrap();
        fs::write(here.join("p.rs"), RUST_PROGRAM).unwrap();
        let (level, pointers) = (format!("opt-level={level}"), format!("force-frame-pointers={pointers}"));
        let flags = ["-g", "--edition=2021", "-C", &level, "-C", &pointers, "p.rs"];
        match Command::new("rustc").args(flags).current_dir(&here).output() {
            Ok(out) if out.status.success() => {}
            // rustup's stand-in for a user who has no toolchain also ends here.
            other => kit::skip!("rustc", "cannot compile: {other:?}"),
        }
        let Some(path) = core_of_p(&here) else { kit::skip!("rlimit_core", "the program left no core") };
        let how = format!("{level} {pointers}");
        unwinds_as_gdb_does(&here, &path, &["abort", "innermost", "outer", "outer", "main"], &how);
    }
}

#[test]
fn compressed_line_tables_are_said_to_be_so() {
    let _dog = watchdog(150);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.c"), "int main(void) { return *(volatile int *)8; }\n").unwrap();
    for (flag, compressed) in [("-gz=zlib", true), ("-gz=none", false)] {
        let flags = ["-g", flag, "-o", "p", "p.c"];
        if !Command::new("gcc").args(flags).current_dir(dir.path()).status().is_ok_and(|s| s.success()) {
            kit::skip!("gcc", "no gcc that compresses debug sections");
        }
        let elf = elf_core::s5_module::Elf::open(&dir.path().join("p")).unwrap();
        assert_eq!((elf.has_compressed_dwarf(), elf.has_dwarf()), (compressed, !compressed));
    }
}

#[test]
fn a_stripped_program_without_tables_is_walked_by_its_frame_pointers() {
    let _dog = watchdog(150);
    if let Err(why) = elf_core::catch::kernel_writes_here() {
        kit::skip!("core_pattern", "{why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let chain = "int d(int *p) { return *p + 1; }\nint c(int *p) { return d(p) + 1; }\nint b(int *p) { return c(p) + 1; }\nint main(void) { return b(0) + 1; }\n";
    fs::write(dir.path().join("p.c"), chain).unwrap();
    let flags = [
        "-O0",
        "-fno-omit-frame-pointer",
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
        "-o",
        "p",
        "p.c",
    ];
    if !Command::new("gcc").args(flags).current_dir(dir.path()).status().is_ok_and(|s| s.success()) {
        kit::skip!("gcc", "no gcc");
    }
    let _ = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; ./p 2>/dev/null"])
        .current_dir(dir.path())
        .output();
    let path = dir.path().join("core");
    let mut core = match Core::open(&path) {
        Ok(core) => core,
        Err(e) => kit::skip!("rlimit_core", "{e}"),
    };
    let memory = core.memory(&Lookup::default());
    let trace = core.backtraces(&memory).remove(0).unwrap();
    let mut symbols = Symbols::new(&memory, None, true);
    let names: Vec<String> = trace.frames.iter().map(|f| symbols.frame(f)[0].function.clone()).collect();
    assert_eq!(names[..4], ["d", "c", "b", "main"]);
    assert!(trace.frames[1..4].iter().all(|f| f.trust == Trust::FramePointer), "{:?}", trace.frames);
}

#[test]
fn debug_information_is_found_by_build_id() {
    let _dog = watchdog(150);
    let dir = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).current_dir(dir.path()).status().is_ok_and(|s| s.success())
    };
    fs::write(dir.path().join("p.c"), "int main(void) { return *(volatile int *)8; }\n").unwrap();
    let built = run("gcc", &["-g", "-Wl,--build-id", "-o", "p", "p.c"])
        && run("objcopy", &["--only-keep-debug", "p", "p.debug"]);
    if !built || !run("strip", &["--strip-all", "p"]) {
        kit::skip!("gcc", "no gcc and binutils");
    }
    let elf = elf_core::s5_module::Elf::open(&dir.path().join("p")).unwrap();
    let id = elf_core::s5_module::hex(elf.build_id.as_deref().unwrap());
    let place = dir.path().join("root/usr/lib/debug/.build-id").join(&id[..2]);
    fs::create_dir_all(&place).unwrap();
    fs::rename(dir.path().join("p.debug"), place.join(format!("{}.debug", &id[2..]))).unwrap();
    let found = elf.debug_file(Some(&dir.path().join("root"))).unwrap();
    assert!(found.has_dwarf() && !elf.has_dwarf());
    assert!(elf.debug_file(Some(dir.path())).is_none());
}
