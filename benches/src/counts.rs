//! What can be counted beside a time, and explains it: system calls, context switches, page faults. By perf stat, once,
//! outside of what is timed; where there is no perf, nothing is counted.

use std::process::{Command, Stdio};
use std::time::Duration;

/// Events of perf and what they are called here.
const EVENTS: [(&str, &str); 3] = [
    ("raw_syscalls:sys_enter", "system calls"),
    ("context-switches", "context switches"),
    ("page-faults", "page faults"),
];

/// Counts by name.
pub type Counts = Vec<(String, f64)>;

/// What a program and its children do from exec to exit; its output is thrown away.
pub fn of(words: &[&str]) -> Counts {
    let mut all = Counts::new();
    // One by one: an event that is not there would keep perf from counting the others.
    for (event, name) in EVENTS {
        let mut perf = perf(event);
        perf.arg("--").args(words);
        if let Some(count) = perf.output().ok().and_then(|out| parse(&out.stderr)) {
            all.push((name.into(), count));
        }
    }
    all
}

/// What a running process does while `work` runs, for each of the units of work that it returns, of this name.
pub fn of_process(pid: u32, unit: &str, mut work: impl FnMut() -> Option<f64>) -> Counts {
    let mut all = Counts::new();
    for (event, name) in EVENTS {
        let Ok(mut perf) = perf(event).args(["-p", &pid.to_string()]).spawn() else { continue };
        // There is no word from perf when it has begun; what it misses of the work makes the count too small.
        std::thread::sleep(Duration::from_millis(200));
        let units = work();
        // It prints and ends at SIGINT.
        let stop = Command::new("kill").args(["-INT", &perf.id().to_string()]).status();
        if !stop.is_ok_and(|s| s.success()) {
            let _ = perf.kill();
        }
        let out = perf.wait_with_output();
        if let (Some(units), Some(count)) = (units, out.ok().and_then(|out| parse(&out.stderr)))
            && units > 0.0
        {
            all.push((format!("{name} a {unit}"), count / units));
        }
    }
    all
}

fn perf(event: &str) -> Command {
    let mut command = Command::new("perf");
    command.args(["stat", "-x", ",", "-e", event]).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The first field of the line that perf prints behind whatever the program itself has said.
fn parse(stderr: &[u8]) -> Option<f64> {
    let text = String::from_utf8_lossy(stderr);
    text.lines().rev().find_map(|line| line.split_once(',')?.0.parse().ok())
}
