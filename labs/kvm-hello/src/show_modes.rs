//! `--mode`: the same hello in the five stages of the boot path.

use std::time::Duration;

use kit::stats::Ratio;
use kit::{Predict, Session, Summary, Table};
use kvm_hello::hello::{self, Hello, Watch};
use kvm_hello::mode::Mode;
use kvm_hello::segments::{CR0_PE, CR0_PG, CR4_PAE, EFER_LMA};

use crate::show_hello::{
    Watching, call_table, checks, cut_short, exit_table, metrics, program_listing, said, us,
};
use crate::show_paging;

/// One mode, from its registers to its exits.
pub fn tell(s: &mut Session, mode: Mode, w: Watching) -> anyhow::Result<()> {
    s.param("mode", mode.name());
    let hello = hello::run(mode, w.watch(), w.timeout)?;
    let lines = hello::program_lines(mode);

    s.step_at(format!("Wake the processor up in {}", title(mode)), mode.here());
    s.table(call_table(hello.calls.iter().filter(|c| c.name.contains("REGS") || c.name.contains("CPUID"))));
    s.table(state_table(std::slice::from_ref(&hello)));
    s.say(teaches(mode));

    s.step_at("Load the program for it", Mode::LOADING);
    s.listing(program_listing(mode, &lines));

    s.step_at("Let it run", hello::HERE);
    if mode == Mode::User {
        s.predict(Predict::new(
            "ring 3 runs `out`, which it may not. Who sees that first?",
            ["the host, as an exit", "the guest's own ring 0, as an exception", "nobody: it is ignored"],
            1,
            "The guest's #GP handler gets it, does the `out` in its place, and only that leaves the machine.",
        ));
    }
    s.table(exit_table(&hello.exits, w.every_exit || w.every_instruction || s.verbose() > 0));
    if hello.kvm_cannot() && cannot(s, &hello, &hello::run(Mode::Protected, Watch::Nothing, w.timeout)?) {
        s.so("what a KVM cannot run it says so, by an exit.", "--mode all");
        return Ok(());
    }
    said(s, &hello);
    if mode == Mode::User {
        s.say(format!(
            "Two exceptions at work: #GP for every `out` of ring 3, and **one page fault** at {:#x} (code {}: \
             a write, from ring 3), for which the guest mapped a page. The host saw neither.",
            hello.page_fault.0, hello.page_fault.1
        ));
    }
    if let Some(walk) = &hello.walk {
        show_paging::tell(s, mode, walk, hello.host_address);
    }
    metrics(s, std::slice::from_ref(&hello));
    checks(s, &hello);
    if mode == Mode::User {
        let (address, code) = hello.page_fault;
        s.check(
            "page_fault_handled",
            address == mode.result_address() && code == 6,
            format!("CR2 {address:#x}, error code {code}"),
        );
    }
    s.so("a mode is a few bits in a few registers; the exits stay the same.", next(mode));
    Ok(())
}

/// All modes, side by side.
pub fn compare(s: &mut Session, timeout: Duration) -> anyhow::Result<()> {
    s.param("mode", "all");
    let watched = Mode::ALL
        .into_iter()
        .map(|mode| hello::run(mode, Watch::Exits, timeout))
        .collect::<Result<Vec<_>, _>>()?;

    s.step_at("Set the registers that make a mode", Mode::Protected.here());
    s.table(state_table(&watched));
    s.say("From 1978 to today in **four bits**: PE, PG, PAE, LMA. A PC's start walks down this table.");

    s.step_at("Say hello in each", hello::HERE);
    s.predict(Predict::new(
        "which of the modes costs the fewest exits for the same letters?",
        ["real mode", "64 bits", "ring 3", "they all cost the same"],
        3,
        "A letter is one `out`, and `out` leaves the machine, however wide the registers are.",
    ));
    let timed = timed(timeout, if s.quick() { 3 } else { ROUNDS })?;
    let mut table =
        Table::new(["mode", "says", "letters", "exits", "first exit us", "in guest us"]).right([2, 3, 4, 5]);
    for runs in &timed {
        let run = &runs[0];
        let said = String::from_utf8_lossy(&run.said);
        let median = |of| {
            let all = over(runs, of);
            if all.n > 0 { format!("{:.0}", all.median) } else { "-".into() }
        };
        table.push([
            run.mode.name().to_owned(),
            if said.is_empty() { format!("({})", run.last.why.name()) } else { said.trim_end().to_owned() },
            run.said.len().to_string(),
            run.exit_count.to_string(),
            median(|r| r.first_exit),
            median(|r| r.in_guest),
        ]);
    }
    s.table(table);
    s.say(format!("Times are medians of {} unwatched runs, the modes in turn.", timed[0].len()));
    if timed.iter().flatten().filter(|r| r.well()).all(|r| r.exit_count == r.said.len() as u64 + 1) {
        s.say(
            "**One exit a letter, and one for hlt**, in every mode that ran; the line's end is a letter too.",
        );
    }
    ring3(s, &timed);
    for run in &watched {
        cut_short(s, run);
    }
    let not_here: Vec<Mode> = watched
        .iter()
        .filter(|run| run.kvm_cannot() && cannot(s, run, &watched[Mode::Protected as usize]))
        .map(|run| run.mode)
        .collect();

    if let Some(long) = watched.iter().find(|r| r.mode == Mode::Long && r.well())
        && let Some(walk) = &long.walk
    {
        show_paging::tell(s, Mode::Long, walk, long.host_address);
    }
    for (run, runs) in watched.iter().zip(&timed) {
        let name = run.mode.name();
        s.metric_spread(&format!("{name}_first_exit_us"), "us", over(runs, |r| r.first_exit));
        s.metric_spread(&format!("{name}_in_guest_us"), "us", over(runs, |r| r.in_guest));
        if !not_here.contains(&run.mode) {
            let well = runs.iter().chain([run]).filter(|r| r.well()).count();
            let detail = format!("{name}: {well} of {} said hello; {}", runs.len() + 1, run.last);
            s.check(&format!("mode_{name}"), well == runs.len() + 1, detail);
        }
    }
    s.so(
        "a mode is a few bits in a few registers; the exits stay the same.",
        "--mode user, --mode long --single-step",
    );
    Ok(())
}

/// Rounds of [`timed`].
const ROUNDS: usize = 9;

/// Unwatched runs of every mode, in turn, so that what the machine does to one it does to all: by mode, then round.
fn timed(timeout: Duration, rounds: usize) -> anyhow::Result<Vec<Vec<Hello>>> {
    let mut timed: Vec<Vec<Hello>> = Mode::ALL.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (mode, runs) in Mode::ALL.into_iter().zip(&mut timed) {
            runs.push(hello::run(mode, Watch::Nothing, timeout)?);
        }
    }
    Ok(timed)
}

/// What a time comes to over the runs that came through, microseconds.
fn over(runs: &[Hello], of: fn(&Hello) -> Duration) -> Summary {
    Summary::of(&runs.iter().filter(|r| r.well()).map(|r| us(of(r))).collect::<Vec<_>>())
}

/// What ring 3 costs beside ring 0, if every run of both came through.
fn ring3(s: &mut Session, timed: &[Vec<Hello>]) {
    let [long, user] = [Mode::Long, Mode::User].map(|mode| &timed[mode as usize]);
    if !long.iter().chain(user).all(Hello::well) {
        return;
    }
    // Greetings differ in length: by exit, they compare.
    let an_exit =
        |runs: &[Hello]| runs.iter().map(|r| us(r.in_guest) / r.exit_count as f64).collect::<Vec<_>>();
    let Some(ratio) = Ratio::paired(&an_exit(user), &an_exit(long)) else { return };
    s.metric("ring3_to_ring0_per_exit", "1", ratio.ratio);
    if ratio.low > 1.0 {
        s.say(format!(
            "Ring 3 took **{:.1} times** as long an exit as ring 0 (95 % interval {:.1} to {:.1}), for each of its \
             letters is first an exception inside.",
            ratio.ratio, ratio.low, ratio.high
        ));
    } else {
        s.say("Between ring 0 and ring 3 these runs **show no difference** by exit.");
    }
}

/// Says that this KVM cannot run a mode, with the evidence; false if `protected`, a run of the same bytes without
/// paging, went wrong too: then it is the bytes.
fn cannot(s: &mut Session, hello: &Hello, protected: &Hello) -> bool {
    if !protected.well() {
        return false;
    }
    let dropped = if hello.sregs.cr0 & CR0_PG == 0 {
        format!("KVM took CR0.PG = 1 and reads it back as 0 (CR0 {:#x}), then ", hello.sregs.cr0)
    } else {
        String::new()
    };
    s.missing(
        format!("{}: this KVM cannot", title(hello.mode)),
        format!(
            "{dropped}{} at the first instruction (rip {:#x}), although the tables, walked by hand, lead it to {:#x}. \
             The same bytes, run now in protected mode, said {:?}.",
            hello.last.why.name(),
            hello.regs.rip,
            hello.next_instruction.unwrap_or(0),
            String::from_utf8_lossy(&protected.said).trim_end()
        ),
        "a machine whose processor runs guests itself (vmx or svm in /proc/cpuinfo)",
    );
    true
}

fn state_table(runs: &[Hello]) -> Table {
    let bit = |on: bool| if on { "1" } else { "·" };
    let mut table = Table::new(["mode", "CR0.PE", "CR0.PG", "CR4.PAE", "EFER.LMA", "CS.D", "CS.L", "ring"]);
    for run in runs {
        let r = &run.sregs;
        table.push([
            run.mode.name(),
            bit(r.cr0 & CR0_PE != 0),
            bit(r.cr0 & CR0_PG != 0),
            bit(r.cr4 & CR4_PAE != 0),
            bit(r.efer & EFER_LMA != 0),
            bit(r.cs.db == 1),
            bit(r.cs.l == 1),
            if run.mode == Mode::User { "0, 3" } else { "0" },
        ]);
    }
    table
}

fn title(mode: Mode) -> &'static str {
    match mode {
        Mode::Real => "real mode",
        Mode::Protected => "protected mode",
        Mode::Paging32 => "32-bit paging",
        Mode::Long => "64-bit mode",
        Mode::User => "64-bit mode with rings",
    }
}

fn teaches(mode: Mode) -> &'static str {
    match mode {
        Mode::Real => "An address is **segment times 16 plus offset**, and nothing is forbidden.",
        Mode::Protected => "PE makes a segment a **descriptor**: base, limit, privilege. Ours are flat.",
        Mode::Paging32 => "PG sends every address through **two tables** of 1024 entries.",
        Mode::Long => {
            "Three bits make 64-bit mode: **LMA** with **PAE** and **PG**; there is no 64-bit mode without tables."
        }
        Mode::User => {
            "An IDT says where exceptions go, a TSS which stack they get: **that is all a kernel needs** to have users."
        }
    }
}

fn next(mode: Mode) -> &'static str {
    match mode {
        Mode::Real => "--mode protected",
        Mode::Protected => "--mode paging32",
        Mode::Paging32 => "--mode long",
        Mode::Long => "--mode user, --mode long --single-step",
        Mode::User => "--mode all, --exits",
    }
}
