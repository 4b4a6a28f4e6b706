//! `--locks`: the zoo under load.

use std::time::Duration;

use kit::{Predict, Session, Table};
use rseq_spinlock::contend::{Load, Outcome, contend};
use rseq_spinlock::locks::{Adaptive, Backoff, Clh, FutexMutex, Mcs, Parking, RseqAware, Tas, Ticket, Ttas};
use rseq_spinlock::{Lock, RawLock, cpus};

type Contend = fn(Load) -> Outcome;

fn zoo<R: RawLock>(load: Load) -> Outcome {
    contend(&Lock::<R, u64>::new(0), load)
}

fn std_mutex(load: Load) -> Outcome {
    contend(&std::sync::Mutex::new(0u64), load)
}

const LOCKS: [(&str, Contend); 11] = [
    (Tas::NAME, zoo::<Tas>),
    (Ttas::NAME, zoo::<Ttas>),
    (Backoff::NAME, zoo::<Backoff>),
    (Ticket::NAME, zoo::<Ticket>),
    (Mcs::NAME, zoo::<Mcs>),
    (Clh::NAME, zoo::<Clh>),
    (FutexMutex::NAME, zoo::<FutexMutex>),
    (Adaptive::NAME, zoo::<Adaptive>),
    (Parking::NAME, zoo::<Parking>),
    (RseqAware::NAME, zoo::<RseqAware>),
    ("std", std_mutex),
];

pub fn show(s: &mut Session, asked: &[u16], time: Duration) -> anyhow::Result<()> {
    let cores = cpus::allowed()?.len();
    let mut counts: Vec<usize> = match asked {
        [] if s.quick() => vec![1, 8 * cores],
        [] => vec![1, 2, cores, 4 * cores, 8 * cores],
        asked => asked.iter().map(|&n| usize::from(n)).collect(),
    };
    // A queue node for each: what a big machine asks for beyond that is cut.
    counts.iter_mut().for_each(|n| *n = (*n).min(250));
    counts.sort_unstable();
    counts.dedup();
    let time = if s.quick() { time / 3 } else { time };
    let bar = s.progress((counts.len() * LOCKS.len()) as u64, "locks");
    let mut exact = true;
    for threads in counts {
        let regime = match threads {
            1 => "nobody else wants it",
            n if n <= cores => "every thread has a CPU",
            _ => "more threads than CPUs",
        };
        s.step(format!("{threads} thread{} on {cores} CPUs: {regime}", if threads == 1 { "" } else { "s" }));
        if threads > cores {
            s.predict(Predict::new(
                "which lock falls furthest from its throughput with one thread?",
                ["test-and-set: all of them swap", "the fair queues: ticket, MCS, CLH", "the futex: all of them sleep"],
                1,
                "A queue gives the lock to one particular thread, and that one is seldom the one that is running.",
            ));
        }
        let outcomes: Vec<(&str, Outcome)> = LOCKS
            .iter()
            .map(|(name, contend)| {
                bar.add(1);
                (*name, contend(Load { threads, time, outside: 0 }))
            })
            .collect();
        exact &= outcomes.iter().all(|(_, o)| o.exact);
        tell(s, threads, &outcomes);
    }
    drop(bar);
    s.check("every_section_counted", exact, "no lock let two in");
    s.so("spin only for a holder that runs; be fair only to a waiter that runs", "--preempt");
    Ok(())
}

/// A time in few characters.
fn brief(us: f64) -> String {
    match us {
        us if us < 1.0 => format!("{:.0}ns", us * 1e3),
        us if us < 10.0 => format!("{us:.1}us"),
        us if us < 1e3 => format!("{us:.0}us"),
        us if us < 1e4 => format!("{:.1}ms", us / 1e3),
        us => format!("{:.0}ms", us / 1e3),
    }
}

fn tell(s: &mut Session, threads: usize, outcomes: &[(&str, Outcome)]) {
    let mut table =
        Table::new(["lock", "M/s", "p50", "p99", "p99.9", "max", "fair", "CPUs", "slept", "preempt"])
            .right(1..10);
    let best = outcomes.iter().map(|(_, o)| o.mops()).fold(0.0, f64::max);
    for (name, o) in outcomes {
        let cells = [
            (*name).to_owned(),
            format!("{:.1}", o.mops()),
            brief(o.wait_us(0.5)),
            brief(o.wait_us(0.99)),
            brief(o.wait_us(0.999)),
            brief(o.max_wait_ms() * 1e3),
            format!("{:.2}", o.fairness()),
            format!("{:.1}", o.cpus()),
            o.voluntary.to_string(),
            o.involuntary.to_string(),
        ];
        if o.mops() == best {
            table = table.mark(cells)
        } else {
            table.push(cells)
        }
        s.metric(&format!("{name}_t{threads}_mops"), "M/s", o.mops());
        s.metric(&format!("{name}_t{threads}_max_wait_ms"), "ms", o.max_wait_ms());
        s.metric(&format!("{name}_t{threads}_fairness"), "1", o.fairness());
    }
    s.table(table);
    let by = |key: fn(&Outcome) -> f64| outcomes.iter().max_by(|a, b| key(&a.1).total_cmp(&key(&b.1)));
    if let (Some(fast), Some(prompt), Some(fair)) =
        (by(Outcome::mops), by(|o| -o.max_wait_ms()), by(Outcome::fairness))
    {
        let fairest = match threads {
            1 => String::new(),
            _ if fair.1.fairness() < 0.01 => " Fair: **none**, in so short a time.".into(),
            _ => format!(" Fairest: **{}** ({:.2}).", fair.0, fair.1.fairness()),
        };
        s.say(format!(
            "Most throughput: **{}** ({:.1} M/s). Shortest longest wait: **{}** ({:.2} ms).{fairest}",
            fast.0,
            fast.1.mops(),
            prompt.0,
            prompt.1.max_wait_ms(),
        ));
    }
}
