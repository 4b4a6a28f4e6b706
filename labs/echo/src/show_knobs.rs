//! `--knobs`: the knobs of io_uring, one after another.

use std::time::Duration;

use echo::load::Load;
use echo::measure::{Cpus, Pair, Sample, in_turn, ping_pong};
use echo::spec::Spec;
use kit::stats::{Ratio, Verdict, figure};
use kit::{Predict, Session, Summary, Table};

use crate::options::{Options, tell_notes, uring};

/// What is added, and what it leads to.
const LADDER: [(&str, &str, &str); 9] = [
    ("epoll", "epoll", "two calls a request, and a share of a wait"),
    ("oneshot", "oneshot", "all calls of a batch in one io_uring_enter"),
    ("multishot", "+ multishot, buffers", "one receive for life, into a ring of buffers"),
    ("multishot+coop", "+ COOP_TASKRUN", "no interrupt to tell that there is work"),
    ("multishot+defer", "+ DEFER_TASKRUN", "the work is done only while waiting"),
    ("multishot+defer+quiet", "+ quiet sends", "a send that succeeds posts no completion"),
    ("multishot+defer+quiet+fixed", "+ registered files", "no descriptor to look up"),
    ("multishot+defer+quiet+fixed+bundle", "+ bundles", "a receive fills several buffers"),
    (
        "multishot+defer+quiet+fixed+bundle+sendbundle",
        "+ send bundles",
        "a send empties several, from a ring",
    ),
];

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let (rounds, each) = if s.quick() { (3, 40) } else { (9, 110) };
    s.step_at("Add one knob after another", echo::spec::HERE);
    s.predict(Predict::new(
        "which knob saves most, for small requests?",
        ["the first ring at all", "multishot", "where the deferred work is done", "registered files"],
        2,
        "Unless it is deferred, each message interrupts the server at once, by an interrupt from the CPU on \
         which it arrived. The system calls were gone before.",
    ));
    if !uring(s) {
        s.so("without io_uring there are no knobs to turn", "--overload");
        return Ok(());
    }
    let cpus = Cpus::take()?;
    let n = o.connections.unwrap_or(50) as usize;
    let load = Load { depth: o.depth(), ..ping_pong(n, o.payload()) };
    let mut specs: Vec<(Spec, &str, &str)> = Vec::new();
    for (spec, label, why) in LADDER {
        specs.push((spec.parse()?, label, why));
    }
    specs.push(("multishot+fixed+sqpoll".parse()?, "instead: SQPOLL", "a kernel thread submits, and polls"));
    let mut pairs: Vec<Pair> = Vec::new();
    for (spec, ..) in &specs {
        pairs.push(o.pair(*spec, load, &cpus)?);
    }
    for ((spec, ..), pair) in specs.iter().zip(&pairs) {
        tell_notes(s, spec, &pair.target);
    }
    let progress = s.progress((rounds * pairs.len()) as u64, "rounds");
    let samples = in_turn(&mut pairs, rounds, Duration::from_millis(each), || progress.add(1))?;
    drop(progress);

    let cpu = |samples: &[Sample]| samples.iter().map(Sample::cpu_us).collect::<Vec<f64>>();
    let median = |samples: &[Sample], value: fn(&Sample) -> f64| {
        Summary::of(&samples.iter().map(value).collect::<Vec<_>>()).median
    };
    let head = ["server", "CPU us", "against the one before", "syscalls", "per enter"];
    let mut table = Table::new(head).right([1, 3, 4]);
    let mut best: Option<(f64, &str)> = None;
    for (i, (spec, label, _)) in specs.iter().enumerate() {
        // SQPOLL takes the place of the deferral: it is compared with epoll.
        let before = if i + 1 == specs.len() { 0 } else { i.saturating_sub(1) };
        let ratio = Ratio::paired(&cpu(&samples[i]), &cpu(&samples[before])).filter(|_| i > 0);
        let against = ratio.map_or("-".into(), |r| words(&r, before == 0));
        let (cost, calls) = (median(&samples[i], Sample::cpu_us), median(&samples[i], Sample::syscalls));
        let per_enter = if spec.kind.is_uring() {
            figure(median(&samples[i], Sample::completions_per_enter))
        } else {
            "-".into()
        };
        table.push([(*label).to_owned(), figure(cost), against, figure(calls), per_enter]);
        let metric = spec.to_string().replace(['+', '-'], "_");
        s.metric(&format!("{metric}_cpu_us_per_request"), "us", cost);
        s.metric(&format!("{metric}_syscalls_per_request"), "1", calls);
        if let Some(r) = ratio.filter(|r| i > 1 && before > 0 && r.verdict() == Verdict::Less)
            && best.is_none_or(|(saved, _)| 1.0 - r.ratio > saved)
        {
            best = Some((1.0 - r.ratio, label));
        }
    }
    s.table(table);
    s.say(format!(
        "{n} connections, {} bytes, {rounds} rounds in turn; CPU time and system calls of a request.",
        o.payload()
    ));
    s.step("What each one does");
    s.table(
        specs
            .iter()
            .fold(Table::new(["knob", "what it changes"]), |t, (_, label, why)| t.row([*label, *why])),
    );
    let first = Ratio::paired(&cpu(&samples[specs.len() - 2]), &cpu(&samples[0]));
    let total =
        first.map_or(String::new(), |r| format!("all of them together take {} of epoll's CPU time", r));
    let lesson = match best {
        Some((saved, label)) => format!("{label} bought most ({:.0} %); {total}", saved * 100.0),
        None => format!("no single knob stands out from the noise of this machine; {total}"),
    };
    s.so(lesson, "--map, --connections 500 --knobs");
    Ok(())
}

fn words(r: &Ratio, epoll: bool) -> String {
    let than = if epoll { " than epoll" } else { "" };
    match r.verdict() {
        Verdict::Less => format!("{:.0} % less{than}", (1.0 - r.ratio) * 100.0),
        Verdict::More => format!("{:.0} % more{than}", (r.ratio - 1.0) * 100.0),
        Verdict::NoDifference => "no difference".into(),
    }
}
