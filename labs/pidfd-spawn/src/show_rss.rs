//! `--rss`: what each way costs as the parent grows.

use std::sync::Arc;

use kit::{Lines, Predict, Scale, Session, Summary, Table};
use pidfd_spawn::measure::{Ballast, Contender, in_turn};
use pidfd_spawn::tiny::Tiny;
use pidfd_spawn::ways::zygote::Zygote;

const SIZES: [(usize, &str); 3] = [(10, "10mib"), (256, "256mib"), (1024, "1gib")];

pub fn tell(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("Spawn from a parent of 10 MiB, 256 MiB and 1 GiB", pidfd_spawn::measure::HERE);
    s.predict(Predict::new(
        "the parent has 1 GiB of touched memory. fork, then exec: how much slower than with 10 MiB?",
        ["not at all: copy on write", "twice", "ten times and more"],
        2,
        "Pages are shared, but the page table that says so is copied: 2 MiB of entries for each GiB, and then freed.",
    ));
    // Before the memory: a zygote is as big as its parent was.
    let zygote = Arc::new(Zygote::start()?);
    let tiny = Tiny::exit_0()?;
    let rounds = if s.quick() { 5 } else { 30 };
    let progress = s.progress(3, "parent sizes");
    let mut all = Vec::new();
    for (mib, key) in SIZES {
        let ballast = match Ballast::new(mib << 20) {
            Ok(ballast) => ballast,
            Err(e) => {
                s.missing(format!("the parent of {mib} MiB"), e.to_string(), "more memory");
                continue;
            }
        };
        // Who forks goes last: a fork write-protects the parent, which then pays page faults in others' turns.
        let forks = |c: &Contender| matches!(c.key(), "fork" | "std_pre_exec");
        let (last, first) = Contender::all(Some(&zygote)).into_iter().partition(forks);
        let mut costs = in_turn(first, tiny.path(), rounds).map_err(anyhow::Error::msg)?;
        costs.extend(in_turn(last, tiny.path(), rounds).map_err(anyhow::Error::msg)?);
        progress.add(1);
        all.push((ballast.bytes() >> 20, key, costs));
    }
    drop(progress);
    show(s, &all);
    s.so("a fork pays for memory that exec throws away; vfork, clone3 and zygotes do not.", "--ways, --wait");
    Ok(())
}

type Sized = (usize, &'static str, Vec<pidfd_spawn::measure::Cost>);

fn show(s: &mut Session, all: &[Sized]) {
    let Some((_, _, first)) = all.first() else { return };
    let mut table = Table::new(
        ["until the call returns, us".to_owned()]
            .into_iter()
            .chain(all.iter().map(|a| format!("{} MiB", a.0))),
    )
    .right(1..=all.len());
    let mut lines = Lines::new("until the call returns", "parent, MiB", "us").scales(Scale::Log, Scale::Log);
    for (i, cost) in first.iter().enumerate() {
        let mut points = Vec::new();
        for (mib, key, costs) in all {
            let (r, e) = (Summary::of(&costs[i].returned_us), Summary::of(&costs[i].ended_us));
            let who = costs[i].who.key();
            s.metric_spread(&format!("return_{who}_{key}_us"), "us", r);
            s.metric_spread(&format!("spawn_{who}_{key}_us"), "us", e);
            points.push((*mib as f64, r.median));
        }
        let cells =
            [cost.who.name().to_owned()].into_iter().chain(points.iter().map(|p| format!("{:.0}", p.1)));
        table.push(cells);
        lines = lines.series(cost.who.name(), points);
    }
    s.table(table);
    s.lines(lines);
    let grew = |key: &str| {
        let of = |a: &Sized| {
            a.2.iter().find(|c| c.who.key() == key).map_or(f64::NAN, |c| Summary::of(&c.returned_us).median)
        };
        match (all.first(), all.last()) {
            (Some(a), Some(b)) => of(b) / of(a),
            _ => f64::NAN,
        }
    };
    let (fork, clone3) = (grew("fork"), grew("clone3"));
    s.metric("fork_grows", "1", fork);
    s.metric("clone3_grows", "1", clone3);
    s.say(format!("From the smallest parent to the largest, fork takes **{fork:.0} times** as long, clone3 {clone3:.1} times."));
}
