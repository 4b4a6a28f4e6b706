//! The crash collector. These tests change core_pattern, which is the whole machine's: the guardian's lock serialises them.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::victim;
use elf_core::Core;
use elf_core::collect::{CORE_PATTERN, Collector, Way};
use elf_core::s4_memory::Lookup;
use elf_core::victim::Crash;
use kit::testing::watchdog;
use nix::fcntl::{Flock, FlockArg};

const PROGRAM: &str = env!("CARGO_BIN_EXE_elf-core");

/// The pattern while nobody has it changed: read under the guardian's lock.
fn pattern_at_rest() -> String {
    let file = fs::File::open(CORE_PATTERN).unwrap();
    let _lock = Flock::lock(file, FlockArg::LockShared).map_err(|(_, e)| e).unwrap();
    fs::read_to_string(CORE_PATTERN).unwrap()
}

fn collects(way: Way) {
    let _dog = watchdog(180);
    let feature = if way == Way::Pipe { "core_pattern_writable" } else { "coredump_socket" };
    let before = pattern_at_rest();
    let dir = tempfile::tempdir().unwrap();
    let mut collector = match Collector::start(way, dir.path(), Path::new(PROGRAM)) {
        Ok(collector) => collector,
        Err(e) => kit::skip!(feature, "{e}"),
    };
    let (mut victim, _home) = victim(Crash::Segv, 2);
    let knowledge = victim.knowledge.clone();
    victim.crash();
    let core = loop {
        match collector.next(Duration::from_secs(20)).unwrap() {
            Some(core) if core.pid == knowledge.pid => break core,
            Some(_) => {} // somebody else's crash at the same time
            None => kit::skip!(feature, "the kernel brought no core (a container sees another file system?)"),
        }
    };
    drop(collector);
    let mut core = Core::open(&core.path).unwrap();
    let memory = core.memory(&Lookup::default());
    assert_eq!(core.process.threads.len(), 4);
    assert_eq!(core.process.siginfo.unwrap().address, knowledge.fault);
    assert!(memory.search(elf_core::victim::pattern().as_bytes(), 10).contains(&knowledge.pattern_at));
    assert_eq!(pattern_at_rest(), before);
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .filter(|n| n.as_encoded_bytes()[0] == b'.')
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn by_pipe() {
    collects(Way::Pipe);
}

#[test]
fn by_socket() {
    collects(Way::Socket);
}

#[test]
fn the_setting_is_restored_when_the_collector_is_killed() {
    let _dog = watchdog(180);
    let before = pattern_at_rest();
    for signal in [nix::sys::signal::SIGKILL, nix::sys::signal::SIGINT] {
        let dir = tempfile::tempdir().unwrap();
        let mut collector = Command::new(PROGRAM)
            .args(["--collect", dir.path().to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ours = |p: &str| p.contains(dir.path().to_str().unwrap());
        loop {
            if ours(&fs::read_to_string(CORE_PATTERN).unwrap()) {
                break;
            }
            if let Ok(Some(status)) = collector.try_wait() {
                kit::skip!("core_pattern_writable", "the collector ended with {status}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(collector.id() as i32), signal).unwrap();
        collector.wait().unwrap();
        // The guardian holds the lock until it has restored the pattern.
        assert_eq!(pattern_at_rest(), before, "{signal}");
        let left = |e: &fs::DirEntry| e.file_name().as_encoded_bytes()[0] == b'.';
        assert!(!fs::read_dir(dir.path()).unwrap().flatten().any(|e| left(&e)), "{signal}");
    }
}
