//! A cpuset that changes while the lab runs: its threads are moved, and CPUs that it asked for are gone.

#![allow(missing_docs, reason = "test")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kit::testing::watchdog;
use rseq_spinlock::cpus;
use rseq_spinlock::sys::rseq::Thread;
use serde_json::Value;

/// A cpuset of our own; gone when dropped.
struct Cpuset(PathBuf);

impl Cpuset {
    /// Below the root of cgroup v1's cpuset, or of v2 where the root hands that controller on.
    fn create() -> io::Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/cpuset");
        let v2 = Path::new("/sys/fs/cgroup");
        let handed_on = fs::read_to_string(v2.join("cgroup.subtree_control")).unwrap_or_default();
        let root = match () {
            () if v1.join("cpuset.cpus").exists() => v1,
            () if handed_on.split_whitespace().any(|c| c == "cpuset") => v2,
            () => return Err(io::Error::other("no cpuset controller, v1 or v2")),
        };
        let own = root.join(format!("rseq-spinlock-{}", std::process::id()));
        fs::create_dir(&own)?;
        let set = Self(own);
        // v1 wants both before a process may enter.
        set.write("cpuset.mems", fs::read_to_string(root.join("cpuset.mems")).unwrap_or_default().trim())?;
        Ok(set)
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.0.join(file), value)
    }
}

impl Drop for Cpuset {
    fn drop(&mut self) {
        // A process that has just been waited for may still be on its way out of the group.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs a view while the set goes from CPU to CPU.
fn run(set: &Cpuset, cpus: &[usize], args: &[&str]) {
    set.write("cpuset.cpus", &format!("{},{}", cpus[0], cpus[1])).expect("these are ours");
    let child: Child = Command::new(env!("CARGO_BIN_EXE_rseq-spinlock"))
        .args(args)
        .args(["--json", "--quick"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the lab's own binary starts");
    set.write("cgroup.procs", &child.id().to_string()).expect("root may move it");
    let output = std::thread::spawn(move || child.wait_with_output());
    let mut turn = 0;
    while !output.is_finished() {
        turn += 1;
        let cpu = cpus[turn % 2].to_string();
        set.write("cpuset.cpus", &cpu).expect("a set may change while it is used");
        std::thread::sleep(Duration::from_millis(3));
    }
    let output = output.join().expect("no panic").expect("it has ended");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {told}");
    let run: Value = serde_json::from_slice(&output.stdout).expect("--json prints one document");
    assert_eq!(run["ok"], true, "{args:?}: {}", run["checks"]);
    assert!(turn > 1);
}

#[test]
fn a_changing_cpuset_costs_nothing_but_time() {
    let _dog = watchdog(180);
    if let Err(e) = Thread::current() {
        kit::skip!("rseq", "{e}");
    }
    let cpus = cpus::allowed().expect("affinity");
    if cpus.len() < 2 {
        kit::skip!("second CPU", "a cpuset of one CPU has nowhere to go");
    }
    let set = match Cpuset::create() {
        Ok(set) => set,
        Err(e) => kit::skip!("cpuset", "{e}"),
    };
    for args in [
        &[][..],
        &["--locks", "--time", "10"],
        &["--preempt"],
        &["--percpu"],
        &["--trace-aborts"],
        &["--anatomy"],
    ] {
        run(&set, &cpus, args);
    }
    let path = set.0.clone();
    drop(set);
    assert!(!path.exists(), "the cpuset is left");
}
