//! `uprobe`: calls of a function in user space, and how long they took.

use bpf_trace::histogram::Histogram;
use bpf_trace::syscalls::By;
use bpf_trace::target::Target;
use bpf_trace::uprobe::{self, HERE, Row, Uprobe};
use bpf_trace::{TraceError, Tracer};
use kit::stats::figure;
use kit::{Bars, Session, Table, Usage};

use crate::args::Options;
use crate::show::{self, View, time};

struct Shown<'a> {
    view: Uprobe,
    options: &'a Options,
    timed: bool,
}

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let target = o.target()?;
    s.step_at(format!("Count calls of {}", named(&target)), HERE);
    s.say(format!("In {}.", target.path.display()));
    if !target.note.is_empty() {
        s.say(format!("Note: {}.", target.note));
    }
    let timed = target.offset == 0;
    if !timed {
        if o.slower.is_some() {
            return Err(
                Usage("--slower takes a function's begin: nothing returns to its middle".into()).into()
            );
        }
        s.say("Inside of a function there is nothing to time: passages are counted.");
    }
    let view = Uprobe::start(
        &target,
        &uprobe::Options {
            filter: o.filter()?,
            by: o.by(),
            slower_than: o.slower.map_or(0, |d| d.as_nanos() as u64),
            entries: 0,
        },
    )?;
    show::watch(s, o, &mut Shown { view, options: o, timed })?;
    s.so(
        "a breakpoint in the function: each call pays two traps, whoever makes it, and with --pid only that process",
        "--by thread, --pid PID, --slower 1ms, -- COMMAND",
    );
    Ok(())
}

fn named(target: &Target) -> String {
    let name = target.functions.first().map_or("nothing", |f| f.name.as_str());
    if target.offset == 0 { name.into() } else { format!("{name}+{}", target.offset) }
}

impl Shown<'_> {
    fn table(&self, rows: &[Row]) -> Table {
        let mut head = match self.options.by() {
            By::Syscall => vec![],
            By::Process => vec!["pid", "process"],
            By::Thread => vec!["tid", "thread"],
        };
        let first = head.len();
        head.push("calls");
        if self.timed {
            head.extend(["p50", "p99", "max", "not back"]);
        }
        let right = first..head.len();
        let mut table = Table::new(head).right(right);
        for row in rows.iter().take(self.options.top) {
            let mut cells = match self.options.by() {
                By::Syscall => vec![],
                By::Process | By::Thread => vec![row.id.to_string(), row.comm.clone()],
            };
            cells.push(figure(row.calls as f64));
            if self.timed {
                let l = &row.latency;
                let times = [l.percentile(0.5), l.percentile(0.99), l.max];
                cells.extend(times.map(|ns| if l.count() == 0 { "-".into() } else { time(ns) }));
                cells.push(if row.out() == 0 { "-".into() } else { figure(row.out() as f64) });
            }
            table.push(cells);
        }
        table
    }
}

impl View for Shown<'_> {
    fn tracer(&self) -> &Tracer {
        self.view.tracer()
    }

    fn so_far(&mut self) -> Result<Option<Table>, TraceError> {
        let rows = self.view.read()?;
        Ok(Some(self.table(&rows)))
    }

    fn result(&mut self, s: &mut Session) -> anyhow::Result<u64> {
        let rows = self.view.read()?;
        s.table(self.table(&rows));
        show::left_out(s, rows.len(), self.options.top);
        let mut all = Histogram::default();
        rows.iter().for_each(|r| all.add(&r.latency));
        if all.count() > 0 {
            let bars =
                all.powers().into_iter().fold(Bars::new("how long they took", "calls"), |bars, (from, n)| {
                    bars.bar(format!("{} up", time(from)), n as f64, "")
                });
            s.bars(bars);
            s.metric("p50_ns", "ns", all.percentile(0.5) as f64);
            s.metric("p99_ns", "ns", all.percentile(0.99) as f64);
            s.metric("max_ns", "ns", all.max as f64);
        }
        let (out, untimed): (u64, u64) = rows.iter().fold((0, 0), |(o, u), r| (o + r.out(), u + r.untimed));
        if out > 0 && self.timed {
            s.say(format!(
                "{out} have not come back: they still run, or left otherwise (exit, exec, longjmp, an exception)."
            ));
        }
        if untimed > 0 {
            s.say(format!(
                "{untimed} returns are not timed: begun before the trace, or more than 64 calls deep."
            ));
        }
        s.metric("untimed", "1", untimed as f64);
        Ok(rows.iter().map(|r| r.calls).sum())
    }
}
