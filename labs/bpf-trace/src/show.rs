//! What all views share: attach, follow a command, show what there is so far, and say at the end what was lost and
//! what it cost.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use anyhow::Context as _;
use bpf_trace::command::{Running, Wait, Wake};
use bpf_trace::cost::{Meter, SAMPLE};
use bpf_trace::histogram::Histogram;
use bpf_trace::json::quoted;
use bpf_trace::{TraceError, Tracer};
use kit::stats::figure;
use kit::{Bars, Interrupted, Listing, Session, Table};

use crate::args::Options;

/// A view, as [`watch`] drives it.
pub trait View {
    /// Its programs.
    fn tracer(&self) -> &Tracer;

    /// Where its events come from, if it has any.
    fn ring(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What to do where that was full.
    fn ring_advice(&self) -> &'static str {
        ""
    }

    /// Takes in the events that are there; what is to be told at once, it tells.
    fn take(&mut self, _: &mut Session) -> anyhow::Result<()> {
        Ok(())
    }

    /// What there is so far, for the screen; `None`: its events are told as they come.
    fn so_far(&mut self) -> Result<Option<Table>, TraceError>;

    /// Ends the trace; what is under way at this moment, a view may take in as it is now.
    fn stop(&mut self) -> Result<(), TraceError> {
        self.tracer().stop();
        Ok(())
    }

    /// Tells the result; how many events it is made of.
    fn result(&mut self, s: &mut Session) -> anyhow::Result<u64>;
}

/// Says what is attached, and by what.
pub fn attached(s: &mut Session, tracer: &Tracer) {
    let words: Vec<String> = tracer.attached().iter().map(|a| format!("{} ({})", a.hook, a.means)).collect();
    s.say(format!("Attached to {}.", words.join(", ")));
}

/// Drives a view to its end: of the command, of the time, or by Ctrl-C.
pub fn watch(s: &mut Session, o: &Options, view: &mut dyn View) -> anyhow::Result<()> {
    let words = o.command()?;
    let hidden = o.lab.is_some() && s.verbose() == 0;
    attached(s, view.tracer());
    let mut meter = Meter::start();
    // Nobody else wakes a view that has no events: the kernel's statistics would stay on, and make each run dearer.
    let mut wait = Wait::new(o.duration(s.quick()), o.interval.max(Duration::from_millis(50)))?.first(SAMPLE);
    let mut command = match words.as_slice() {
        [] => o.watched.take(),
        words => Some(Running::start(words, hidden)?),
    };
    let interrupted = loop {
        let ring = view.ring();
        let wake = wait.next(ring, command.as_mut())?;
        meter.tick();
        match wake {
            Wake::Events => view.take(s)?,
            Wake::Interval => {
                view.take(s)?;
                if s.on_terminal()
                    && let Some(table) = view.so_far()?
                {
                    s.passing(table);
                }
            }
            Wake::Ended | Wake::Time => break false,
            Wake::Interrupted => break true,
        }
    };
    view.stop()?;
    view.take(s)?;
    let events = view.result(s)?;
    if let Some(command) = &command {
        let what = words.first().map_or("The process".into(), |w| w.display().to_string());
        s.say(format!("{what} {}.", command.ending()));
    }
    account(s, view, &meter, events)?;
    if interrupted { Err(Interrupted.into()) } else { Ok(()) }
}

/// Says what was lost, and what it cost; records both.
fn account(s: &mut Session, view: &dyn View, meter: &Meter, events: u64) -> anyhow::Result<()> {
    let (lost, cost) = (view.tracer().lost()?, meter.read(view.tracer())?);
    s.metric("events", "1", events as f64);
    s.metric("lost", "1", lost.events() as f64);
    s.metric("own_cpu", "1", cost.own_cpu);
    let mut words = Vec::new();
    if cost.sampled > 0 {
        s.metric("run_ns", "ns", cost.ns_a_run);
        words.push(format!(
            "**{} ns** of kernel time a run of a program (average of {}, the clock's reading included)",
            figure(cost.ns_a_run),
            figure(cost.sampled as f64)
        ));
    }
    words.push(format!("{} % of a CPU for this program", figure(100.0 * cost.own_cpu)));
    s.say(format!("Cost: {}.", words.join("; ")));
    let detail = [
        (lost.ring_full, format!("the ring buffer was full{}", view.ring_advice())),
        (lost.map_full, "a map was full (--pid, --comm, -- COMMAND: look at fewer)".into()),
        (lost.recursion, "the program was running on that CPU already".into()),
    ];
    let why: Vec<String> =
        detail.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} since {why}")).collect();
    if lost.unread > 0 {
        s.say(format!("{} strings could not be read from their process: shown as ?.", lost.unread));
    }
    s.check(
        "none_lost",
        lost.events() == 0,
        if why.is_empty() { format!("{events} events, none lost") } else { why.join(", ") },
    );
    Ok(())
}

/// Tells events at once: whole lines, for people or (`--json`) for programs.
pub fn stream(s: &mut Session, lines: &str) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    s.stream_lines(lines).context("cannot write the events")
}

/// The begin of what is streamed: on a terminal it passes by, a page and a recording show it.
#[derive(Default)]
pub struct Begin {
    lines: Vec<String>,
}

impl Begin {
    /// Takes note of lines for people, as they were streamed.
    pub fn note(&mut self, lines: &str) {
        const LINES: usize = 25;
        const WIDTH: usize = 200;
        let cut = |line: &str| match line.char_indices().nth(WIDTH) {
            Some((at, _)) => format!("{}…", &line[..at]),
            None => line.to_owned(),
        };
        self.lines.extend(lines.lines().take(LINES - self.lines.len()).map(cut));
    }

    /// Hands it over; the first line is the head.
    pub fn keep(&self, s: &mut Session, events: u64) {
        if self.lines.len() > 1 {
            let title = format!("the first {} of {events}", self.lines.len() - 1);
            s.keep(Listing::text(&title, &self.lines.join("\n")));
        }
    }
}

/// A path as an event has it; one that could not be read is a question mark.
pub fn path(path: &[u8]) -> String {
    if path.is_empty() { "?".into() } else { quoted(path) }
}

/// Says how many of `rows` a table of at most `top` left out.
pub fn left_out(s: &mut Session, rows: usize, top: usize) {
    if rows > top {
        s.say(format!("{} rows more: --top {rows}.", rows - top));
    }
}

/// The time that events are given: ns, CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

/// A histogram of nanoseconds, a bar for each power of two.
pub fn bars(title: &str, unit: &str, histogram: &Histogram) -> Bars {
    histogram.powers().into_iter().fold(Bars::new(title, unit).with_share(), |bars, (from, n)| {
        bars.bar(format!("{} up", time(from)), n as f64, "")
    })
}

/// Nanoseconds as people read them.
pub fn time(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e3 => format!("{} ns", figure(ns)),
        _ if ns < 1e6 => format!("{} us", figure(ns / 1e3)),
        _ if ns < 1e9 => format!("{} ms", figure(ns / 1e6)),
        _ => format!("{} s", figure(ns / 1e9)),
    }
}
