//! The default run: a machine, a program, its exits, and where the time went.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use kit::{Bars, Listing, Predict, Session, Summary, Table};
use kvm_hello::cost::{self, Way};
use kvm_hello::exits::Why;
use kvm_hello::hello::{self, Change, Hello, Traced, Watch};
use kvm_hello::layout;
use kvm_hello::listing::Line;
use kvm_hello::machine::{Call, Machine};
use kvm_hello::mode::Mode;

/// What to show of the guest's way.
#[derive(Debug, Clone, Copy)]
pub struct Watching {
    pub every_exit: bool,
    pub every_instruction: bool,
    pub timeout: Duration,
}

impl Watching {
    pub fn watch(self) -> Watch {
        if self.every_instruction { Watch::Steps } else { Watch::Exits }
    }
}

/// The bare hello: nothing but the machine and its three results.
pub fn quick(s: &mut Session, timeout: Duration) -> anyhow::Result<()> {
    let hello = hello::run(Mode::Real, Watch::Nothing, timeout)?;
    s.step_at("A guest says hello", hello::HERE);
    said(s, &hello);
    s.say(first_exit(&hello));
    checks(s, &hello);
    metrics(s, &[hello]);
    Ok(())
}

/// `--quick` and nothing else: no frame, no event, no look at the machine; its time is the guest's time.
/// The text is what [`quick`] tells, without the frame's header. None if the guest did not come off, for the
/// frame to say why.
pub fn bare() -> Option<String> {
    let (hello, machine) = hello::run_and_keep(Mode::Real, Watch::Nothing, Duration::ZERO).ok()?;
    // The process ends now, and the kernel takes a machine down faster as a whole than call by call.
    std::mem::forget(machine);
    let [text, memory, register] = verdicts(&hello).map(|(_, ok, detail)| ok.then_some(detail));
    Some(format!(
        "   {}\n   {}\n\n   ok  {}    ok  {}\n   ok  {}\n",
        guest_line(&hello),
        first_exit(&hello),
        text?,
        memory?,
        register?
    ))
}

/// Writes to standard output as the frame does: a reader who has gone away is no failure, a full disk is.
pub fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ = writeln!(std::io::stderr(), "kvm-hello: cannot write the narration: {e}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn first_exit(hello: &Hello) -> String {
    format!("first exit after {:.1} us", us(hello.first_exit))
}

/// The whole story.
pub fn tell(s: &mut Session, w: Watching) -> anyhow::Result<()> {
    let hello = hello::run(Mode::Real, w.watch(), w.timeout)?;
    let lines = hello::program_lines(Mode::Real);

    s.step_at("Ask the kernel for a machine", Machine::HERE);
    s.table(call_table(hello.calls.iter().filter(|c| words(c).is_some())));
    s.say("A machine is **three file descriptors** and a mapping: no firmware, no disk, no clock.");

    s.step_at(
        format!("Put {} bytes of program into its memory", Mode::Real.program().bytes.len()),
        Mode::Real.here(),
    );
    s.listing(program_listing(Mode::Real, &lines));
    s.say("To the host, the guest's memory is a mapping like any other: loading a program is a copy.");

    s.step_at("Let it run until it wants something", hello::HERE);
    let letters = hello.said.len();
    s.predict(Predict::new(
        &format!("how many times does the guest leave to print {letters} letters and stop?"),
        [
            "once".into(),
            format!("{letters} times"),
            format!("{} times", letters + 1),
            "never: it has a screen".into(),
        ],
        2,
        "Each letter is an exit of its own, and so is hlt: there is nobody inside who could collect them.",
    ));
    said(s, &hello);
    s.table(exit_table(&hello.exits, w.every_exit || w.every_instruction || s.verbose() > 0));
    if w.every_instruction {
        s.say(format!("**{} steps**: with single-step on, every instruction is an exit.", hello.exits.len()));
    } else {
        s.say(format!(
            "**{} exits**: every letter cost a round trip guest, kernel, us and back.",
            hello.exit_count
        ));
        let out = hello.exits.first().and_then(|e| Some((e.rip, e.line.as_ref()?)));
        if let Some((rip, line)) = out.filter(|(rip, line)| *rip == line.end()) {
            s.say(format!(
                "`rip` is {rip:x}, behind the out at {:x}: this KVM had finished it before it came to us.",
                line.at
            ));
        }
    }

    s.step_at("Where the start-up time went", Machine::HERE);
    let mut unwatched =
        (0..9).map(|_| hello::run(Mode::Real, Watch::Nothing, w.timeout)).collect::<Result<Vec<_>, _>>()?;
    unwatched.sort_by_key(|run| run.whole);
    let median = &unwatched[unwatched.len() / 2];
    s.bars(waterfall(median));
    let calls = median.calls.iter().map(|c| (c.name, c.took));
    let most = calls
        .chain([("KVM_RUN", median.in_guest)])
        .max_by_key(|(_, took)| *took)
        .map_or("", |(name, _)| name);
    s.say(format!(
        "The median of {} unwatched runs: **{:.2} ms** from nothing to the end, {:.2} ms from KVM_CREATE_VM to the \
         first exit; {most} took most.",
        unwatched.len(),
        ms(median.whole),
        ms(median.first_exit),
    ));

    s.step_at("What one exit costs", cost::HERE);
    for way in [Way::Port, Way::Mmio] {
        let cost = cost::measure(way, 300)?;
        s.measure(way.metric(), "ns", summary(&cost.samples));
        if way == Way::Port {
            emulation(s, &cost);
        }
    }

    metrics(s, &unwatched);
    checks(s, &hello);
    s.so("a VM is a loop around one ioctl; its cost is the exits.", "--mode all, --exits, --single-step");
    Ok(())
}

/// Says when KVM runs ring 0 in its emulator, for then times are not those of a processor.
fn emulation(s: &mut Session, cost: &cost::Cost) {
    let Ok(emulated) = cost.emulated else { return };
    s.metric("emulated_per_exit", "1", emulated);
    if emulated >= 0.5 {
        s.say(format!(
            "This KVM **emulates ring 0**: {emulated:.1} instructions an exit, counted by itself. \
             On most machines the processor runs them, and an exit takes 1 to 2 us."
        ));
    }
}

/// What starting costs, over one run or several of the same mode.
pub fn metrics(s: &mut Session, runs: &[Hello]) {
    let call =
        |run: &Hello, name: &str| run.calls.iter().find(|c| c.name == name).map_or(0.0, |c| us(c.took));
    let over = |f: &dyn Fn(&Hello) -> f64| Summary::of(&runs.iter().map(f).collect::<Vec<_>>());
    s.metric_spread("vm_create_us", "us", over(&|run| call(run, "KVM_CREATE_VM")));
    s.metric_spread("vcpu_create_us", "us", over(&|run| call(run, "KVM_CREATE_VCPU")));
    s.metric_spread("first_exit_us", "us", over(&|run| us(run.first_exit)));
    s.metric_spread("whole_us", "us", over(&|run| us(run.whole)));
    s.metric_spread("exits", "1", over(&|run| run.exit_count as f64));
}

pub fn checks(s: &mut Session, hello: &Hello) {
    cut_short(s, hello);
    for (name, ok, detail) in verdicts(hello) {
        s.check(name, ok, detail);
    }
}

fn verdicts(hello: &Hello) -> [(&'static str, bool, String); 3] {
    let said = String::from_utf8_lossy(&hello.said);
    let text = format!("the guest said {:?} and left by {}", said.trim_end(), hello.last);
    [
        ("hello_text", hello.said_hello(), text),
        ("result_in_memory", hello.in_memory(), format!("{} at 0x400", hello.in_memory)),
        ("result_in_register", hello.in_register(), format!("{} in rax", hello.regs.rax)),
    ]
}

/// Says so when a guest did not end by itself.
pub fn cut_short(s: &mut Session, hello: &Hello) {
    if hello.last.why == Why::Interrupted {
        s.say(format!(
            "The guest in {} mode was **taken back** after {} exits: its time (--timeout) was up.",
            hello.mode.name(),
            hello.exit_count
        ));
    }
}

pub fn said(s: &mut Session, hello: &Hello) {
    s.listing(Listing::new("").line(guest_line(hello), ""));
}

fn guest_line(hello: &Hello) -> String {
    format!("guest> {}", String::from_utf8_lossy(&hello.said).trim_end())
}

/// A mode's program, its exits marked, and the string behind its code.
pub fn program_listing(mode: Mode, lines: &[Line]) -> Listing {
    let title = format!("{}-bit code at {:#x}", mode.bits(), layout::CODE);
    let listing = lines.iter().fold(Listing::new(&title), |listing, line| {
        let ring3 = mode == Mode::User && line.at >= layout::USER_CODE;
        let note = match line.text.as_str() {
            // What only ring 0 may do leads to ring 0 of the guest, and nowhere else.
            text if ring3 && (text.starts_with("out") || text == "hlt") => "#GP: to ring 0",
            text if text.starts_with("out") => "leaves the machine",
            "hlt" => "leaves it for the last time",
            _ => "",
        };
        listing.line(format!("{:4x}  {:<20}  {}", line.at, line.hex(), line.text), note)
    });
    let program = mode.program();
    let data = &program.bytes[program.code..];
    let at = layout::CODE + program.code as u64;
    listing.line(
        format!("{at:4x}  {:<20}  {:?}", format!("{} bytes", data.len()), String::from_utf8_lossy(data)),
        "",
    )
}

/// What a call gives, for those that a machine is made of.
fn words(call: &Call) -> Option<&'static str> {
    Some(match call.name {
        "open(\"/dev/kvm\")" => "KVM itself",
        "KVM_CREATE_VM" => "an empty machine (and kvm_run's size)",
        "KVM_CREATE_IRQCHIP" => "interrupt controllers",
        "KVM_CREATE_PIT2" => "a timer",
        "mmap" => "memory of ours",
        "KVM_SET_USER_MEMORY_REGION" => "which is its memory from 0 on",
        "KVM_CREATE_VCPU" => "a processor (and kvm_run, by mmap)",
        "KVM_GET_SUPPORTED_CPUID" => "what KVM can offer as a processor",
        "KVM_SET_CPUID2" => "what the guest is told it has",
        "KVM_GET_SREGS" => "system registers",
        "KVM_SET_SREGS" => "the mode it starts in",
        "KVM_SET_REGS" => "where it starts",
        _ => return None,
    })
}

pub fn call_table<'c>(calls: impl Iterator<Item = &'c Call>) -> Table {
    let mut table = Table::new(["call", "gives", "us"]).right([2]);
    for call in calls {
        table.push([
            call.name.to_owned(),
            words(call).unwrap_or("").to_owned(),
            format!("{:.1}", us(call.took)),
        ]);
    }
    table
}

/// The exits; `all` of them, or the first, the last and how many were alike between.
pub fn exit_table(exits: &[Traced], all: bool) -> Table {
    let mut table = Table::new(["exit", "why", "rip", "instruction", "changed", "us"]).right([0, 5]);
    let folded = if all || exits.len() <= 8 { 0..0 } else { 4..exits.len() - 3 };
    for (i, e) in exits.iter().enumerate() {
        if i == folded.start && !folded.is_empty() {
            table.push([
                "…".into(),
                format!("{} more like it", folded.len()),
                "".into(),
                "".into(),
                "".into(),
                "".into(),
            ]);
        }
        if folded.contains(&i) {
            continue;
        }
        let instruction = e.line.as_ref().map_or("?", |l| l.text.as_str());
        table.push([
            (i + 1).to_string(),
            e.exit.to_string(),
            format!("{:x}", e.rip),
            instruction.to_owned(),
            changed(e),
            format!("{:.1}", us(e.exit.took)),
        ]);
    }
    table
}

/// The registers that changed, the letter that goes out first.
fn changed(e: &Traced) -> String {
    let mut parts = Vec::new();
    if let Why::PortOut { value, width: 1, .. } = e.exit.why {
        parts.push(format!("al={}", letter(value as u8)));
    }
    let spoken = !parts.is_empty();
    for Change { name, before, after } in &e.changed {
        match *name {
            // The flags change all the time: worth a word only where each instruction has its own line.
            "rflags" if matches!(e.exit.why, Why::Debug { .. }) => {
                let flags = [("cf", 0), ("zf", 6), ("sf", 7)];
                let flipped = flags.into_iter().filter(|(_, bit)| (before ^ after) >> bit & 1 == 1);
                parts.extend(flipped.map(|(flag, bit)| format!("{flag}={}", after >> bit & 1)));
            }
            "rflags" => {}
            "rax" if spoken => {}
            name => parts.push(format!("{name}={after:x}")),
        }
    }
    if parts.len() > 3 {
        parts.truncate(3);
        parts.push("…".into());
    }
    parts.join(" ")
}

fn letter(byte: u8) -> String {
    if byte.is_ascii_graphic() || byte == b' ' { format!("'{}'", byte as char) } else { format!("{byte:#x}") }
}

/// The calls one after the other, then the first run, then the rest of the runs.
fn waterfall(hello: &Hello) -> Bars {
    let mut bars = Bars::new("from open to the last exit (KVM_ left out)", "us").with_share();
    let mut at = 0.0;
    for call in &hello.calls {
        if words(call).is_none() || us(call.took) < 0.01 * us(hello.whole) {
            continue;
        }
        bars = bars.from(at, call.name.trim_start_matches("KVM_"), us(call.took));
        at += us(call.took);
    }
    let small: f64 = us(hello.whole) - at - us(hello.in_guest);
    bars.from(at, "RUN, all of them", us(hello.in_guest)).from(
        at + us(hello.in_guest),
        "the rest",
        small.max(0.0),
    )
}

pub fn summary(nanoseconds: &[u64]) -> Summary {
    Summary::of(&nanoseconds.iter().map(|n| *n as f64).collect::<Vec<_>>())
}

pub fn us(d: Duration) -> f64 {
    d.as_secs_f64() * 1e6
}

pub fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}
