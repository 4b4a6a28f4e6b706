//! `syscalls`: which calls, how often, which errors, how long.

use bpf_trace::names;
use bpf_trace::syscalls::{self, By, HERE, Row, Syscalls};
use bpf_trace::{TraceError, Tracer};
use kit::stats::figure;
use kit::{Session, Table};

use crate::args::Options;
use crate::show::{self, View, time};

struct Shown<'a> {
    view: Syscalls,
    options: &'a Options,
}

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    s.step_at("Count system calls where they return", HERE);
    let view = Syscalls::start(&syscalls::Options {
        filter: o.filter()?,
        by: o.by(),
        timing: o.latency,
        syscall: o.syscall()?,
        failed: o.failed,
        slower_than: o.slower.map_or(0, |d| d.as_nanos() as u64),
        means: o.means(),
        entries: 0,
    })?;
    show::watch(s, o, &mut Shown { view, options: o })?;
    s.so(
        "the kernel counts, and hands over sums: that is why it is cheap",
        "--latency, --by thread, -- COMMAND",
    );
    Ok(())
}

impl Shown<'_> {
    fn timed(&self) -> bool {
        self.options.latency || self.options.slower.is_some()
    }

    fn table(&self, rows: &[Row]) -> Table {
        let by = self.options.by();
        let mut head = match by {
            By::Syscall => vec!["call"],
            By::Process => vec!["pid", "process", "call"],
            By::Thread => vec!["tid", "thread", "call"],
        };
        let first = head.len();
        head.push("calls");
        if self.timed() {
            head.extend(["p50", "p99", "max"]);
        }
        head.push("failed");
        let right = first..head.len() - 1;
        let mut table = Table::new(head).right(right);
        for row in rows.iter().take(self.options.top) {
            let mut cells = match by {
                By::Syscall => Vec::new(),
                By::Process | By::Thread => vec![row.id.to_string(), row.comm.clone()],
            };
            cells.extend([names::syscall(row.nr), figure(row.count as f64)]);
            if self.timed() {
                let l = &row.latency;
                cells.extend([l.percentile(0.5), l.percentile(0.99), l.max].map(time));
            }
            cells.push(failures(row));
            table.push(cells);
        }
        table
    }
}

/// How many failed, and of what: the most frequent error, and how many others there were.
fn failures(row: &Row) -> String {
    let Some((errno, _)) = row.errors.first() else { return "-".into() };
    let others = match row.errors.len() - 1 {
        0 => String::new(),
        n => format!(" +{n}"),
    };
    format!("{} {}{others}", figure(row.failed as f64), names::errno(*errno))
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
        let calls: u64 = rows.iter().map(|r| r.count).sum();
        s.table(self.table(&rows));
        show::left_out(s, rows.len(), self.options.top);
        if self.timed() {
            let mut all = bpf_trace::histogram::Histogram::default();
            rows.iter().for_each(|r| all.add(&r.latency));
            s.bars(show::bars("how long they took", "calls", &all));
        }
        s.metric("failed", "1", rows.iter().map(|r| r.failed).sum::<u64>() as f64);
        Ok(calls)
    }
}
