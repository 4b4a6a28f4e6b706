//! `--trace-aborts`: what interrupts a section, and how often.

use std::time::Duration;

use kit::{Session, Table};
use rseq_spinlock::count::{CountError, Trouble, Which, count};
use rseq_spinlock::cpus;
use rseq_spinlock::sys::membarrier;

pub fn show(s: &mut Session) -> anyhow::Result<()> {
    s.step("Interrupt two counting threads, each way there is");
    let time = Duration::from_millis(if s.quick() { 150 } else { 800 });
    let mut table =
        Table::new(["trouble", "times", "increments", "aborts", "preempted", "signal", "moved", "lost"])
            .right(1..8);
    let ways = [
        ("two on one CPU", Trouble::Preemption, "preemption"),
        ("signals", Trouble::Signals, "signals"),
        ("moved about", Trouble::Migration, "migration"),
        ("membarrier", Trouble::Membarrier, "membarrier"),
    ];
    let (mut lost, mut all) = (0, 0);
    let has_membarrier = membarrier::abort_sections_on(cpus::allowed()?[0] as u32);
    for (name, trouble, metric) in ways {
        if trouble == Trouble::Membarrier
            && let Err(e) = &has_membarrier
        {
            s.missing("aborts by membarrier(2)", e.to_string(), "Linux 5.10");
            continue;
        }
        let c = match count(Which::Rseq, trouble, time) {
            Ok(c) => c,
            Err(e @ CountError::OneCpu) => {
                s.missing(format!("aborts by {metric}"), e.to_string(), "a second CPU");
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let times = if c.troubles == 0 { "-".into() } else { c.troubles.to_string() };
        let a = c.aborts;
        let figures =
            [c.made, a.sum(), a.preempted, a.signalled, a.migrated, c.lost()].map(|n| n.to_string());
        table.push([vec![name.to_owned(), times], figures.to_vec()].concat());
        s.metric(&format!("aborts_by_{metric}"), "1", a.sum() as f64);
        lost += c.lost();
        all += a.sum();
    }
    s.table(table);
    s.metric("aborts", "1", all as f64);
    s.say(
        "The kernel does not say why it aborted. The cause is what had changed since the attempt began: a signal handled, \
         another CPU, or neither. The one who sends signals or moves threads preempts now and then as well.",
    );
    s.say(
        "These threads do nothing but count, so they are in a section much of the time; a real program hardly ever is. \
         An abort costs one retry.",
    );
    s.check("rseq_exact", lost == 0, format!("{all} aborts, {lost} increments lost"));
    s.so("an abort is not an error: it is how the section finds out that it was not alone", "--anatomy");
    Ok(())
}
