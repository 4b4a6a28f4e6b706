//! `--attach-points`: where programs can be attached on this machine, and what an empty one costs there.

use bpf_trace::TraceError;
use bpf_trace::attach_points::{self, HERE, Kind, PART};
use bpf_trace::tasks::{self, Task};
use kit::stats::{Ratio, Summary, figure};
use kit::{Predict, Session, SysError, Table, probe};

pub fn show(s: &mut Session) -> anyhow::Result<()> {
    let works = tried(s)?;
    cost(s, &works)?;
    if works.contains(&Kind::IterTask) {
        listed(s)?;
    }
    s.so(
        "which attach point is a matter of what the machine allows; the cheapest is the one with the least in between",
        "--inside, syscalls --attach raw_tp",
    );
    Ok(())
}

/// Tries each kind; those that work.
fn tried(s: &mut Session) -> anyhow::Result<Vec<Kind>> {
    s.step_at("Attach stage 1's counter in each way, and pass by a thousand times", HERE);
    let mut table = Table::new(["kind", "on", "here", "evidence"]);
    let mut works = Vec::new();
    for kind in Kind::ALL {
        let on = kind.on().to_owned();
        match kind.attempt() {
            Ok(ran) if ran.runs >= ran.passages => {
                works.push(kind);
                let times = if ran.runs == 1 {
                    "counted 1".into()
                } else {
                    format!("counted {}", figure(ran.runs as f64))
                };
                table.push([kind.name().to_owned(), on, "yes".into(), times]);
            }
            Ok(ran) => {
                let evidence = format!("counted {} of {}", ran.runs, ran.passages);
                table.push([kind.name().to_owned(), on, "no".into(), evidence]);
            }
            Err(e) => table.push([kind.name().to_owned(), on, "no".into(), why(kind, &e)]),
        }
    }
    s.table(table);
    s.metric("attach_points", "1", works.len() as f64);
    if works.is_empty() {
        // Nothing works: then the first says why.
        Kind::RawTp.attempt()?;
    }
    Ok(works)
}

/// What the kernel said, and what the doctor makes of it.
fn why(kind: Kind, e: &TraceError) -> String {
    let name = format!("bpf.{}", kind.name());
    let errno = match e {
        TraceError::Sys(e) => e.symbol(),
        _ => e.to_string(),
    };
    // The probe of fentry and kprobe is another function: what it says of the machine holds for this one, too.
    match probe::finding(&name).filter(|f| !f.works() && kind != Kind::Uprobe) {
        Some(finding) => format!("{errno}: {}", finding.evidence),
        None => e.to_string(),
    }
}

fn cost(s: &mut Session, works: &[Kind]) -> anyhow::Result<()> {
    let kinds: Vec<Kind> = works.iter().copied().filter(|k| k.is_at_calls()).collect();
    s.step("What an empty program adds to a short system call");
    s.predict(Predict::new(
        "Which of them costs most?",
        ["raw_tp: it is the oldest way", "tp_btf: the kernel checks types as it goes", "tracepoint: a record is made first"],
        2,
        "Types are checked when a program is loaded. A tracepoint's record is written at each passage, wanted or not.",
    ));
    let (rounds, parts) = if s.quick() { (3, 20) } else { (15, 60) };
    let bar = s.progress(rounds as u64, "in turn");
    let costs = attach_points::costs(&kinds, rounds, parts, || bar.add(1))?;
    drop(bar);
    let base: &[f64] = costs.iter().find(|(kind, _)| kind.is_none()).map_or(&[], |(_, times)| times);
    let mut table = Table::new(["attached", "ns a call", "added", "times", "95 % interval"]).right(1..4);
    for (kind, times) in &costs {
        let (name, time) = (kind.map_or("nothing", Kind::name), Summary::of(times));
        let mut cells = vec![name.to_owned(), figure(time.median)];
        cells.extend(match Ratio::paired(times, base) {
            Some(r) if kind.is_some() => {
                let added = time.median - Summary::of(base).median;
                [figure(added), format!("{:.2}", r.ratio), format!("{:.2} to {:.2}", r.low, r.high)]
            }
            _ => ["-".into(), "-".into(), String::new()],
        });
        table.push(cells);
        s.metric_spread(&format!("getpgid_{name}"), "ns", time);
    }
    s.table(table);
    s.say(format!(
        "getpgid(2), of all processes; the ways in turn, {rounds} rounds, of each the fastest of {parts} times {PART} calls."
    ));
    Ok(())
}

fn listed(s: &mut Session) -> anyhow::Result<()> {
    s.step("iter/task: the kernel's own list of tasks");
    let before = in_proc()?;
    let tasks = tasks::list()?;
    let after = in_proc()?;
    let processes: Vec<&Task> = tasks.iter().filter(|t| t.pid == t.tid).collect();
    let mut table = Table::new(["pid", "outermost", "inside", "name"]).right(0..3);
    // Those in a PID namespace of their own are what /proc does not show at a glance.
    let (nested, flat): (Vec<&Task>, Vec<&Task>) = processes.iter().partition(|t| t.pid != t.inside);
    for task in nested.iter().take(4).chain(flat.iter().rev().take(6)) {
        table.push([
            task.pid.to_string(),
            task.outermost.to_string(),
            task.inside.to_string(),
            task.comm.clone(),
        ]);
    }
    s.table(table);
    s.say(format!(
        "**{} processes**, {} threads, in one read; {} of them in a PID namespace of their own.",
        processes.len(),
        tasks.len(),
        nested.len()
    ));
    // What began or ended meanwhile is in one of the two only.
    let stayed: Vec<&u32> = before.open.iter().filter(|pid| after.open.contains(pid)).collect();
    let missed = stayed.iter().filter(|pid| !processes.iter().any(|t| t.pid == ***pid)).count();
    let invented = processes
        .iter()
        .filter(|t| !before.all.contains(&t.pid) && !after.all.contains(&t.pid) && alive(t.pid))
        .count();
    let detail = format!(
        "{} in /proc all along, {missed} of them not in the list; {invented} only in the list",
        stayed.len()
    );
    s.check("tasks_as_in_proc", missed == 0 && invented == 0, detail);
    Ok(())
}

fn alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// The processes that /proc lists.
struct InProc {
    all: Vec<u32>,
    /// Those that it lets this process look into. One that is protected from it may be missing in the kernel's list.
    open: Vec<u32>,
}

fn in_proc() -> Result<InProc, SysError> {
    let folder = std::fs::read_dir("/proc").map_err(SysError::io("open(\"/proc\")"))?;
    let all: Vec<u32> =
        folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let is_open = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok();
    let open = all.iter().copied().filter(is_open).collect();
    Ok(InProc { all, open })
}
