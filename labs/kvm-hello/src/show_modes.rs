//! `--mode`: the same hello in the five stages of the boot path.

use std::time::Duration;

use kit::{Predict, Session, Table};
use kvm_hello::hello::{self, Hello, Watch};
use kvm_hello::mode::Mode;
use kvm_hello::segments::{CR0_PE, CR0_PG, CR4_PAE, EFER_LMA};

use crate::show_hello::{Watching, call_table, checks, exit_table, metrics, ms, program_listing, said, us};
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

    s.step_at("Load the program for it", kvm_hello::hello::HERE);
    s.listing(program_listing(&format!("{}-bit code at 0x1000", mode.bits()), &lines));

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
    if cannot(s, &hello) {
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
    let runs = Mode::ALL
        .into_iter()
        .map(|mode| hello::run(mode, Watch::Exits, timeout))
        .collect::<Result<Vec<_>, _>>()?;

    s.step_at("Set the registers that make a mode", Mode::Protected.here());
    s.table(state_table(&runs));
    s.say("From 1978 to today in **four bits**: PE, PG, PAE, LMA. A PC's start walks down this table.");

    s.step_at("Say hello in each", hello::HERE);
    s.predict(Predict::new(
        "which of the modes costs the fewest exits for the same letters?",
        ["real mode", "64 bits", "ring 3", "they all cost the same"],
        3,
        "A letter is one `out`, and `out` leaves the machine, however wide the registers are.",
    ));
    let mut table =
        Table::new(["mode", "says", "exits", "first exit us", "in guest us", "result"]).right([2, 3, 4]);
    for run in &runs {
        let ok = run.said_hello() && run.in_memory() && run.in_register();
        let said = String::from_utf8_lossy(&run.said);
        table.push([
            run.mode.name().to_owned(),
            if run.kvm_cannot() { format!("({})", run.last.why.name()) } else { said.trim_end().to_owned() },
            run.exit_count.to_string(),
            format!("{:.0}", us(run.first_exit)),
            format!("{:.0}", us(run.in_guest)),
            if ok { "42".into() } else { "-".into() },
        ]);
    }
    s.table(table);
    if let Some((long, user)) = pair(&runs, Mode::Long, Mode::User) {
        s.say(format!(
            "The exits are the same; ring 3 took **{:.1} times** as long as ring 0 in the guest, for each of its \
             letters is first an exception inside.",
            us(user.in_guest) / us(long.in_guest)
        ));
    }
    for run in &runs {
        cannot(s, run);
    }

    if let Some(long) = runs.iter().find(|r| r.mode == Mode::Long && !r.kvm_cannot())
        && let Some(walk) = &long.walk
    {
        show_paging::tell(s, Mode::Long, walk, long.host_address);
    }
    for run in &runs {
        s.metric(&format!("{}_first_exit_us", run.mode.name()), "us", us(run.first_exit));
        s.metric(&format!("{}_in_guest_us", run.mode.name()), "us", us(run.in_guest));
        if !run.kvm_cannot() {
            let ok = run.said_hello() && run.in_memory() && run.in_register();
            let name = format!("mode_{}", run.mode.name());
            s.check(&name, ok, format!("{} by {}, {:.2} ms", run.mode.name(), run.last, ms(run.whole)));
        }
    }
    s.so(
        "a mode is a few bits in a few registers; the exits stay the same.",
        "--mode user, --mode long --single-step",
    );
    Ok(())
}

fn pair(runs: &[Hello], a: Mode, b: Mode) -> Option<(&Hello, &Hello)> {
    let find = |mode| runs.iter().find(|r: &&Hello| r.mode == mode && !r.kvm_cannot());
    find(a).zip(find(b))
}

/// Says that this KVM cannot run a mode, with the evidence; whether that is so.
fn cannot(s: &mut Session, hello: &Hello) -> bool {
    if !hello.kvm_cannot() {
        return false;
    }
    let mapped = match hello.next_instruction {
        Some(physical) => format!(", although the tables, walked by hand, lead it to {physical:#x}"),
        None => String::new(),
    };
    let dropped = match hello.mode.paging() {
        Some(_) if hello.sregs.cr0 & CR0_PG == 0 => {
            format!("KVM took CR0.PG = 1 and reads it back as 0 (CR0 {:#x}), then ", hello.sregs.cr0)
        }
        _ => String::new(),
    };
    s.missing(
        format!("{}: this KVM cannot", title(hello.mode)),
        format!(
            "{dropped}{} at the first instruction (rip {:#x}){mapped}. The same bytes run in protected mode.",
            hello.last.why.name(),
            hello.regs.rip
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
