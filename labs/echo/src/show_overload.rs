//! `--overload`: an open loop past saturation, and a closed loop that hides it.

use std::time::Duration;

use echo::load::{Arrivals, Load, Until};
use echo::measure::{Cpus, ping_pong};
use echo::spec::Spec;
use kit::event::Scale;
use kit::stats::figure;
use kit::{Lines, Predict, Session, Table};

use crate::options::{Options, need, tell_notes};

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let each = Duration::from_millis(if s.quick() { 150 } else { 700 });
    let spec = o.spec(Spec::EPOLL);
    let n = o.connections.unwrap_or(50) as usize;
    need(&spec)?;
    let cpus = Cpus::take()?;
    let closed = ping_pong(n, o.payload());

    s.step_at("Find out how much it can do, with a closed loop", echo::load::HERE);
    let mut pair = o.pair(spec, closed, &cpus)?;
    tell_notes(s, &spec, &pair.target);
    pair.client.run(Until::Elapsed(each / 4))?;
    let sample = pair.round(Until::Elapsed(each))?;
    let capacity = sample.report.rate();
    s.metric("capacity_req_per_s", "1/s", capacity);
    s.say(format!(
        "{spec}, {n} connections: **{}** requests a second; p99 {} us. That is what most tools report.",
        figure(capacity),
        figure(sample.report.us(99.0))
    ));
    s.say(format!(
        "The server used {:.0} % of its CPU, the client {:.0} %: {}.",
        sample.server_share() * 100.0,
        sample.report.cpu_share() * 100.0,
        if sample.client_bound() {
            "**the client is the bottleneck**"
        } else {
            "the server is not held back by the client"
        }
    ));

    s.step_at("More connections ask, and nothing seems to break", echo::load::HERE);
    let mut table = Table::new(["connections", "answered/s", "p50 us", "p99 us"]).right(0..4);
    for n in [1, 10, 50, 200, 500] {
        let mut pair = o.pair(spec, ping_pong(n, o.payload()), &cpus)?;
        pair.client.run(Until::Elapsed(each / 8))?;
        let report = pair.round(Until::Elapsed(each / 3))?.report;
        table.push([
            figure(n as f64),
            figure(report.rate()),
            figure(report.us(50.0)),
            figure(report.us(99.0)),
        ]);
    }
    s.table(table);
    s.say("Each client asks again only when it is answered: a slow server is asked less. Latency grows gently, because the load gives way.");

    s.step_at("Open loop: the timetable does not wait", echo::load::HERE);
    s.predict(Predict::new(
        "at 120 % of what it can do: p99 from the time a request was due?",
        ["20 % more than at 100 %", "twice as much", "it has no bound: it grows as long as the load lasts"],
        2,
        "Each second 20 % of a second's work is left over, and the next requests wait for it.",
    ));
    let mut table =
        Table::new(["offered", "asked/s", "answered/s", "p50 us", "p99 us", "naive p99 us", "lie"])
            .right(0..7);
    let (mut due, mut naive) = (Vec::new(), Vec::new());
    let mut last_lie = 0.0;
    for percent in [50.0, 80.0, 95.0, 105.0, 120.0] {
        let rate = capacity * percent / 100.0;
        let load = Load { arrivals: Arrivals::Poisson(rate), ..closed };
        let mut pair = o.pair(spec, load, &cpus)?;
        let report = pair.round(Until::Elapsed(each))?.report;
        let lie = report.us(99.0) / report.naive_us(99.0).max(0.001);
        table.push([
            format!("{percent:.0} %"),
            figure(rate),
            figure(report.rate()),
            figure(report.us(50.0)),
            figure(report.us(99.0)),
            figure(report.naive_us(99.0)),
            format!("x{}", figure(lie)),
        ]);
        let name = format!("open_{percent:.0}");
        s.metric(&format!("{name}_p99_us"), "us", report.us(99.0));
        s.metric(&format!("{name}_naive_p99_us"), "us", report.naive_us(99.0));
        due.push((percent, report.us(99.0)));
        naive.push((percent, report.naive_us(99.0)));
        last_lie = lie;
    }
    s.table(table);
    s.lines(
        Lines::new("p99 by load", "offered, % of capacity", "us")
            .scales(Scale::Linear, Scale::Log)
            .series("from when it was due", due)
            .series("from when it was sent", naive),
    );
    s.say("All requests that were due are answered in the end and counted, also those of the backlog.");
    s.so(
        format!(
            "a closed loop cannot overload a server, so it cannot tell how one breaks; past saturation the naive \
             p99 is {} times too good",
            figure(last_lie)
        ),
        "--server io_uring --overload, --connect with --rate",
    );
    Ok(())
}
