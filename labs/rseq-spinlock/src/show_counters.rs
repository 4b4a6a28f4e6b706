//! The default view: three counters, two threads, one CPU.

use std::time::Duration;

use kit::stats::Ratio;
use kit::{Bars, Predict, Session, Summary, Table, stats::figure};
use rseq_spinlock::count::{Counted, Trouble, Which, costs, count, slots_used};
use rseq_spinlock::sys::rseq::{Origin, Thread};

pub fn show(s: &mut Session, thread: Thread) -> anyhow::Result<()> {
    meet(s, thread);
    peace(s)?;
    trouble(s)?;
    s.so(
        "per-CPU data needs no lock and no atomic, if a store can be taken back until the last instruction",
        "--anatomy, --trace-aborts, --locks, --preempt, --percpu",
    );
    Ok(())
}

fn meet(s: &mut Session, thread: Thread) {
    s.step("Find the 32 bytes that the kernel and this thread share");
    let place = thread.place();
    let origin = match place.origin {
        Origin::Glibc => "glibc, when the thread began",
        Origin::Own => "this lab: glibc has not",
    };
    let cid = thread.mm_cid().map_or("not kept: Linux 6.3 has it".into(), |cid| cid.to_string());
    s.table(
        Table::new(["", ""])
            .row(["registered by", origin])
            .row(["where", &format!("fs:{:#x}, {} bytes kept by the kernel", place.offset, place.kept)])
            .row(["cpu_id", &thread.cpu_id().to_string()])
            .row(["mm_cid", &cid]),
    );
    s.say("The kernel writes the CPU number there **whenever it has moved us**: knowing it costs one load.");
    if let Ok(Some((by_cpu, by_cid))) = slots_used() {
        s.metric("slots_by_cpu", "1", f64::from(by_cpu));
        s.metric("slots_by_cid", "1", f64::from(by_cid));
        s.say(format!(
            "mm_cid numbers what can run at once. A process with one thread that visits every CPU uses {by_cpu} slots by CPU \
             and **{by_cid}** by id."
        ));
    }
    super::slice(s, thread);
}

fn peace(s: &mut Session) -> anyhow::Result<()> {
    s.step("Add 1, in peace");
    s.predict(Predict::new(
        "what does a per-CPU increment by rseq cost, against a thread-local one?",
        ["about the same", "as much as an atomic", "a system call more"],
        0,
        "It is the same load, add and store, and one more store that tells the kernel where the section is.",
    ));
    let (rounds, adds) = if s.quick() { (7, 50_000) } else { (25, 200_000) };
    let costs = costs(rounds, adds)?;
    let [local, rseq, atomic] = [&costs.local, &costs.rseq, &costs.atomic].map(|c| Summary::of(c));
    s.metric_spread("local_inc_ns", "ns", local);
    s.metric_spread("rseq_inc_ns", "ns", rseq);
    s.metric_spread("atomic_inc_ns", "ns", atomic);
    let mut bars = Bars::new("One increment", "ns")
        .bar("thread-local", local.median, "nobody else may read it safely")
        .bar("rseq, by CPU", rseq.median, "");
    if !costs.rseq_cid.is_empty() {
        let cid = Summary::of(&costs.rseq_cid);
        s.metric_spread("rseq_cid_inc_ns", "ns", cid);
        bars = bars.bar("rseq, by mm_cid", cid.median, "");
    }
    bars = bars.bar("atomic", atomic.median, "to itself");
    let two = Ratio::paired(&costs.atomic_two, &costs.rseq_two);
    if !costs.rseq_two.is_empty() {
        let [rseq, atomic] = [&costs.rseq_two, &costs.atomic_two].map(|c| Summary::of(c));
        s.metric_spread("rseq_inc_two_cpus_ns", "ns", rseq);
        s.metric_spread("atomic_inc_two_cpus_ns", "ns", atomic);
        bars = bars.bar("rseq, 2 CPUs", rseq.median, "each in its slot").bar(
            "atomic, 2 CPUs",
            atomic.median,
            "one cache line",
        );
    }
    s.bars(bars);
    let over = Ratio::paired(&costs.rseq, &costs.local);
    if let Some(over) = over {
        s.metric("rseq_over_local", "1", over.ratio);
        s.say(format!(
            "rseq costs **{:.2} times** a thread-local increment; the lock prefix alone costs more.",
            over.ratio
        ));
    }
    match two {
        Some(two) => {
            s.metric("atomic_over_rseq_two_cpus", "1", two.ratio);
            s.say(format!(
                "With two CPUs at it, the shared atomic costs **{:.0} times** as much: its line travels.",
                two.ratio
            ));
        }
        None => {
            s.missing("two CPUs at once", "only one CPU to run on", "taskset or the cpuset with two CPUs")
        }
    }
    Ok(())
}

fn trouble(s: &mut Session) -> anyhow::Result<()> {
    s.step("Two threads, one CPU, three counters");
    s.predict(Predict::new(
        "both threads load, add, store, on ONE CPU: no two run at once. Are updates lost?",
        ["no: they never run at once", "yes, a few", "yes, many"],
        2,
        "Preempted between load and store, a thread comes back and stores a stale sum: all the other's work is gone.",
    ));
    let time = Duration::from_millis(if s.quick() { 150 } else { 500 });
    let mut table = Table::new(["counter", "made", "counted", "lost", "aborts"]).right([1, 2, 3, 4]);
    let cells = |name: &str, c: &Counted| {
        let aborts = c.aborts.sum();
        [name.into(), c.made.to_string(), c.counted.to_string(), c.lost().to_string(), aborts.to_string()]
    };
    let plain = count(Which::Plain, Trouble::Preemption, time)?;
    let atomic = count(Which::Atomic, Trouble::Preemption, time)?;
    let rseq = count(Which::Rseq, Trouble::Preemption, time)?;
    table = table.row(cells("plain", &plain)).row(cells("atomic", &atomic)).mark(cells("rseq", &rseq));
    s.table(table);
    s.metric("lost_without_rseq", "1", plain.lost() as f64);
    s.say(match plain.lost() {
        0 => "The plain counter was lucky: no preemption came between load and store. --anatomy makes one come.".into(),
        lost => format!("The plain counter lost **{lost}** increments to preemptions between its load and its store."),
    });
    s.say(format!(
        "The very same instructions, as a restartable sequence: **{}** times the kernel took a thread out of the middle, \
         and sent it to the abort handler instead of back. None was lost.",
        rseq.aborts.sum()
    ));
    let signals = count(Which::Rseq, Trouble::Signals, time / 2)?;
    let migration = count(Which::Rseq, Trouble::Migration, time / 2);
    let mut all = rseq.aborts.sum() + signals.aborts.sum();
    s.metric("aborts_preempted", "1", rseq.aborts.preempted as f64);
    s.metric("aborts_signalled", "1", signals.aborts.signalled as f64);
    let mut exact = rseq.lost() == 0 && signals.lost() == 0;
    let mut detail = format!("{} by preemption, {} by signals", rseq.aborts.sum(), signals.aborts.sum());
    match migration {
        Ok(c) => {
            s.metric("aborts_migrated", "1", c.aborts.migrated as f64);
            all += c.aborts.sum();
            exact &= c.lost() == 0;
            detail += &format!(", {} while migrating", c.aborts.sum());
        }
        Err(e) => s.missing("aborts by migration", e.to_string(), "a second CPU"),
    }
    s.metric("aborts", "1", all as f64);
    s.check("rseq_exact", exact, format!("{} aborts ({detail}), nothing lost", figure(all as f64)));
    s.check("atomic_exact", atomic.lost() == 0, format!("{} of {}", atomic.counted, atomic.made));
    Ok(())
}
