//! The default run: a counter by hand, why the kernel dares to run it, the same in C, and what it costs.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use bpf_trace::command::{Running, Wait, Wake};
use bpf_trace::overhead::{Load, Overhead};
use bpf_trace::s1_by_hand::{self, Counter};
use bpf_trace::sys::bpf::{self, Code};
use bpf_trace::syscalls::{self, By, Row, Syscalls};
use bpf_trace::workload::{Caller, Known, SLEEP};
use bpf_trace::{Filter, TraceError, names};
use kit::stats::figure;
use kit::{Bars, Listing, Predict, Session, Table};

use crate::show::time;

pub fn show(s: &mut Session) -> anyhow::Result<()> {
    let me = std::env::current_exe()?;
    let mut ids = Vec::new();
    by_hand(s, &mut ids)?;
    refused(s)?;
    match counted(s, &me, &mut ids) {
        Err(e) if matches!(e.downcast_ref(), Some(TraceError::NoBtf(_))) => {
            s.missing(
                "counting by process, call and error, and its cost",
                e.to_string(),
                "a kernel with CONFIG_DEBUG_INFO_BTF",
            );
        }
        other => {
            other?;
            cost(s, &me)?;
        }
    }
    gone(s, &ids)?;
    s.so(
        "code that has been proved harmless may run inside the kernel, and inside is where looking is cheap",
        "--inside, --verifier, exec, profile, or syscalls -- COMMAND",
    );
    Ok(())
}

fn by_hand(s: &mut Session, ids: &mut Vec<u32>) -> anyhow::Result<()> {
    s.step_at("Put a counter into the kernel: eleven instructions", s1_by_hand::HERE);
    s.predict(Predict::new(
        "where will these instructions run?",
        ["in this process, on a copy of the data", "in the kernel, at each system call, whoever makes it", "in a thread of the kernel, now and then"],
        1,
        "The kernel calls them on its own way into each system call, on the CPU and in the name of the caller.",
    ));
    let counter = Counter::start()?;
    let info = bpf::prog_info(counter.program())?;
    ids.push(info.id);
    let listing = s1_by_hand::LINES.iter().fold(Listing::new(""), |l, (code, why)| l.line(*code, *why));
    s.listing(listing);
    let before = counter.count()?;
    std::thread::sleep(Duration::from_millis(200));
    let seen = counter.count()? - before;
    // The two lookups are calls themselves, and so is the sleep.
    s.metric("machine_calls_per_s", "1/s", seen as f64 * 5.0);
    let how = if info.jited_len == 0 {
        "interpreted: the kernel's JIT is off".to_owned()
    } else {
        format!("compiled to {} bytes of machine code", info.jited_len)
    };
    s.say(format!("Loaded as program {}, {how}, attached to sys_enter.", info.id));
    s.say(format!("In 0.2 s all processes of this machine made **{}** system calls.", figure(seen as f64)));
    Ok(())
}

fn refused(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("Leave out one check, and try again", s1_by_hand::HERE);
    s.predict(Predict::new(
        "a map in which the key may be missing, and the check for null left out: what happens?",
        [
            "it runs as long as the key is there",
            "it runs, and one day the kernel crashes",
            "it is not loaded at all",
        ],
        2,
        "The verifier follows every path before the first run, also those that nobody has taken yet.",
    ));
    let careless = |kind| {
        let map = bpf::map_create(kind, 4, 8, 1)?;
        let mut code = s1_by_hand::program(map.as_fd()).to_vec();
        code.remove(s1_by_hand::NULL_CHECK);
        Ok::<_, kit::SysError>(bpf::prog_load(Code::raw_tp(&code), 1))
    };
    // enum bpf_map_type
    const HASH: u32 = 1;
    const ARRAY: u32 = 2;
    let loaded = careless(HASH)?;
    let said = bpf::refusal(&loaded.log);
    let log: Vec<&str> =
        loaded.log.lines().filter(|l| !l.starts_with("processed") && !l.is_empty()).collect();
    s.listing(Listing::text("the verifier's log, as it came", &log.join("\n")));
    s.check(
        "careless_refused",
        loaded.program.is_err() && said.contains("map_value_or_null"),
        "the verifier refused the careless one",
    );
    s.say(format!(
        "**{said}**: an address that may be null must not be used. So what does run, cannot crash the kernel."
    ));
    let array = match careless(ARRAY)?.program {
        Ok(_) => {
            "With the array of step 1 it is taken: there entry 0 always is, and this kernel's verifier knows it."
        }
        Err(_) => {
            "With the array of step 1, where entry 0 always is, this kernel's verifier refuses it, too."
        }
    };
    s.say(format!("The map here is a hash map, in which a key may be missing. {array}"));
    Ok(())
}

fn counted(s: &mut Session, me: &Path, ids: &mut Vec<u32>) -> anyhow::Result<()> {
    s.step_at("The same in C, held against a known workload", syscalls::HERE);
    let known =
        Known { threads: 4, getppid: if s.quick() { 2_000 } else { 20_000 }, bad_close: 500, sleeps: 10 };
    let filter = Filter { follow: true, ..Filter::default() };
    let view =
        Syscalls::start(&syscalls::Options { filter, by: By::Thread, timing: true, ..Default::default() })?;
    ids.extend(view.tracer().attached().iter().map(|a| a.id));
    let mut wait = Wait::new(Some(Duration::from_secs(30)), Duration::from_secs(60))?;
    let mut command = Running::start(&known.command(me), true)?;
    if wait.next(None, Some(&mut command))? == Wake::Interrupted {
        return Err(kit::Interrupted.into());
    }
    view.tracer().stop();
    let rows = view.read()?;
    let threads = u64::from(known.threads);
    let mut table =
        Table::new(["call", "made", "counted", "in threads", "errors", "p50", "max"]).right([1, 2, 3, 5, 6]);
    let mut exact = true;
    for (name, each, errors) in
        [("getppid", known.getppid, ""), ("close", known.bad_close, "EBADF"), (SLEEP_CALL, known.sleeps, "")]
    {
        // close succeeds now and then on the way to main: only those that failed are the workload's.
        let of: Vec<&Row> = rows.iter().filter(|r| names::syscall(r.nr) == name).collect();
        let count = |r: &&Row| if errors.is_empty() { r.count } else { r.failed };
        let counted: u64 = of.iter().map(count).sum();
        let in_threads = of.iter().filter(|r| count(r) == u64::from(each)).count();
        exact &= counted == u64::from(each) * threads && in_threads as u64 == threads;
        let busiest = of.iter().max_by_key(|r| r.count);
        let latency = |p| busiest.map_or("-".into(), |r| time(r.latency.percentile(p)));
        table.push([
            name.to_owned(),
            format!("{} x {}", known.threads, figure(each.into())),
            figure(counted as f64),
            in_threads.to_string(),
            if errors.is_empty() { "-".into() } else { errors.to_owned() },
            latency(0.5),
            latency(1.0),
        ]);
    }
    s.table(table);
    let calls: u64 = rows.iter().map(|r| r.count).sum();
    let lost = view.tracer().lost()?.events();
    s.metric("events", "1", calls as f64);
    s.metric("lost", "1", lost as f64);
    s.check("exact_count", exact, "counted exactly what was made, in each thread");
    s.check("none_lost", lost == 0, format!("{lost} of {calls} lost"));
    let slept: Vec<_> = rows.iter().filter(|r| names::syscall(r.nr) == SLEEP_CALL).collect();
    let early = slept.iter().any(|r| r.latency.percentile(0.0) < SLEEP.as_nanos() as u64 * 4 / 5);
    s.check("sleep_measured", !slept.is_empty() && !early, "no sleep of 5 ms measured shorter");
    s.say(format!(
        "The other {} calls are those of starting a program. Nothing was stopped to look: the kernel counted on the way.",
        figure((calls - u64::from(known.getppid + known.bad_close + known.sleeps) * threads) as f64)
    ));
    Ok(())
}

/// What `std::thread::sleep` calls.
const SLEEP_CALL: &str = "clock_nanosleep";

fn cost(s: &mut Session, me: &Path) -> anyhow::Result<()> {
    s.step_at("What that costs who does nothing but system calls", bpf_trace::overhead::HERE);
    s.predict(Predict::new(
        "one-byte reads and writes, each counted by process, call and error: how much slower?",
        ["not measurably", "by a fraction", "ten times", "sixty times, as under strace"],
        1,
        "The program takes some tens of nanoseconds; making the kernel stop by the tracepoint at all takes more.",
    ));
    let (rounds, pairs) = if s.quick() { (5, 5_000) } else { (7, 25_000) };
    let progress = s.progress(rounds as u64, "measuring in turn");
    let mut caller = Caller::start(me)?;
    let overhead = Overhead::measure(&mut caller, rounds, pairs, || progress.add(1))?;
    drop(progress);
    let mut bars = Bars::new("a one-byte read or write to /dev/null", "ns");
    for load in Load::ALL {
        let summary = kit::Summary::of(overhead.of(load));
        let note = match overhead.ratio(load) {
            Some(r) if load != Load::Nothing => format!("{:.2} times ({:.2}..{:.2})", r.ratio, r.low, r.high),
            _ => String::new(),
        };
        bars = bars.bar(load.name(), summary.median, note);
        s.metric_spread(&format!("{}_ns", load.metric()), "ns", summary);
    }
    s.bars(bars);
    let ratio = |load| overhead.ratio(load).map_or(f64::NAN, |r: kit::stats::Ratio| r.ratio);
    s.metric("overhead_ratio", "1", ratio(Load::Counts));
    s.metric("floor_ratio", "1", ratio(Load::Empty));
    s.metric("latency_overhead_ratio", "1", ratio(Load::Latency));
    s.say(format!(
        "Median of {rounds} rounds in turn, the fastest of many short parts in each. Counting takes **{:.2} times** the time; \
         {:.2} of that is reached by a program that does nothing. A process that also computes between its calls loses as \
         many nanoseconds a call, so a smaller part.",
        ratio(Load::Counts),
        ratio(Load::Empty),
    ));
    Ok(())
}

fn gone(s: &mut Session, ids: &[u32]) -> anyhow::Result<()> {
    s.step("Close the descriptors");
    // The kernel frees a program when the last run that may still see it has ended: a moment after the last close.
    let mut left = ids.to_vec();
    for _ in 0..100 {
        let mut still = Vec::new();
        for id in left {
            if bpf::is_loaded(id)? {
                still.push(id);
            }
        }
        left = still;
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    s.check(
        "no_program_left",
        left.is_empty(),
        format!("{} programs loaded, {} left", ids.len(), left.len()),
    );
    s.say("A program lives as long as a descriptor of it or of its link: there is nothing to uninstall, even after kill -9.");
    Ok(())
}
