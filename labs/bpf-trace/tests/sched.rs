//! Run queues and softirqs, held against what the kernel itself counts.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use bpf_trace::runq::{self, Runq};
use bpf_trace::softirq::{Softirq, VECTORS};
use bpf_trace::{Filter, Means};
use kit::testing::watchdog;

/// A shell that works only when told to, and is asleep in between.
struct Shell {
    child: Child,
    words: Option<ChildStdin>,
    answers: BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn start(script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let words = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, words, answers }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn tell(&mut self) {
        self.words.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn hear(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the shell has ended");
    }

    /// Waits until the shell sleeps; how often it has left the CPU so far, as the kernel counts it.
    fn asleep(&self) -> u64 {
        let status = || std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let switches = |status: &str| -> u64 {
            let lines = status.lines().filter_map(|line| line.split_once("_ctxt_switches:"));
            lines.map(|(_, n)| n.trim().parse::<u64>().unwrap()).sum()
        };
        loop {
            let before = status();
            // A while, so that it is not just on its way there.
            std::thread::sleep(Duration::from_millis(20));
            let after = status();
            if [&before, &after].iter().all(|s| s.contains("State:\tS"))
                && switches(&before) == switches(&after)
            {
                return switches(&after);
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.words = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_thread_waits_as_often_as_it_leaves_the_cpu() {
    let _dog = watchdog(180);
    needs_bpf!();
    // Sleeps and works: each `:` in the pipe is a child that it waits for.
    let script = "read x; echo ready; read x; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done;
                  for i in 1 2 3 4 5 6 7 8 9 10; do : | :; done; echo done; read x";
    let mut shell = Shell::start(script);
    shell.tell();
    shell.hear();
    let before = shell.asleep();
    let filter = Filter { pid: Some(shell.pid()), ..Filter::default() };
    let mut view = Runq::start(&runq::Options { filter, by_thread: true, ..Default::default() }).unwrap();
    assert_eq!(shell.asleep(), before);
    shell.tell();
    shell.hear();
    let after = shell.asleep();
    view.sweep().unwrap();
    let notes = view.notes().unwrap();
    assert_eq!(notes.unfinished, 0, "it sleeps: no wait is under way");
    let rows = view.read().unwrap();
    assert_eq!(view.tracer().lost().unwrap().events(), 0);
    let row = rows.iter().find(|r| r.id == shell.pid()).expect("the shell has waited");
    assert_eq!(row.comm, "sh");
    // It was asleep before and is so now: it left the CPU as often as it came to it, and each time it had to wait.
    assert_eq!(row.all().count() + notes.unseen, after - before);
    assert!(notes.unseen * 2 < after - before, "{notes:?}");
    assert!(row.woken.count() > 0, "it was asleep when it was told to go");
    assert!(row.all().sum >= row.all().max);
}

#[test]
fn two_that_share_a_cpu_wait_for_each_other() {
    let _dog = watchdog(180);
    needs_bpf!();
    if Command::new("taskset").arg("--version").output().is_err() {
        kit::skip!("taskset", "cannot pin a command to a CPU");
    }
    // On the first CPU that this test may use, which need not be CPU 0.
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let cpu = (0..nix::sched::CpuSet::count()).find(|c| allowed.is_set(*c).unwrap()).unwrap();
    let script = "read x; busy() { i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; };
                  busy & busy; wait; echo done; read x";
    let mut shell = Shell::start(&format!("exec taskset -c {cpu} sh -c '{script}'"));
    let filter = Filter { comm: Some("sh".into()), ..Filter::default() };
    let mut view = Runq::start(&runq::Options { filter, ..Default::default() }).unwrap();
    shell.tell();
    shell.hear();
    view.sweep().unwrap();
    let rows = view.read().unwrap();
    let row = rows.iter().find(|r| r.id == shell.pid()).expect("the first of the two has waited");
    assert!(row.put_back.count() > 0, "the other one took its CPU: {row:?}");
    // One busy loop alone takes longer than the scheduler lets anybody run.
    assert!(rows.iter().any(|r| r.id != shell.pid() && r.put_back.count() > 0), "{rows:?}");
}

/// /proc/softirqs, all CPUs together.
fn softirqs() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string("/proc/softirqs").unwrap();
    let lines = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, ns)| {
            (name.trim().to_owned(), ns.split_whitespace().map(|n| n.parse::<u64>().unwrap()).sum())
        })
        .collect()
}

#[test]
fn softirqs_are_counted_as_in_proc() {
    let _dog = watchdog(180);
    needs_bpf!();
    let cpus = aya::util::nr_cpus().unwrap() as u64;
    for means in [Means::TpBtf, Means::RawTp] {
        let outer = softirqs();
        let view = Softirq::start(Some(means)).unwrap();
        assert!(view.tracer().attached().iter().all(|a| a.means == means));
        let inner = softirqs();
        // Packets over the loopback interface are NET_RX.
        let (to, from) = (udp(), udp());
        to.connect(from.local_addr().unwrap()).unwrap();
        for _ in 0..2000 {
            to.send(b"x").unwrap();
            from.recv(&mut [0]).unwrap();
        }
        let inner_end = softirqs();
        let rows = view.read().unwrap();
        let outer_end = softirqs();
        assert_eq!(view.tracer().lost().unwrap().events(), 0);
        for (name, _) in VECTORS {
            let seen = rows.iter().find(|r| r.name() == name).map_or(0, |r| r.time.count());
            // /proc counts where one begins, the view where it ends: one on each CPU may be in between.
            let most = outer_end[name] - outer[name] + cpus;
            assert!(seen <= most, "{means} {name}: {seen} <= {most}");
            // There are machines on which no program is called in the first process, whatever it is interrupted by.
            let least = (inner_end[name] - inner[name]).saturating_sub(cpus) / 2;
            assert!(name != "NET_RX" || seen >= least, "{means} {name}: {least} <= {seen}");
        }
        let received = rows.iter().find(|r| r.name() == "NET_RX").expect("packets came in");
        assert!(received.time.count() > 0 && received.time.sum >= received.time.max);
    }
}

fn udp() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
}
