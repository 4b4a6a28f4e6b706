//! `--percpu`: structures by rseq, by shards, and behind one lock.

use std::time::Duration;

use kit::stats::{Ratio, Verdict};
use kit::{Session, Summary, Table};
use rseq_spinlock::cpus;
use rseq_spinlock::structures::{By, STRUCTURES, Structure, WAYS, cost};

pub fn show(s: &mut Session) -> anyhow::Result<()> {
    let cores = cpus::allowed()?.len();
    let (rounds, time) = if s.quick() { (3, 5) } else { (7, 12) };
    for threads in [1, cores, 4 * cores].into_iter().collect::<std::collections::BTreeSet<_>>() {
        let plural = if threads == 1 { "" } else { "s" };
        s.step(format!("{threads} thread{plural} on {cores} CPUs"));
        let mut table =
            Table::new(["structure", "rseq", "sharded", "one lock", "sharded/rseq", "lock/rseq"]).right(1..6);
        for structure in STRUCTURES {
            // Interleaved: each round measures all ways.
            let mut costs = WAYS.map(|_| Vec::new());
            for _ in 0..rounds {
                for (samples, by) in costs.iter_mut().zip(WAYS) {
                    samples.push(cost(structure, by, threads, Duration::from_millis(time))?);
                }
            }
            let name = name(structure);
            let mut cells = vec![name.replace('_', " ")];
            for (samples, by) in costs.iter().zip(WAYS) {
                let summary = Summary::of(samples);
                cells.push(format!("{:.1} ns", summary.median));
                s.metric_spread(&format!("{name}_{}_t{threads}_ns", way(by)), "ns", summary);
            }
            let [rseq, shards, lock] = &costs;
            cells.extend([shards, lock].map(|other| Ratio::paired(other, rseq).map_or(String::new(), told)));
            table.push(cells);
        }
        s.table(table);
        if threads == 1 {
            s.say(
                "CPU time for one operation. List: take a node, put it back. Ring: append, take the oldest.",
            );
        }
    }
    s.say("A lock prefix costs some nanoseconds even alone; a line that two CPUs want costs a hundred and more.");
    s.say("Shards by thread never meet, as long as there are few threads; rseq has as many slots as CPUs, for any number.");
    s.so("per-CPU data pays where it is written often and read rarely", "--anatomy --section list-pop");
    Ok(())
}

/// `7.9x`, or `~` where the interval holds 1.
fn told(ratio: Ratio) -> String {
    match ratio.verdict() {
        Verdict::NoDifference => format!("~{:.1}x", ratio.ratio),
        _ => format!("{:.1}x", ratio.ratio),
    }
}

fn name(structure: Structure) -> &'static str {
    match structure {
        Structure::Counter => "counter",
        Structure::FreeList => "free_list",
        Structure::Ring => "ring",
    }
}

fn way(by: By) -> &'static str {
    match by {
        By::Rseq => "rseq",
        By::Shards => "sharded",
        By::Lock => "one_lock",
    }
}
