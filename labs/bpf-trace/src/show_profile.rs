//! `profile`: what the CPUs are doing.

use std::os::fd::{AsFd as _, BorrowedFd};

use bpf_trace::kallsyms::Kallsyms;
use bpf_trace::profile::{self, HERE, Profile};
use bpf_trace::{TraceError, Tracer};
use kit::stats::figure;
use kit::{Session, Table};

use crate::args::Options;
use crate::show::{self, View};
use crate::show_stacks::{self, Files, Told};

struct Shown<'a> {
    view: Profile,
    options: &'a Options,
    files: Files,
}

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let files = Files::create(o)?;
    s.step_at(format!("Ask each CPU {} times a second what it is doing", o.frequency), HERE);
    let view = Profile::start(&profile::Options { filter: o.filter()?, frequency: o.frequency })?;
    show::watch(s, o, &mut Shown { view, options: o, files })?;
    s.so(
        "a hundred looks a second are enough to see where time goes: what is often there when you look takes long",
        "profile --svg FILE, offcpu",
    );
    Ok(())
}

impl View for Shown<'_> {
    fn tracer(&self) -> &Tracer {
        self.view.tracer()
    }

    fn ring(&self) -> Option<BorrowedFd<'_>> {
        Some(self.view.ring().as_fd())
    }

    fn ring_advice(&self) -> &'static str {
        " (a lower --frequency, or --comm, fills it more slowly)"
    }

    fn take(&mut self, _: &mut Session) -> anyhow::Result<()> {
        self.view.take();
        Ok(())
    }

    fn so_far(&mut self) -> Result<Option<Table>, TraceError> {
        let sum = self.view.count().max(1);
        let mut table = Table::new(["pid", "thread", "samples", "share"]).right(2..4);
        for (pid, comm, n) in self.view.by_process().into_iter().take(self.options.top) {
            let share = format!("{:.1} %", 100.0 * n as f64 / sum as f64);
            table.push([pid.to_string(), comm, n.to_string(), share]);
        }
        Ok(Some(table))
    }

    fn result(&mut self, s: &mut Session) -> anyhow::Result<u64> {
        let (samples, idle) = (self.view.count(), self.view.idle()?);
        s.metric("idle_samples", "1", idle as f64);
        if samples == 0 {
            s.say(format!("None of those asked for was on a CPU; {idle} times there was nothing to run."));
            return Ok(0);
        }
        let kernel = Kallsyms::read();
        let all = self.view.stacks(&kernel, None);
        let say = |n: u64| format!("{n} sample{}", if n == 1 { "" } else { "s" });
        let cell = |n: u64| n.to_string();
        let (title, root, column) = ("where CPU time went", "all", "samples");
        let told = Told { title, root, say: &say, column, cell: &cell, unit: 1 };
        show_stacks::tell(s, self.options, &mut self.files, &told, &all)?;
        let leaves = bpf_trace::stacks::leaves(&all);
        let first = leaves.first().map_or_else(String::new, |(frame, n)| {
            let share = figure(100.0 * *n as f64 / samples as f64);
            format!(" Most were in **{}**: {share} %.", bpf_trace::stacks::one_line(&frame.name))
        });
        s.say(format!(
            "{} samples of {} threads.{first} Besides, {} times there was nothing to run.",
            figure(samples as f64),
            self.view.threads(),
            figure(idle as f64)
        ));
        show_stacks::nameless(s, &kernel, &all);
        Ok(samples)
    }
}
