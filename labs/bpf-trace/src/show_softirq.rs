//! `softirq`: how often and how long each vector ran.

use std::time::Instant;

use bpf_trace::softirq::{HERE, Row, Softirq};
use bpf_trace::{TraceError, Tracer};
use kit::stats::figure;
use kit::{Session, Table};

use crate::args::Options;
use crate::show::{self, View, time};

struct Shown {
    view: Softirq,
    began: Instant,
}

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    o.no_filter("softirq", "a softirq runs on behalf of a CPU, whichever task it interrupts")?;
    s.step_at("Time what the kernel does once interrupts have returned", HERE);
    let view = Softirq::start(o.means())?;
    show::watch(s, o, &mut Shown { view, began: Instant::now() })?;
    s.so(
        "softirqs are time that no task is charged for: they run on top of whoever is on the CPU",
        "runq, profile, /proc/softirqs",
    );
    Ok(())
}

impl Shown {
    fn table(&self, rows: &[Row]) -> Table {
        let wall = self.began.elapsed().as_nanos() as f64;
        let head = ["vector", "runs", "p50", "p99", "max", "in all", "of a CPU", "for"];
        let mut table = Table::new(head).right(1..7);
        for row in rows {
            let mut cells = vec![row.name(), figure(row.time.count() as f64)];
            let t = &row.time;
            cells.extend([t.percentile(0.5), t.percentile(0.99), t.max, t.sum].map(time));
            cells.push(format!("{} %", figure(100.0 * t.sum as f64 / wall)));
            cells.push(row.does().into());
            table.push(cells);
        }
        table
    }
}

impl View for Shown {
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
        let Some(first) = rows.first() else {
            s.say("No softirq ran.");
            return Ok(0);
        };
        let sum: u64 = rows.iter().map(|r| r.time.sum).sum();
        s.bars(show::bars(&format!("how long {} ran", first.name()), "runs", &first.time));
        s.say(format!(
            "**{}** took most time: {} of {} ({}).",
            first.name(),
            time(first.time.sum),
            time(sum),
            first.does(),
        ));
        s.metric("softirq_time", "ns", sum as f64);
        Ok(rows.iter().map(|r| r.time.count()).sum())
    }
}
