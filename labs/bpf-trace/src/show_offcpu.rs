//! `offcpu`: where threads leave the CPU, and how long they are away.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use bpf_trace::kallsyms::Kallsyms;
use bpf_trace::offcpu::{self, HERE, Offcpu, Row, State};
use bpf_trace::{TraceError, Tracer};
use kit::stats::figure;
use kit::{Session, Table};

use crate::args::Options;
use crate::show::{self, View, time};
use crate::show_stacks::{self, Files, Told};

struct Shown<'a> {
    view: Offcpu,
    options: &'a Options,
    files: Files,
}

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let files = Files::create(o)?;
    s.step_at("Time how long threads are off the CPU, and where they left it", HERE);
    let view = Offcpu::start(&offcpu::Options {
        filter: o.filter()?,
        slower_than: o.slower.map_or(0, |d| d.as_nanos() as u64),
        faster_than: o.faster.map(|d| d.as_nanos() as u64),
    })?;
    show::watch(s, o, &mut Shown { view, options: o, files })?;
    s.so(
        "a profile shows who works; what makes others wait is where they sleep, and for how long",
        "offcpu --slower 10ms --faster 1s, runq, profile",
    );
    Ok(())
}

impl Shown<'_> {
    fn table(&self, rows: &[Row]) -> Table {
        let mut all: BTreeMap<(u32, &str, State), [u64; 3]> = BTreeMap::new();
        for r in rows {
            let sum = all.entry((r.tgid, &r.comm, r.state)).or_default();
            *sum = [sum[0] + r.count, sum[1] + r.ns, sum[2].max(r.max)];
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(key, [_, ns, _])| (std::cmp::Reverse(*ns), *key));
        let head = ["pid", "thread", "state", "times", "longest", "in all"];
        let mut table = Table::new(head).right(3..6);
        for ((pid, comm, state), [count, ns, max]) in all.into_iter().take(self.options.top) {
            table.push([
                pid.to_string(),
                comm.to_owned(),
                state.word().into(),
                figure(count as f64),
                time(max),
                time(ns),
            ]);
        }
        table
    }
}

impl View for Shown<'_> {
    fn tracer(&self) -> &Tracer {
        self.view.tracer()
    }

    fn ring(&self) -> Option<BorrowedFd<'_>> {
        Some(self.view.news().as_fd())
    }

    fn take(&mut self, _: &mut Session) -> anyhow::Result<()> {
        Ok(self.view.take()?)
    }

    fn so_far(&mut self) -> Result<Option<Table>, TraceError> {
        let rows = self.view.read(None)?;
        Ok(Some(self.table(&rows)))
    }

    fn stop(&mut self) -> Result<(), TraceError> {
        self.view.tracer().stop();
        self.view.sweep()
    }

    fn result(&mut self, s: &mut Session) -> anyhow::Result<u64> {
        let kernel = Kallsyms::read();
        let rows = self.view.read(Some(&kernel))?;
        let count: u64 = rows.iter().map(|r| r.count).sum();
        if count == 0 {
            s.say("None of those asked for left a CPU.");
            return Ok(0);
        }
        s.table(self.table(&rows));
        let all = offcpu::stacks(&rows);
        let (title, root, column) = ("where threads were off the CPU", "all", "time");
        let told = Told { title, root, say: &time, column, cell: &time, unit: 1000 };
        show_stacks::tell(s, self.options, &mut self.files, &told, &all)?;
        if let Some(first) = rows.first() {
            s.say(format!(
                "**{}** ({}) was away longest at one place: {}, {} times.",
                first.comm,
                first.tgid,
                time(first.ns),
                figure(first.count as f64)
            ));
        }
        let open: u64 = rows.iter().map(|r| r.open).sum();
        if open > 0 {
            s.say(format!("{open} of these times had not ended when the trace did."));
        }
        let notes = self.view.notes()?;
        if notes.stacks_lost > 0 {
            s.say(format!("{} stacks found no room: shown as such.", notes.stacks_lost));
        }
        if notes.unseen > 0 {
            s.say(format!(
                "{} times could not be measured: the kernel calls no program in the tasks that they ended in.",
                notes.unseen
            ));
        }
        s.metric("unfinished", "1", open as f64);
        s.metric("unseen", "1", notes.unseen as f64);
        s.metric("stacks_lost", "1", notes.stacks_lost as f64);
        show_stacks::nameless(s, &kernel, &all);
        Ok(count)
    }
}
