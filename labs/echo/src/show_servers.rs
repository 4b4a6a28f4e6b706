//! The default view: epoll and the best io_uring at 1, 50 and 500 connections.

use std::time::Duration;

use echo::load::{Arrivals, Load, Until};
use echo::measure::{Cpus, Pair, Sample, in_turn, ping_pong};
use echo::spec::Spec;
use kit::stats::{Ratio, Verdict, figure};
use kit::{Predict, Session, Summary, Table};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::options::{Options, tell_notes, uring};

/// The servers compared, by the name that their metrics have.
type Servers = Vec<(&'static str, Spec)>;

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    let (rounds, each) = if s.quick() { (3, 50) } else { (7, 130) };
    let each = Duration::from_millis(each);
    let connections = match o.connections {
        Some(n) => vec![n as usize],
        None => vec![1, 50, 500],
    };
    let cpus = Cpus::take()?;

    s.step_at("Start the servers, and a client that checks every echo", echo::server::HERE);
    let mut servers: Servers = vec![("epoll", Spec::EPOLL)];
    if uring(s) {
        servers.push(("io_uring", o.spec(Spec::IO_URING)));
    }
    s.say(format!(
        "{} on CPU {}, the client on CPU {}; requests of {} bytes.",
        servers.iter().map(|(_, spec)| spec.to_string()).collect::<Vec<_>>().join(" and "),
        cpus.server,
        cpus.client,
        o.payload()
    ));
    if cpus.server == cpus.client {
        s.missing("a CPU for each side", "only one may be used", "more CPUs: the two sides take turns here");
    }
    for (_, spec) in &servers {
        tell_notes(s, spec, &o.target(*spec, &cpus)?);
    }

    let mut ratios = Vec::new();
    for &n in &connections {
        let load = Load { depth: o.depth(), ..ping_pong(n, o.payload()) };
        ratios.push((n, compare(s, o, &cpus, &servers, load, rounds, each)?));
    }
    omission(s, o, &cpus)?;
    conclude(s, &ratios);
    Ok(())
}

/// One step: some connections, all servers in turn. The ratio of CPU time, io_uring to epoll.
fn compare(
    s: &mut Session,
    o: &Options,
    cpus: &Cpus,
    servers: &Servers,
    load: Load,
    rounds: usize,
    each: Duration,
) -> anyhow::Result<Option<Ratio>> {
    let n = load.connections;
    let place = if n < 50 { echo::s3_epoll::HERE } else { echo::s6_multishot::HERE };
    s.step_at(format!("Ask with {n} connection{}", if n == 1 { "" } else { "s" }), place);
    if n == 50 {
        s.predict(Predict::new(
            "how many system calls does io_uring make for a request, at 50 connections?",
            ["two, as epoll does", "one", "about a tenth of one, or less"],
            2,
            "One io_uring_enter submits the sends of a whole batch and waits for the next: the more \
             connections are busy, the more requests share it.",
        ));
    }
    let mut pairs =
        servers.iter().map(|(_, spec)| o.pair(*spec, load, cpus)).collect::<anyhow::Result<Vec<Pair>>>()?;
    let samples = in_turn(&mut pairs, rounds, each, || {})?;
    let head = ["server", "req/s", "p50 us", "p99 us", "CPU us", "syscalls", "per enter", "switches"];
    let mut table = Table::new(head).right(1..8);
    for ((name, _), samples) in servers.iter().zip(&samples) {
        table.push(row(s, name, n, samples));
    }
    s.table(table);
    for ((name, _), samples) in servers.iter().zip(&samples) {
        who_is_busy(s, name, n, samples);
    }
    let ratio = match &samples[..] {
        [epoll, ring, ..] => {
            let cpu = |samples: &[Sample]| samples.iter().map(Sample::cpu_us).collect::<Vec<_>>();
            Ratio::paired(&cpu(ring), &cpu(epoll))
        }
        _ => None,
    };
    if let Some(r) = ratio {
        s.metric(&format!("io_uring_to_epoll_cpu_c{n}"), "1", r.ratio);
        s.say(format!("A request costs io_uring {} of epoll's CPU time: {}.", r, in_words(&r)));
    }
    Ok(ratio)
}

/// A row of the table, and the metrics with it. CPU, system calls and context switches are a request's.
fn row(s: &mut Session, name: &str, connections: usize, samples: &[Sample]) -> Vec<String> {
    let mut cell = |what: &str, unit: &str, value: fn(&Sample) -> f64| {
        let summary = Summary::of(&samples.iter().map(value).collect::<Vec<_>>());
        s.metric_spread(&format!("{name}_c{connections}_{what}"), unit, summary);
        figure(summary.median)
    };
    let mut cells = vec![
        name.to_owned(),
        cell("req_per_s", "1/s", |x| x.report.rate()),
        cell("p50_us", "us", |x| x.report.us(50.0)),
        cell("p99_us", "us", |x| x.report.us(99.0)),
        cell("cpu_us_per_request", "us", Sample::cpu_us),
        cell("syscalls_per_request", "1", Sample::syscalls),
    ];
    let per_enter = cell("completions_per_enter", "1", Sample::completions_per_enter);
    cells.push(if per_enter == "0" { "-".into() } else { per_enter });
    cells.push(cell("switches_per_request", "1", Sample::switches));
    cells
}

/// Says what held the throughput down, if it was not the server.
fn who_is_busy(s: &mut Session, name: &str, connections: usize, samples: &[Sample]) {
    let median =
        |value: fn(&Sample) -> f64| Summary::of(&samples.iter().map(value).collect::<Vec<_>>()).median;
    let server = median(Sample::server_share);
    let client = median(|x| x.report.cpu_share());
    s.metric(&format!("{name}_c{connections}_server_cpu_share"), "1", server);
    s.metric(&format!("{name}_c{connections}_generator_cpu_share"), "1", client);
    if name == "epoll" && connections < 10 && median(Sample::switches) > 0.5 {
        s.say("With so few connections a server sleeps after each request, and sleeping is the dear part.");
    }
    if samples.iter().filter(|x| x.client_bound()).count() * 2 > samples.len() {
        s.say(format!(
            "Against {name} the client limits the rate: it used {:.0} % of its CPU, the server {:.0} %.",
            client * 100.0,
            server * 100.0
        ));
    }
}

fn in_words(r: &Ratio) -> String {
    match r.verdict() {
        Verdict::Less => format!("**{:.0} % less**", (1.0 - r.ratio) * 100.0),
        Verdict::More => format!("**{:.0} % more**", (r.ratio - 1.0) * 100.0),
        Verdict::NoDifference => "**no difference** shown, the interval holds 1".into(),
    }
}

/// How would you know? A server that stands still for a moment, seen by two clocks.
fn omission(s: &mut Session, o: &Options, cpus: &Cpus) -> anyhow::Result<()> {
    let (seconds, stall) = if s.quick() { (0.4, 40) } else { (1.0, 100) };
    s.step_at(format!("Halt the server for {stall} ms, and ask two clocks"), echo::load::HERE);
    s.predict(Predict::new(
        "the server halts for a tenth of the time. What does a tool see that measures from the sending?",
        ["a p90 of many ms", "hardly anything: one slow answer a connection", "an error"],
        1,
        "While the server stands, each connection waits for one answer and sends nothing else. The requests \
         that should have been sent meanwhile are not late in its books: they are not there.",
    ));
    let rate = 2000.0;
    let load = Load { arrivals: Arrivals::Constant(rate), ..ping_pong(2, 64) };
    let mut pair = o.pair(Spec::EPOLL, load, cpus)?;
    let halt = pair.target.pid().map(|pid| halt(pid, Duration::from_secs_f64(seconds / 3.0), stall));
    let report = pair.client.run(Until::Elapsed(Duration::from_secs_f64(seconds)))?;
    if let Some(halt) = halt {
        let _ = halt.join();
    } else {
        s.missing("the halt", "the server is a thread of this process", "without --in-process");
    }
    let mut table = Table::new(["counted from", "p50 us", "p90 us", "p99 us", "max us"]).right(1..5);
    let percentiles = [50.0, 90.0, 99.0, 100.0];
    table.push(cells("when it was sent (naive)", percentiles.map(|p| report.naive_us(p))));
    table.push(cells("when it was due", percentiles.map(|p| report.us(p))));
    s.table(table);
    s.metric("naive_p99_us", "us", report.naive_us(99.0));
    s.metric("due_p99_us", "us", report.us(99.0));
    s.metric("generator_late_p99_us", "us", report.late.value_at_percentile(99.0) as f64 / 1e3);
    let lie = report.us(99.0) / report.naive_us(99.0).max(0.001);
    s.metric("naive_understates_p99", "1", lie);
    s.say(format!(
        "{} requests on a timetable of {} a second. The naive p99 is **{} times** too good: it forgets those \
         who could not even ask.",
        report.requests,
        figure(rate),
        figure(lie)
    ));
    s.check(
        "due_is_never_better_than_naive",
        percentiles.iter().all(|&p| report.us(p) >= report.naive_us(p)),
        "latency from the intended time is at least that from the sending",
    );
    Ok(())
}

fn cells(label: &str, values: [f64; 4]) -> Vec<String> {
    let mut cells = vec![label.to_owned()];
    cells.extend(values.map(figure));
    cells
}

/// Stops a process for some milliseconds, after a time. Ctrl-C lets it go on first.
fn halt(pid: u32, after: Duration, milliseconds: u64) -> std::thread::JoinHandle<()> {
    let pid = Pid::from_raw(pid as i32);
    std::thread::spawn(move || {
        std::thread::sleep(after);
        let _undo = kit::cleanup::defer("let the server go on", move || {
            let _ = kill(pid, Signal::SIGCONT);
        });
        let _ = kill(pid, Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(milliseconds));
    })
}

fn conclude(s: &mut Session, ratios: &[(usize, Option<Ratio>)]) {
    s.check("every_echo_right", true, "each byte was compared by the client");
    let mut found: Vec<String> = Vec::new();
    let mut noise: Vec<String> = Vec::new();
    for (n, ratio) in ratios {
        let Some(r) = ratio else { continue };
        let percent = (r.ratio - 1.0).abs() * 100.0;
        match r.verdict() {
            Verdict::Less => found.push(format!("saves {percent:.0} % of the CPU at {n}")),
            Verdict::More => found.push(format!("costs {percent:.0} % more at {n}")),
            Verdict::NoDifference => noise.push(n.to_string()),
        }
    }
    if !noise.is_empty() {
        found.push(format!("shows no difference at {}", noise.join(" and ")));
    }
    let lesson = if ratios.iter().all(|(_, r)| r.is_none()) {
        "without io_uring there is no comparison; the epoll half is above".to_owned()
    } else {
        format!(
            "io_uring shares its system calls among connections, and {} connections: on loopback the rest is TCP",
            found.join(", ")
        )
    };
    s.so(lesson, "--knobs, --map, --overload");
}
