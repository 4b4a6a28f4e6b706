//! Programs from inside, held against other readers of the same bytes.

mod common;

use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Output};

use bpf_trace::disasm::Insn;
use bpf_trace::inside::{Inside, Jit};
use bpf_trace::s1_by_hand;
use bpf_trace::sys::{bpf, inspect};
use kit::testing::watchdog;

/// A tool's output; `None`: not installed.
fn tool(name: &str, args: &[&str]) -> Option<Output> {
    let found = Command::new(name).args(args).output();
    // Some keep administrators' tools off the PATH.
    found.or_else(|_| Command::new(Path::new("/usr/sbin").join(name)).args(args).output()).ok()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_disassembler_reads_every_object_as_llvm_does() {
    let mut read = 0;
    for object in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf")).unwrap() {
        let path = object.unwrap().path();
        if path.extension().is_none_or(|e| e != "o") {
            continue;
        }
        let Some(out) = tool("llvm-objdump-14", &["-d", path.to_str().unwrap()]) else {
            kit::skip!("llvm-objdump-14", "apt install llvm-14");
        };
        // "       3:	0f 12 00 00 00 00 00 00	r2 += r1", a jump's with "<label>" behind it
        for line in text(&out).lines() {
            let mut parts = line.trim().split('\t');
            let (Some(_), Some(bytes), Some(theirs)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let bytes: Vec<u8> =
                bytes.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
            let words: Vec<u64> =
                bytes.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap())).collect();
            let ours = Insn::from(words[0]).text(words.get(1).copied());
            let label = theirs.rfind(" <").filter(|_| theirs.ends_with('>'));
            let theirs = theirs[..label.unwrap_or(theirs.len())].trim();
            match theirs.strip_suffix(" ll").and_then(|t| t.rsplit_once(' ')) {
                Some((to, value)) => {
                    assert_eq!(ours, format!("{to} {:#x} ll", value.parse::<i64>().unwrap()));
                }
                // Where a call leads within its section: it leaves the sign out.
                None if theirs.starts_with("call ") => assert_eq!(ours.replace('+', ""), theirs, "{line}"),
                None => assert_eq!(ours, theirs, "{line}"),
            }
            read += 1;
        }
    }
    assert!(read > 300, "{read} instructions are not the lab's objects");
}

#[test]
fn the_code_is_what_bpftool_dumps() {
    let _dog = watchdog(180);
    needs_bpf!();
    let dump = tempfile::NamedTempFile::new().unwrap();
    for name in ["counter", "syscalls", "syscalls/sys_enter"] {
        let inside = Inside::open(name, false).unwrap().unwrap();
        let running = inspect::running(inside.program()).unwrap();
        let id = bpf::prog_info(inside.program()).unwrap().id.to_string();
        let path = dump.path().to_str().unwrap();
        let Some(out) = tool("bpftool", &["prog", "dump", "xlated", "id", &id, "file", path]) else {
            kit::skip!("bpftool", "apt install bpftool");
        };
        text(&out);
        let ours: Vec<u8> = running.bytecode.iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(ours, std::fs::read(path).unwrap(), "{name}");
        let out = tool("bpftool", &["--json", "prog", "show", "id", &id]).unwrap();
        let shown: serde_json::Value = serde_json::from_str(&text(&out)).unwrap();
        let ids: Vec<u64> =
            shown["map_ids"].as_array().unwrap().iter().filter_map(|id| id.as_u64()).collect();
        assert_eq!(ids, running.map_ids.iter().map(|id| u64::from(*id)).collect::<Vec<_>>());
        for (id, map) in ids.iter().zip(&inside.maps) {
            let out = tool("bpftool", &["--json", "map", "show", "id", &id.to_string()]).unwrap();
            let shown: serde_json::Value = serde_json::from_str(&text(&out)).unwrap();
            assert_eq!(shown["bytes_key"], map.key);
            assert_eq!(shown["bytes_value"], map.value);
            assert_eq!(shown["max_entries"], map.entries);
            assert_eq!(shown["bytes_memlock"].as_u64(), map.memory);
        }
    }
}

#[test]
fn machine_code_is_cut_where_objdump_cuts_it() {
    let _dog = watchdog(180);
    needs_bpf!();
    let file = tempfile::NamedTempFile::new().unwrap();
    for name in ["counter", "syscalls"] {
        let inside = Inside::open(name, false).unwrap().unwrap();
        if inside.jit != Jit::Shown {
            kit::skip!("bpf.jit", "there is no machine code to be seen here");
        }
        std::fs::write(file.path(), inspect::running(inside.program()).unwrap().machine).unwrap();
        let path = file.path().to_str().unwrap();
        let Some(out) = tool("objdump", &["-D", "-w", "-b", "binary", "-m", "i386:x86-64", path]) else {
            kit::skip!("cc", "objdump comes with binutils");
        };
        let theirs: Vec<u64> = text(&out)
            .lines()
            .filter_map(|l| l.split_once(":\t"))
            .map(|(at, _)| u64::from_str_radix(at.trim(), 16).unwrap())
            .collect();
        assert_eq!(inside.machine.iter().map(|m| m.at).collect::<Vec<_>>(), theirs, "{name}");
        assert!(inside.machine.iter().all(|m| m.text != "(bad)"), "{name}");
        // Each instruction of the bytecode, or line of the source, has led to some.
        assert!(inside.machine.iter().filter(|m| m.source.is_some()).count() > 5, "{name}");
    }
}

#[test]
fn what_the_verifier_knew_of_the_counter() {
    let _dog = watchdog(180);
    needs_bpf!();
    let inside = Inside::open("", false).unwrap().unwrap();
    let call = inside.submitted.iter().find(|i| i.text == "call bpf_map_lookup_elem").unwrap();
    assert!(call.known.as_ref().unwrap().after.contains("R0"), "{call:?}");
    assert!(inside.submitted.iter().any(|i| i.text == "r1 = map counts"));
    assert!(inside.submitted.iter().all(|i| i.known.is_some()), "every instruction of it is on a path");
    assert!(inside.log.processed >= 10);
    assert_eq!(inside.maps.len(), 1);
    assert_eq!((inside.maps[0].kind, inside.maps[0].key, inside.maps[0].value), (2, 4, 8));
}

#[test]
fn a_thousand_test_runs_are_a_thousand_counts_from_several_threads_too() {
    let _dog = watchdog(180);
    needs_bpf!();
    let inside = Inside::open("counter", false).unwrap().unwrap();
    assert_eq!(inside.run(1000).unwrap(), Some(1000));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| inside.run(1000).unwrap());
        }
    });
    assert_eq!(inside.run(0).unwrap(), Some(5000));
    // The result of a run is the program's r0.
    let map = bpf::map_create(2, 4, 8, 1).unwrap();
    let code = s1_by_hand::program(map.as_fd());
    let code = bpf::Code { kind: bpf::RAW_TRACEPOINT, instructions: &code, ..bpf::Code::default() };
    let program = bpf::prog_load(code, 0).program.unwrap();
    assert_eq!(bpf::test_run(program.as_fd(), &[1, 2]).unwrap(), 0);
}

#[test]
fn nothing_is_left_when_it_has_been_looked_at() {
    let _dog = watchdog(180);
    needs_bpf!();
    let inside = Inside::open("syscalls", false).unwrap().unwrap();
    let id = bpf::prog_info(inside.program()).unwrap().id;
    assert!(bpf::is_loaded(id).unwrap());
    drop(inside);
    assert!(!bpf::is_loaded(id).unwrap());
}

/// Loading is the longer part of a trace's start, and grows with what the verifier has to walk through.
#[test]
fn no_program_of_a_view_keeps_the_verifier_long() {
    let _dog = watchdog(300);
    needs_bpf!();
    for name in Inside::names() {
        let inside = Inside::open(&name, false).unwrap().unwrap();
        assert!(
            inside.log.processed > 0 && inside.log.processed < 20_000,
            "{name}: {}",
            inside.log.processed
        );
    }
}

#[test]
fn the_command_line_shows_any_program_and_says_which_there_are() {
    let _dog = watchdog(300);
    needs_bpf!();
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_bpf-trace")).args(args).output().unwrap();
    // Each view's, too: what is named here as its program must be there.
    let all = Inside::names();
    let all = all.iter().map(String::as_str);
    for name in all.chain(["syscalls/raw_sys_exit", "gallery/leak_mended", "runq/sched_wakeup"]) {
        let out = run(&["--json", "--inside", name]);
        let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(shown["ok"], true, "{name}: {shown}");
    }
    for name in ["nothing", "syscalls/nothing"] {
        let out = run(&["--inside", name]);
        assert_eq!(out.status.code(), Some(2), "{name}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("counter"), "{name}");
    }
    // One that is refused says why.
    let out = run(&["--inside", "gallery/null"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("map_value_or_null"));
}
