//! `--serve` and `--connect`: the two sides as two programs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use echo::load::{Client, Until};
use echo::server;
use echo::spec::Spec;
use kit::event::Scale;
use kit::stats::figure;
use kit::{Lines, Session, SysError, Table};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::options::Options;

/// Serves until the time is over or Ctrl-C.
pub fn serve(s: &mut Session, o: &Options, addr: SocketAddr) -> anyhow::Result<()> {
    let duration = o.duration()?;
    let spec = o.spec(Spec::EPOLL);
    s.step_at("Serve", server::HERE);
    crate::options::need(&spec)?;
    let running = server::start(spec, addr)?;
    for note in &running.notes {
        s.missing(spec.to_string(), note.clone(), "a newer kernel");
    }
    s.say(format!(
        "{spec} listens on **{}**; process {}; Ctrl-C drains and stops it.",
        running.addr,
        std::process::id()
    ));
    let running = Arc::new(Mutex::new(Some(running)));
    let take = Arc::clone(&running);
    let drain = kit::cleanup::defer("drain the connections", move || {
        // Dropping a server stops it, which waits for its connections up to the grace period.
        drop(take.lock().ok().and_then(|mut r| r.take()));
    });
    std::thread::sleep(duration.unwrap_or(Duration::from_secs(u64::MAX / 4)));
    drain.disarm();
    let Some(running) = running.lock().ok().and_then(|mut r| r.take()) else { return Ok(()) };
    let counts = running.stop()?;
    let mut table = Table::new(["", "count"]).right([1]);
    for (name, n) in counts.fields().into_iter().filter(|(_, n)| *n > 0) {
        s.metric(name, "1", n as f64);
        table.push([name.to_owned(), figure(n as f64)]);
    }
    s.table(table);
    s.so("the server counts its own system calls; strace -c agrees", "--connect from another terminal");
    Ok(())
}

/// CPU time of a process of this machine: of all its threads, since it started.
fn process_cpu(pid: i32) -> Result<Duration, SysError> {
    let clock =
        ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).map_err(SysError::nix("clock_getcpuclockid"))?;
    clock_gettime(clock).map(Duration::from).map_err(SysError::nix("clock_gettime"))
}

/// Makes load for a server elsewhere.
pub fn connect(s: &mut Session, o: &Options, addr: SocketAddr) -> anyhow::Result<()> {
    let duration = o.duration()?.unwrap_or(Duration::from_secs(if s.quick() { 1 } else { 5 }));
    let load = o.load(addr)?;
    s.step_at("Connect, and check every echo", echo::load::HERE);
    let mut client = Client::connect(load)?;
    let before = o.server_pid.map(process_cpu).transpose()?;
    let report = client.run(Until::Elapsed(duration))?;
    let server = match (before, o.server_pid) {
        (Some(before), Some(pid)) => Some(process_cpu(pid)?.saturating_sub(before)),
        _ => None,
    };
    let server = server.map(|cpu| cpu.as_secs_f64() / report.elapsed.as_secs_f64().max(1e-9));
    s.metric("req_per_s", "1/s", report.rate());
    s.metric("generator_cpu_share", "1", report.cpu_share());
    s.say(format!(
        "{} connections, {} requests of {} bytes, all echoed right: **{}** a second.",
        load.connections,
        figure(report.requests as f64),
        o.payload(),
        figure(report.rate())
    ));
    let mut table = Table::new(["percentile", "from when it was due, us", "naive, us"]).right([0, 1, 2]);
    let percentiles =
        [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99), ("max", 100.0)];
    for (name, p) in percentiles {
        table.push([name.to_owned(), figure(report.us(p)), figure(report.naive_us(p))]);
        let name = name.replace('.', "_");
        s.metric(&format!("{name}_us"), "us", report.us(p));
        s.metric(&format!("naive_{name}_us"), "us", report.naive_us(p));
    }
    s.table(table);
    let curve = |of: fn(&echo::load::Report, f64) -> f64| -> Vec<(f64, f64)> {
        let shares = (1..=50).map(|i| 1.0 - 10f64.powf(-f64::from(i) / 12.5));
        shares.map(|share| (of(&report, share * 100.0), share)).collect()
    };
    s.lines(
        Lines::new("Share of requests answered within", "us", "share")
            .scales(Scale::Log, Scale::Nines)
            .series("from when it was due", curve(echo::load::Report::us))
            .series("from when it was sent", curve(echo::load::Report::naive_us)),
    );
    s.say(format!(
        "The generator used **{:.0} %** of a CPU, {}.",
        report.cpu_share() * 100.0,
        match server {
            Some(share) => format!("the server **{:.0} %**", share * 100.0),
            None => "the server is not known: --server-pid, on the same machine".into(),
        }
    ));
    if let Some(share) = server {
        s.metric("server_cpu_share", "1", share);
    }
    let late = report.late.value_at_percentile(99.0) as f64 / 1e3;
    if report.cpu_share() > 0.9 && server.is_none_or(|share| share < report.cpu_share()) {
        s.say("**The generator is the bottleneck**: what you see is its speed, not the server's.");
    } else if o.rate.is_some() && late > report.us(50.0) {
        s.say(format!(
            "The generator was late itself: p99 {} us. Small latencies are its own.",
            figure(late)
        ));
    }
    s.check("every_echo_right", true, "each byte was compared");
    let lie = report.us(99.0) / report.naive_us(99.0).max(0.001);
    match o.rate {
        None => s.so(
            "a closed loop: due and sent are the same time, so both columns agree",
            "--rate 10000 --poisson",
        ),
        Some(_) => s.so(
            format!("counted from the sending, p99 would look {} times better", figure(lie)),
            "--rate higher",
        ),
    }
    Ok(())
}
