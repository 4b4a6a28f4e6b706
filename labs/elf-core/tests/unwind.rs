//! Backtraces of programs built in many ways: what gdb says of them, and what they need to be found.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::output;
use elf_core::Core;
use elf_core::s4_memory::Lookup;
use elf_core::s6_unwind::Trust;
use elf_core::s7_symbols::Symbols;
use kit::testing::watchdog;

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
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
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
