//! The guided walk: from a crash to a backtrace; and the same for a core that was given.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use elf_core::catch::{self, Victim, Writer};
use elf_core::s4_memory::Memory;
use elf_core::s6_unwind::{Backtrace, Unwinder};
use elf_core::s7_symbols::{Symbols, fold};
use elf_core::victim::{Crash, Knowledge, pattern};
use elf_core::{Core, cause, disasm, s1_header, s2_notes, s3_process, s4_memory, s6_unwind};
use kit::Session;
use kit::event::{ByteNote, Hexdump, Listing, Predict, Table};
use kit::stats::Summary;

use crate::{Options, problems, show_views, words};

/// A directory of ours, removed when dropped or on Ctrl-C.
pub struct Scratch(pub std::path::PathBuf, Option<kit::cleanup::Deferred>);

impl Scratch {
    /// A new one below the temporary directory.
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("elf-core-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("mkdir {}", path.display()))?;
        let gone = path.clone();
        let undo = kit::cleanup::defer("remove the victim's directory", move || {
            let _ = std::fs::remove_dir_all(&gone);
        });
        Ok(Self(path, Some(undo)))
    }
}

/// Starts a victim, gets its core, walks through it, and compares with what the victim knew.
pub fn victim(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    if o.crash == Crash::Park {
        return Err(kit::entry::Usage("park does not crash; it is for --gcore".into()).into());
    }
    s.param("crash", o.crash.name());
    let scratch = Scratch::new()?;
    s.step_at("Let a small server crash", catch::HERE);
    s.predict(Predict::new(
        "It has hundreds of MiB mapped. How large is its core?",
        ["as much as it had mapped", "as much as it had written to", "only its registers and stacks"],
        1,
        "What is mapped from a file can be read there again; what was never written is zero.",
    ));
    let mut command = Command::new(std::env::current_exe().context("where is this program")?);
    command.args(["--victim", o.crash.name(), "--threads-of-victim", &o.workers.to_string()]);
    let victim = Victim::start(command, o.crash, &scratch.0)?;
    let knowledge = victim.knowledge.clone();
    let started = Instant::now();
    let (path, writer) = if o.by_gcore {
        victim.core_by_gcore(&scratch.0, "--by-gcore was given".into())?
    } else {
        victim.core(&scratch.0)?
    };
    let took = started.elapsed();
    let file = std::fs::metadata(&path).context("the core")?;
    let who = match &writer {
        Writer::Kernel => "by the kernel: core_pattern is `core`, a file in the working directory".to_owned(),
        Writer::Gcore(why) => format!("by our own gcore at the moment of the signal ({why})"),
    };
    s.say(format!(
        "Process {} died of {}; **{}** left behind after {:.1} ms, written {who}.",
        knowledge.pid,
        o.crash.name(),
        words::size(file.len()),
        took.as_secs_f64() * 1e3
    ));
    let mut core = Core::open(&path)?;
    let memory = core.memory(&o.lookup());
    if o.any_view() {
        return show_views::views(s, o, &mut core, &memory);
    }
    let traces = walk(s, o, &mut core, &memory, &path)?;
    checks(s, o, &core, &memory, &knowledge, &traces);
    s.so(
        "a core is notes and memory; tables in the program turn it into a backtrace",
        "--crash stack-overflow, --bt, --core FILE",
    );
    drop(scratch.1);
    Ok(())
}

/// The same walk for a core of anybody's, or only the views that were asked for.
pub fn file(s: &mut Session, o: &Options, path: &Path) -> anyhow::Result<()> {
    let mut core = Core::open(path)?;
    let memory = core.memory(&o.lookup());
    if o.any_view() {
        show_views::views(s, o, &mut core, &memory)?;
    } else {
        walk(s, o, &mut core, &memory, path)?;
        match words::for_programs() {
            true => show_views::all(s, o, &core, &memory),
            false => show_views::maps(s, &core, &memory),
        }
    }
    s.so(
        "what is not in the core must come from the same build of the files",
        "--bt, --notes, --maps, --memory ADDR,LEN",
    );
    Ok(())
}

fn walk(
    s: &mut Session,
    o: &Options,
    core: &mut Core,
    memory: &Memory,
    path: &Path,
) -> anyhow::Result<Vec<Option<Backtrace>>> {
    header(s, core);
    segments(s, core, memory);
    notes(s, core, path)?;
    if !core.header.is_x86_64() {
        let what = format!(
            "registers, signals and stacks of {} ({} bit)",
            core.header.machine_name(),
            if core.header.is_64 { 64 } else { 32 }
        );
        s.missing(what, "only x86-64 is decoded; the common parts are shown", "gdb-multiarch");
        return Ok(Vec::new());
    }
    let started = Instant::now();
    let traces = backtraces(s, core, memory);
    let took = started.elapsed();
    let mut symbols = Symbols::new(memory, o.sysroot.clone(), true);
    why(s, core, memory, &traces, &mut symbols);
    threads(s, core, &traces, &mut symbols);
    trace(s, o, core, &traces, &mut symbols);
    s.measure("backtrace_ms", "ms", Summary::once(took.as_secs_f64() * 1e3));
    s.metric("frames", "frames", traces.iter().flatten().map(|t| t.frames.len()).sum::<usize>() as f64);
    Ok(traces)
}

/// Unwinds all threads, with a progress bar where that takes long.
pub fn backtraces(s: &Session, core: &Core, memory: &Memory) -> Vec<Option<Backtrace>> {
    let bar = s.progress(core.process.threads.len() as u64, "unwinding");
    let mut unwinder = Unwinder::new(memory);
    let unwind = |t: &s3_process::Thread| {
        bar.add(1);
        t.registers.as_ref().map(|r| unwinder.unwind(r))
    };
    core.process.threads.iter().map(unwind).collect()
}

fn header(s: &mut Session, core: &Core) {
    s.step_at("The first 64 bytes say what the file is", s1_header::HERE);
    let h = &core.header;
    let wide = [
        (0, 4, "magic: 7f 'E' 'L' 'F'".to_owned()),
        (4, 2, "64 bit, least significant byte first".into()),
        (16, 2, "e_type 4: a core".into()),
        (18, 2, format!("e_machine {}: {}", h.machine, h.machine_name())),
        (24, 8, "e_entry: nothing will be run".into()),
        (32, 8, format!("e_phoff: the segments' table is at {}", h.phoff)),
        (
            40,
            8,
            if h.shoff == 0 {
                "e_shoff 0: no sections".into()
            } else {
                format!("e_shoff {}: section 0 holds the count", h.shoff)
            },
        ),
        (
            56,
            2,
            format!(
                "e_phnum: {} segments{}",
                h.phnum,
                if h.extended { ", too many for 16 bits" } else { "" }
            ),
        ),
    ];
    let mut dump = Hexdump::new("", 0, &h.raw);
    if h.is_64 && !h.big_endian {
        dump.notes = wide.into_iter().map(|(from, len, text)| ByteNote { from, len, text }).collect();
    }
    s.hexdump(dump);
    s.say("A core is ELF like a program, but has only segments: **memory** and **notes**.");
    problems(s, core);
}

fn segments(s: &mut Session, core: &Core, memory: &Memory) {
    s.step_at("Most of the memory is not in it", s4_memory::HERE);
    let loads = memory.segments();
    let (all, saved): (u64, u64) =
        (loads.iter().map(|l| l.memsz).sum(), loads.iter().map(|l| l.filesz).sum());
    let (text, svg) = words::segments_drawing(loads);
    s.figure(format!("{} mappings by address, to scale", loads.len()), text, svg);
    let share = 100.0 * saved as f64 / all.max(1) as f64;
    s.say(format!(
        "**{}** of {} mapped are in the core ({share:.0} %).",
        words::size(saved),
        words::size(all)
    ));
    let found = memory.modules.iter().filter(|m| m.elf.is_ok()).count();
    s.say(format!(
        "The rest was never written to, or is in {} mapped files; {found} are here and the same build.",
        memory.modules.len()
    ));
    for m in memory.modules.iter().filter(|m| m.elf.is_err() && m.build_id.is_some()).take(5) {
        s.missing(
            m.path.display().to_string(),
            m.elf.as_ref().err().cloned().unwrap_or_default(),
            "--sysroot DIR or --exe FILE",
        );
    }
    s.metric("segments", "segments", core.segments.len() as f64);
}

fn notes(s: &mut Session, core: &Core, path: &Path) -> anyhow::Result<()> {
    s.step_at("The notes hold what was not in memory", s2_notes::HERE);
    let mut kinds: BTreeMap<(usize, &str, &str), (u64, u64)> = BTreeMap::new();
    let mut order = Vec::new();
    for note in &core.notes {
        let place = order.iter().position(|n| *n == note.name()).unwrap_or_else(|| {
            order.push(note.name());
            order.len() - 1
        });
        let entry = kinds.entry((place, note.owner.name(), note.name())).or_default();
        *entry = (entry.0 + 1, entry.1 + note.len);
    }
    let mut table = Table::new(["note", "owner", "count", "bytes", "holds"]).right([2, 3]);
    for ((_, owner, name), (count, bytes)) in kinds {
        table.push([
            name.to_owned(),
            owner.to_owned(),
            count.to_string(),
            bytes.to_string(),
            show_views::note_meaning(name).to_owned(),
        ]);
    }
    s.table(table);
    let threads = words::count(core.process.threads.len(), "thread");
    s.say(format!("**{}** tell about {threads}.", words::count(core.notes.len(), "note")));
    // The first three stages again, timed: reading threads, registers and mappings.
    let times: Vec<f64> = (0..if s.quick() { 3 } else { 15 })
        .map(|_| {
            let started = Instant::now();
            Core::open(path).map(|_| started.elapsed().as_secs_f64() * 1e3)
        })
        .collect::<Result<_, _>>()?;
    s.measure("list_ms", "ms", Summary::of(&times));
    s.metric("notes", "notes", core.notes.len() as f64);
    s.metric("threads", "threads", core.process.threads.len() as f64);
    Ok(())
}

/// The first place of a backtrace that is the program's own: where a person would look.
fn own_place(core: &Core, memory: &Memory, trace: &Backtrace, symbols: &mut Symbols<'_>) -> Option<String> {
    let exe = core.process.auxv(3).and_then(|a| memory.module(a)).map(|m| m.path.clone());
    let mine = |f: &s6_unwind::Frame| memory.module(f.lookup_pc()).map(|m| &m.path) == exe.as_ref();
    let own = trace.frames.iter().filter(|f| mine(f)).take(50).find_map(|f| {
        let places = symbols.frame(f);
        // Of inlined functions the outermost: it is the one that the program's author wrote.
        places.iter().rev().find(|p| !p.library).map(words::place)
    });
    own.or_else(|| trace.frames.first().map(|f| words::place(&symbols.frame(f)[0])))
}

fn why(
    s: &mut Session,
    core: &Core,
    memory: &Memory,
    traces: &[Option<Backtrace>],
    symbols: &mut Symbols<'_>,
) {
    let first = traces.first().and_then(Option::as_ref);
    let place = first.and_then(|t| own_place(core, memory, t, symbols));
    s.step_at("Why it died", cause::HERE);
    s.say(format!("**{}**", core.cause(memory, place)));
    let Some((registers, trace)) = core.dead_thread().and_then(|t| t.registers.as_ref()).zip(first) else {
        return;
    };
    // A signal frame in the backtrace: what was interrupted tells more than the handler does.
    if let Some(i) = trace.frames.iter().position(|f| f.trust == s6_unwind::Trust::Signal) {
        let places = symbols.frame(&trace.frames[i]);
        let interrupted = words::place(places.iter().find(|p| !p.library).unwrap_or(&places[0]));
        s.say(format!(
            "It was in a signal handler: the signal before that had interrupted **{interrupted}**."
        ));
    }
    let pc = registers.rip();
    let start = symbols.function_range(pc).map(|(start, _)| start);
    let lines = disasm::around(memory, pc, start, 3, 1);
    if lines.is_empty() {
        s.say(format!("There is no code at {pc:#x} to show."));
        return;
    }
    let mut listing = Listing::new("the instruction that it stood at");
    for i in &lines {
        let text = format!("{:x}  {:<20}  {}", i.address, words::cut(&i.bytes, 20), i.text);
        listing = listing.line(text, if i.here { "here" } else { "" });
    }
    s.listing(listing);
    let used = lines.iter().find(|i| i.here).map(|i| used_registers(&i.text, registers)).unwrap_or_default();
    if !used.is_empty() {
        s.say(format!("Then {used}."));
    }
}

/// The registers that an instruction's text names, with their values.
fn used_registers(text: &str, registers: &s3_process::Registers) -> String {
    let mut used: Vec<String> = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        // eax, ax and al are parts of rax.
        let full = match word.strip_prefix('e').filter(|w| w.len() == 2) {
            Some(rest) => format!("r{rest}"),
            None => word.to_owned(),
        };
        if let Some(value) = registers.by_name(&full) {
            let text = format!("{full} was {value:#x}");
            if !used.contains(&text) {
                used.push(text);
            }
        }
    }
    used.join(" and ")
}

fn threads(s: &mut Session, core: &Core, traces: &[Option<Backtrace>], symbols: &mut Symbols<'_>) {
    s.step_at("What the other threads were doing", s3_process::HERE);
    let mut groups: Vec<(String, Vec<i32>)> = Vec::new();
    for (thread, trace) in core.process.threads.iter().zip(traces) {
        let Some(trace) = trace else { continue };
        let mut names = Vec::new();
        for frame in trace.frames.iter().take(12) {
            names.extend(
                symbols.frame(frame).iter().filter(|p| !p.library).map(|p| words::brief(&p.function)),
            );
        }
        names.dedup();
        let text = names[..names.len().min(3)].join(" < ");
        match groups.iter_mut().find(|(t, _)| *t == text) {
            Some((_, tids)) => tids.push(thread.tid),
            None => groups.push((text, vec![thread.tid])),
        }
    }
    let mut table = Table::new(["threads", "first", "innermost functions"]).right([0, 1]);
    for (text, tids) in groups.iter().take(12) {
        table.push([tids.len().to_string(), tids[0].to_string(), words::cut(text, 56)]);
    }
    s.table(table);
    s.say(format!(
        "{} in {}{}.",
        words::count(core.process.threads.len(), "thread"),
        words::count(groups.len(), "place"),
        if core.died() { "; the first is the one that died" } else { "" }
    ));
}

fn trace(s: &mut Session, o: &Options, core: &Core, traces: &[Option<Backtrace>], symbols: &mut Symbols<'_>) {
    s.step_at("From registers to a backtrace", s6_unwind::HERE);
    s.predict(Predict::new(
        "Only rip and rsp are known of the innermost function. Where is its caller's rip?",
        ["in the notes", "on the stack, at a place that the frame pointer shows", "on the stack, at a place that a table in the program's file tells"],
        2,
        "Compilers leave the frame pointer out. .eh_frame says for each instruction how far up the return address is.",
    ));
    let Some(trace) = traces.first().and_then(Option::as_ref) else { return };
    show_views::backtrace(s, trace, symbols, 24);
    if o.core.is_some() {
        show_views::compressed(s, symbols);
    }
    let counts = |trust| traces.iter().flatten().flat_map(|t| &t.frames).filter(|f| f.trust == trust).count();
    let (cfi, guessed) = (
        counts(s6_unwind::Trust::Cfi),
        counts(s6_unwind::Trust::Scan) + counts(s6_unwind::Trust::FramePointer),
    );
    s.say(format!(
        "{} in all: **{cfi}** frames by CFI, {guessed} by frame pointer or scan.",
        words::count(core.process.threads.len(), "thread")
    ));
}

/// Compares what was read with what the victim knew about itself.
fn checks(
    s: &mut Session,
    o: &Options,
    core: &Core,
    memory: &Memory,
    knowledge: &Knowledge,
    traces: &[Option<Backtrace>],
) {
    let mut read: Vec<i32> = core.process.threads.iter().map(|t| t.tid).collect();
    let mut known = knowledge.tids.clone();
    read.sort_unstable();
    known.sort_unstable();
    s.check(
        "thread_ids",
        read == known,
        format!(
            "{} threads, the ids that the victim told{}",
            read.len(),
            if read == known { String::new() } else { format!(": {known:?}, not {read:?}") }
        ),
    );
    let signal = core.process.siginfo.map_or(0, |i| i.signal);
    s.check("signal", signal == knowledge.signal, cause::signal_name(signal));
    if let Some(fault) = knowledge.fault {
        let read = core.process.siginfo.and_then(|i| i.address);
        s.check("fault_address", read == Some(fault), format!("{fault:#x}"));
    }
    let found = memory.search(pattern().as_bytes(), 10);
    s.check(
        "pattern",
        found.contains(&knowledge.pattern_at),
        format!("found at {:#x}, as told", knowledge.pattern_at),
    );
    let mut symbols = Symbols::new(memory, None, true);
    let crasher = core.process.threads.iter().position(|t| t.tid == knowledge.crasher);
    let trace = crasher.and_then(|i| traces.get(i)?.clone()).unwrap_or_default();
    let mut wanted = knowledge.functions.iter();
    let mut next = wanted.next();
    for part in fold(&trace) {
        let frame = &trace.frames[part.start];
        for p in symbols.frame(frame).iter() {
            if next.is_some_and(|n| p.function.rsplit("::").next() == Some(n)) {
                next = wanted.next();
            }
        }
    }
    s.check("functions_in_order", next.is_none(), knowledge.functions.join(" < "));
    if o.crash == Crash::StackOverflow {
        s.check("deep_stack", trace.frames.len() > 100_000, format!("{} frames", trace.frames.len()));
    }
}
