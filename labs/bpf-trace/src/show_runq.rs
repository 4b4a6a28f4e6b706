//! `runq`: how long tasks that can run wait for a CPU.

use bpf_trace::histogram::Histogram;
use bpf_trace::runq::{self, HERE, Notes, Row, Runq};
use bpf_trace::{TraceError, Tracer};
use kit::stats::figure;
use kit::{Session, Table};

use crate::args::Options;
use crate::show::{self, View, time};

struct Shown<'a> {
    view: Runq,
    options: &'a Options,
    by_thread: bool,
}

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let by_thread = o.by_thread("runq")?;
    s.step_at("Time how long tasks that can run wait for a CPU", HERE);
    let view = Runq::start(&runq::Options {
        filter: o.filter()?,
        by_thread,
        slower_than: o.slower.map_or(0, |d| d.as_nanos() as u64),
    })?;
    show::watch(s, o, &mut Shown { view, options: o, by_thread })?;
    s.so(
        "a CPU that is never idle is no trouble as long as nobody waits for it: the wait is what hurts",
        "runq --by thread, --slower 10ms, offcpu",
    );
    Ok(())
}

impl Shown<'_> {
    fn table(&self, rows: &[Row]) -> Table {
        let head = if self.by_thread { ["tid", "thread"] } else { ["pid", "process"] };
        let head = head.into_iter().chain(["waits", "put back", "p50", "p99", "max", "in all"]);
        let mut table = Table::new(head).right(2..8);
        for row in rows.iter().take(self.options.top) {
            let all = row.all();
            let mut cells = vec![row.id.to_string(), row.comm.clone(), figure(all.count() as f64)];
            cells.push(match row.put_back.count() {
                0 => "-".into(),
                n => figure(n as f64),
            });
            cells.extend([all.percentile(0.5), all.percentile(0.99), all.max, all.sum].map(time));
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

    fn stop(&mut self) -> Result<(), TraceError> {
        self.view.tracer().stop();
        self.view.sweep()
    }

    fn result(&mut self, s: &mut Session) -> anyhow::Result<u64> {
        let Notes { unfinished, unseen } = self.view.notes()?;
        let rows = self.view.read()?;
        let mut all = Histogram::default();
        rows.iter().for_each(|r| all.add(&r.all()));
        s.table(self.table(&rows));
        show::left_out(s, rows.len(), self.options.top);
        if all.count() == 0 {
            s.say("Nobody had to wait.");
            return Ok(0);
        }
        s.bars(show::bars("how long they waited", "waits", &all));
        let put_back: u64 = rows.iter().map(|r| r.put_back.count()).sum();
        s.say(format!(
            "Half of all waits were at most **{}**, 99 of 100 at most {}; the longest was {}. In {} % the task was \
             not woken: it had been taken off the CPU, or had given way, though it could have gone on.",
            time(all.percentile(0.5)),
            time(all.percentile(0.99)),
            time(all.max),
            figure(100.0 * put_back as f64 / all.count() as f64),
        ));
        if let [longest, ..] = rows.as_slice() {
            let sum = longest.all().sum;
            s.say(format!(
                "{} ({}) waited longest: {}, {} % of all waiting.",
                longest.comm,
                longest.id,
                time(sum),
                figure(100.0 * sum as f64 / all.sum.max(1) as f64)
            ));
        }
        if unfinished > 0 {
            s.say(format!("{unfinished} of these waits had not ended when the trace did."));
        }
        if unseen > 0 {
            s.say(format!(
                "{unseen} more could not be timed: the kernel calls no program in the tasks that they began or ended in."
            ));
        }
        s.metric("wait_p50", "ns", all.percentile(0.5) as f64);
        s.metric("wait_p99", "ns", all.percentile(0.99) as f64);
        s.metric("wait_max", "ns", all.max as f64);
        s.metric("put_back", "1", put_back as f64);
        s.metric("unseen", "1", unseen as f64);
        s.metric("unfinished", "1", unfinished as f64);
        Ok(all.count())
    }
}
