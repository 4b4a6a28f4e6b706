//! Our own gcore: what it writes, and that nobody is harmed.

mod common;

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use common::victim;
use elf_core::Core;
use elf_core::gcore::Stopped;
use elf_core::s4_memory::Lookup;
use elf_core::victim::{Crash, pattern};
use kit::testing::watchdog;

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

#[test]
fn a_snapshot_harms_nobody_and_others_can_read_it() {
    let _dog = watchdog(180);
    let (mut victim, dir) = victim(Crash::Park, 6);
    let path = dir.path().join("snapshot");
    let written = match victim.snapshot(&path) {
        Err(e) if e.to_string().contains("EPERM") => kit::skip!("ptrace", "{e}"),
        other => other.unwrap(),
    };
    assert!(victim.is_alive());
    assert_eq!(written.threads, 7);
    let state = fs::read_to_string(format!("/proc/{}/status", victim.pid())).unwrap();
    assert!(state.contains("TracerPid:\t0") && !state.contains("State:\tT"), "{state}");
    let mut core = Core::open(&path).unwrap();
    let memory = core.memory(&Lookup::default());
    assert_eq!(core.process.threads.len(), 7);
    assert!(memory.search(pattern().as_bytes(), 10).contains(&victim.knowledge.pattern_at));
    assert_eq!(core.cause(&memory, None), "It did not die: this is a snapshot of a running process.");
    let path = path.to_str().unwrap();
    if let Some(text) = output("eu-readelf", &["-n", path]) {
        assert!(!text.contains("warning") && !text.contains("cannot") && !text.contains("invalid"), "{text}");
    }
    if let Some(text) = output(
        "gdb",
        &["-q", "-nx", "-batch", "-ex", "thread apply all bt", env!("CARGO_BIN_EXE_elf-core"), path],
    ) {
        assert_eq!(text.matches("wait_for_work").count(), 6 * 4, "{text}");
        // gdb complains about xsave areas larger than it knows, of the kernel's own cores as well.
        let complaints: Vec<&str> = text
            .lines()
            .filter(|l| l.starts_with("warning") && !l.contains("xstate") && !l.contains("auto-load"))
            .collect();
        assert_eq!(complaints, [""; 0]);
    }
}

#[test]
fn a_writer_killed_midway_harms_nobody() {
    let _dog = watchdog(180);
    let (mut victim, dir) = victim(Crash::Park, 20);
    for _ in 0..10 {
        let mut writer = Command::new(env!("CARGO_BIN_EXE_elf-core"))
            .args(["--gcore", &victim.pid().to_string(), "--out", dir.path().join("x").to_str().unwrap()])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Wait until it holds a thread, then kill it: wherever it is then.
        let status = format!("/proc/{}/status", victim.pid());
        let held = || fs::read_to_string(&status).is_ok_and(|s| !s.contains("TracerPid:\t0"));
        while !held() && matches!(writer.try_wait(), Ok(None)) {
            std::hint::spin_loop();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        assert!(victim.is_alive());
        for task in fs::read_dir(format!("/proc/{}/task", victim.pid())).unwrap().flatten() {
            let state = fs::read_to_string(task.path().join("status")).unwrap();
            assert!(state.contains("TracerPid:\t0") && !state.contains("State:\tt"), "{state}");
        }
    }
    // Of an unfinished core nothing is left, unless the file system cannot hide it.
    let nameless = fs::File::options().write(true).custom_flags(libc::O_TMPFILE).open(dir.path()).is_ok();
    assert!(!nameless || !dir.path().join("x.part").exists());
}

#[test]
fn the_filter_is_honoured() {
    let _dog = watchdog(180);
    let (victim, dir) = victim(Crash::Park, 0);
    let filter = format!("/proc/{}/coredump_filter", victim.pid());
    let anonymous_in = |name: &str| {
        let path = dir.path().join(name);
        victim.snapshot(&path).map(|_| {
            Core::open(&path).unwrap().memory(&Lookup::default()).search(pattern().as_bytes(), 1).len()
        })
    };
    let found = match anonymous_in("with") {
        Err(e) => kit::skip!("ptrace", "{e}"),
        Ok(n) => n,
    };
    assert_eq!(found, 1);
    fs::write(filter, "0x10").unwrap(); // ELF headers only
    assert_eq!(anonymous_in("without").unwrap(), 0);
}

#[test]
fn two_snapshots_differ_where_the_process_wrote() {
    let _dog = watchdog(180);
    let (victim, dir) = victim(Crash::Park, 2);
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    if let Err(e) = victim.snapshot(&a) {
        kit::skip!("ptrace", "{e}");
    }
    // The parent writes where it knows that the pattern is.
    let memory = fs::File::options().write(true).open(format!("/proc/{}/mem", victim.pid())).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&memory, b"BENCH", victim.knowledge.pattern_at).unwrap();
    victim.snapshot(&b).unwrap();
    let (mut old, mut new) = (Core::open(&a).unwrap(), Core::open(&b).unwrap());
    let (m, n) = (old.memory(&Lookup::default()), new.memory(&Lookup::default()));
    let d = elf_core::diff::diff((&old, &m), (&new, &n), |_| {});
    assert!(
        d.pages.iter().any(|(at, n)| (*at..at + n * 4096).contains(&victim.knowledge.pattern_at)),
        "{:x?}",
        d.pages
    );
    assert!(d.pages.iter().map(|(_, n)| n).sum::<u64>() < d.compared / 10);
    assert!(d.born.is_empty() && d.gone.is_empty());
    let same = elf_core::diff::diff((&old, &m), (&old, &m), |_| {});
    assert!(same.pages.is_empty() && same.registers.is_empty() && same.compared == d.compared);
}

#[test]
fn gcore_of_nobody_says_so() {
    let error = Stopped::all_of(i32::MAX).unwrap_err();
    assert_eq!(error.symbol(), "ENOENT");
}
