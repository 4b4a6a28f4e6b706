//! `exec`: what is started, by whom, with which arguments, and how it ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::BorrowedFd;

use bpf_trace::exec::{self, Ending, Event, Exec, HERE, What};
use bpf_trace::json::{Lines, quoted};
use bpf_trace::{TraceError, Tracer, names};
use kit::stats::figure;
use kit::{Session, Table, Usage};

use crate::args::Options;
use crate::show::{self, Begin, View, time};

struct Shown<'a> {
    view: Exec,
    options: &'a Options,
    /// When it began: ns, CLOCK_MONOTONIC.
    origin: u64,
    programs: BTreeMap<String, Sum>,
    events: u64,
    begin: Begin,
}

/// Of one program's name.
#[derive(Default)]
struct Sum {
    execs: u64,
    failed_execs: u64,
    ends: u64,
    /// With another code than 0, or by a signal.
    bad_ends: u64,
    lived: u64,
    longest: u64,
}

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    if o.slower.is_some() {
        return Err(Usage("exec: --slower is for calls; a program's time is its end's".into()).into());
    }
    s.step_at("See programs begin and processes end", HERE);
    let view = Exec::start(&exec::Options {
        filter: o.filter()?,
        failed: o.failed,
        means: o.means(),
        ring: o.ring,
    })?;
    let origin = show::now();
    let (programs, begin) = (BTreeMap::new(), Begin::default());
    show::watch(s, o, &mut Shown { view, options: o, origin, programs, events: 0, begin })?;
    s.so(
        "a process's whole life is three tracepoints: fork, exec, exit",
        "--failed, --uid USER, --json, -- COMMAND",
    );
    Ok(())
}

/// The columns of [`line`], to be read with it.
const HEAD: &str = "     at s  what               pid  parent                  uid\n";

/// An event as a line for people.
fn line(e: &Event, origin: u64, out: &mut String) {
    let what = match &e.what {
        What::Exec { .. } => "exec".to_owned(),
        What::Exit(ending) => format!("exit {ending}"),
        What::Failed { errno, .. } => format!("exec {}", names::errno(*errno)),
    };
    let pid = if e.inside == e.pid { e.pid.to_string() } else { format!("{} ({})", e.pid, e.inside) };
    let at = e.at.saturating_sub(origin) as f64 / 1e9;
    let _ =
        write!(out, "{at:>9.3}  {what:<12} {pid:>9}  {:>7} {:<15} {:>4}  ", e.parent, e.parent_comm, e.uid);
    match &e.what {
        What::Exec { path, args } => {
            let words: Vec<String> = args.iter().map(|a| quoted(a)).collect();
            out.push_str(&words.join(" "));
            if e.cut > 0 {
                let _ = write!(out, " ... and {} bytes more", e.cut);
            }
            if args.first().is_none_or(|a| base(a) != base(path)) {
                let _ = write!(out, "  (the file {})", quoted(path));
            }
        }
        What::Exit(ending) => {
            let _ = write!(out, "{} lived {}", e.comm, time(e.age));
            if matches!(ending, Ending::Signal { dumped: true, .. }) {
                out.push_str(", core dumped");
            }
        }
        What::Failed { path, .. } => {
            let _ = write!(out, "{} wanted {}", e.comm, show::path(path));
        }
    }
    out.push('\n');
}

/// The last part of a path.
fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or(path)
}

impl View for Shown<'_> {
    fn tracer(&self) -> &Tracer {
        self.view.tracer()
    }

    fn ring(&self) -> Option<BorrowedFd<'_>> {
        Some(self.view.ring())
    }

    fn ring_advice(&self) -> &'static str {
        " (--ring makes it larger)"
    }

    fn take(&mut self, s: &mut Session) -> anyhow::Result<()> {
        let json = s.json();
        let mut lines = Lines::default();
        let (programs, events, origin) = (&mut self.programs, &mut self.events, self.origin);
        self.view.take(|e| {
            if *events == 0 && !json {
                lines.text.push_str(HEAD);
            }
            *events += 1;
            let sum = programs.entry(e.comm.clone()).or_default();
            match &e.what {
                What::Exec { .. } => sum.execs += 1,
                What::Failed { .. } => sum.failed_execs += 1,
                What::Exit(ending) => {
                    sum.ends += 1;
                    sum.bad_ends += u64::from(*ending != Ending::Code(0));
                    sum.lived += e.age;
                    sum.longest = sum.longest.max(e.age);
                }
            }
            if json { e.json(origin, &mut lines) } else { line(&e, origin, &mut lines.text) }
        });
        if !json {
            self.begin.note(&lines.text);
        }
        show::stream(s, &lines.text)
    }

    fn so_far(&mut self) -> Result<Option<Table>, TraceError> {
        Ok(None)
    }

    fn result(&mut self, s: &mut Session) -> anyhow::Result<u64> {
        self.begin.keep(s, self.events);
        let mut programs: Vec<_> = self.programs.iter().collect();
        programs.sort_by_key(|(name, p)| (std::cmp::Reverse(p.execs.max(p.ends)), *name));
        let mut table =
            Table::new(["program", "begun", "not begun", "ended", "not with 0", "lived", "longest"])
                .right(1..7);
        let count = |n: u64| if n == 0 { "-".into() } else { figure(n as f64) };
        for (name, p) in programs.iter().take(self.options.top) {
            let mean = p.lived.checked_div(p.ends).map_or("-".into(), time);
            let longest = if p.ends == 0 { "-".into() } else { time(p.longest) };
            let counts = [p.execs, p.failed_execs, p.ends, p.bad_ends].map(count);
            table.push([vec![(*name).clone()], counts.into(), vec![mean, longest]].concat());
        }
        if programs.is_empty() {
            s.say("No program has begun, and no process has ended.");
        } else {
            s.table(table);
        }
        show::left_out(s, programs.len(), self.options.top);
        let sum = |f: fn(&Sum) -> u64| programs.iter().map(|(_, p)| f(p)).sum::<u64>() as f64;
        s.metric("execs", "1", sum(|p| p.execs));
        s.metric("failed_execs", "1", sum(|p| p.failed_execs));
        s.metric("ends", "1", sum(|p| p.ends));
        s.metric("bad_ends", "1", sum(|p| p.bad_ends));
        Ok(self.events)
    }
}
