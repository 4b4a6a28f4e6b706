//! The views of one core: threads, notes, mappings, memory, search, backtraces.

use elf_core::s4_memory::{Backing, Memory};
use elf_core::s5_module::hex;
use elf_core::s6_unwind::Backtrace;
use elf_core::s7_symbols::Symbols;
use elf_core::xstate::Xstate;
use elf_core::{Core, cause, s2_notes, s3_process, s4_memory, s6_unwind, s7_symbols};
use kit::Session;
use kit::event::{Hexdump, Listing, Table};

use crate::{Options, problems, show_walk, words};

/// The views that were asked for, in a fixed order.
pub fn views(s: &mut Session, o: &Options, core: &mut Core, memory: &Memory) -> anyhow::Result<()> {
    if o.all || o.threads {
        threads(s, core);
    }
    if o.all || o.notes {
        notes(s, core, memory);
    }
    if o.all || o.maps {
        maps(s, core, memory);
    }
    if let Some((address, len)) = o.memory {
        bytes(s, memory, address, len);
    }
    if let Some(text) = &o.search {
        let needle = words::needle(text).map_err(kit::entry::Usage)?;
        search(s, memory, &needle);
    }
    if o.all || o.bt {
        backtraces(s, o, core, memory);
    }
    for (name, n) in [
        ("threads", core.process.threads.len()),
        ("notes", core.notes.len()),
        ("segments", core.segments.len()),
    ] {
        s.metric(name, name, n as f64);
    }
    problems(s, core);
    Ok(())
}

/// The views that need no argument.
pub fn all(s: &mut Session, o: &Options, core: &Core, memory: &Memory) {
    threads(s, core);
    notes(s, core, memory);
    maps(s, core, memory);
    backtraces(s, o, core, memory);
}

fn threads(s: &mut Session, core: &Core) {
    s.step_at("Threads and their registers", s3_process::HERE);
    for (i, thread) in core.process.threads.iter().enumerate() {
        let Some(registers) = &thread.registers else {
            s.say(format!("Thread {}: signal {}, registers not decoded.", thread.tid, thread.signal));
            continue;
        };
        let mut listing = Listing::new(&format!(
            "thread {}, signal {}{}",
            thread.tid,
            thread.signal,
            if i == 0 && core.died() { ": the one that died" } else { "" }
        ));
        for row in s3_process::REGISTER_NAMES.iter().zip(registers.0).collect::<Vec<_>>().chunks(3) {
            let text: Vec<String> =
                row.iter().map(|(name, value)| format!("{name:>8} {value:016x}")).collect();
            listing = listing.line(text.join(""), "");
        }
        if let Some(x) = thread.vectors(&core.source) {
            listing = listing.line(format!("in use   {}", Xstate::names(x.in_use).join(", ")), "");
            let set =
                x.ymm.iter().enumerate().filter(|(_, v)| v[0] != 0 || v[1] != 0).take(words::most(s, 2));
            for (i, [low, high]) in set {
                let text = if *high == 0 {
                    format!("   xmm{i:<3} {low:032x}")
                } else {
                    format!("   ymm{i:<3} {high:032x}{low:032x}")
                };
                listing = listing.line(text, "");
            }
        }
        s.listing(listing);
    }
    s.say(format!("**{}**.", words::count(core.process.threads.len(), "thread")));
}

/// What a note of that name holds.
pub fn note_meaning(name: &str) -> &'static str {
    match name {
        "NT_PRSTATUS" => "registers of a thread",
        "NT_PRPSINFO" => "name and arguments",
        "NT_SIGINFO" => "the signal: why",
        "NT_AUXV" => "what exec told the program",
        "NT_FILE" => "which files were mapped",
        "NT_FPREGSET" => "x87 and SSE registers",
        "NT_X86_XSTATE" => "all vector registers",
        "NT_X86_XSAVE_LAYOUT" => "where in them is what",
        "NT_GNU_BUILD_ID" => "which build",
        _ => "",
    }
}

fn notes(s: &mut Session, core: &Core, memory: &Memory) {
    s.step_at("All notes", s2_notes::HERE);
    let mut table = Table::new(["offset", "owner", "type", "bytes", "note"]).right([0, 3]);
    let most = words::most(s, 40);
    for note in core.notes.iter().take(most) {
        let cut = if note.len < u64::from(note.said) {
            format!("truncated: {} of {}", note.len, note.said)
        } else {
            String::new()
        };
        let name =
            if note.name() == "unknown" { format!("{:#x}", note.kind) } else { note.name().to_owned() };
        let text = if cut.is_empty() { note_meaning(note.name()).to_owned() } else { cut };
        table.push([
            note.offset.to_string(),
            words::cell(note.owner.name(), 12),
            name,
            note.len.to_string(),
            text,
        ]);
    }
    s.table(table);
    if core.notes.len() > most {
        s.say(format!("… and {} more (-v shows all).", core.notes.len() - most));
    }
    if let Some(p) = &core.process.program {
        s.say(format!(
            "NT_PRPSINFO: {} ({}), pid {}, parent {}, user {}.",
            p.name, p.args, p.ids[0], p.ids[1], p.uid_gid[0]
        ));
    }
    if let Some(i) = core.process.siginfo.as_ref().filter(|i| i.signal != 0) {
        let (code, meaning) = i.code_name();
        let address = i.address.map(|a| format!(", address {a:#x}")).unwrap_or_default();
        let sender = i.sender.map(|(p, u)| format!(", from process {p} of user {u}")).unwrap_or_default();
        s.say(format!("NT_SIGINFO: {}, {code} ({meaning}){address}{sender}.", cause::signal_name(i.signal)));
    }
    let mut table = Table::new(["type", "value", "means"]).right([1]);
    for (kind, value) in &core.process.auxv {
        let (name, meaning) = s3_process::auxv_name(*kind);
        let name = if name == "AT_?" { kind.to_string() } else { name.to_owned() };
        table.push([name, format!("{value:#x}"), meaning.to_owned()]);
    }
    s.table(table);
    let (args, env) = core.arguments(memory);
    if !args.is_empty() {
        s.say(format!("From the stack: arguments {args:?}, and {} environment variables.", env.len()));
        if words::most(s, 0) > 0 {
            s.listing(Listing::text("environment", &env.join("\n")));
        }
    }
    let unit = match core.process.file_unit {
        1 => "bytes (as gdb's gcore writes them)",
        4096 => "pages (as the kernel writes them)",
        _ => "units of its own",
    };
    s.say(format!("NT_FILE: {} mappings, offsets in {unit}; --maps shows them.", core.process.files.len()));
}

/// Mappings with their permissions, and what backs them.
pub fn maps(s: &mut Session, core: &Core, memory: &Memory) {
    s.step_at("Mappings, and who has their bytes", s4_memory::HERE);
    let mut table = Table::new(["start", "bytes", "perm", "in core", "file"]).right([0, 1, 3]);
    let most = words::most(s, 60);
    let exact = words::for_programs();
    let size = |n: u64| if exact { n.to_string() } else { words::size(n) };
    for m in memory.segments().iter().take(most) {
        let file = core.process.file_at(m.vaddr).map(|f| {
            let name = f.path.file_name().filter(|_| !exact).unwrap_or(f.path.as_os_str());
            format!("{}+{:#x}", name.display(), f.offset)
        });
        let file =
            file.or_else(|| memory.module(m.vaddr).map(|m| m.path.display().to_string())).unwrap_or_default();
        let row = [
            format!("{:x}", m.vaddr),
            size(m.memsz),
            m.permissions(),
            size(m.filesz),
            words::cell(&elf_core::source::printable(&file), 30),
        ];
        table.push(row);
    }
    s.table(table);
    if memory.segments().len() > most {
        s.say(format!("… and {} more (-v shows all).", memory.segments().len() - most));
    }
    let mut table = Table::new(["file", "build-id in the core", "found"]);
    for m in memory.modules.iter().filter(|m| m.build_id.is_some() || m.elf.is_ok()) {
        let id = m.build_id.as_deref().map_or("-".into(), |id| words::cell(&hex(id), 17));
        let found = match &m.elf {
            Ok(_) if m.build_id.is_some() => "yes, the same build".to_owned(),
            Ok(_) => "yes, without a build-id to compare".to_owned(),
            Err(why) => words::cell(why, 40),
        };
        let name = m.path.file_name().unwrap_or(m.path.as_os_str()).to_string_lossy();
        table.push([words::cell(&elf_core::source::printable(&name), 24), id, found]);
    }
    s.table(table);
}

fn bytes(s: &mut Session, memory: &Memory, address: u64, len: u64) {
    s.step_at(format!("{len} bytes at {address:#x}"), s4_memory::HERE);
    let mut buffer = vec![0; len as usize];
    let n = memory.read(address, &mut buffer);
    buffer.truncate(n);
    let from = match memory.backing(address) {
        Backing::Core(offset) => format!("from the core, file offset {offset:#x}"),
        Backing::File(path, offset) => {
            format!("from {}, offset {offset:#x}: the core has only the mapping", path.display())
        }
        Backing::Missing(why) => format!("mapped, but its bytes are nowhere: {why}"),
        Backing::Unmapped => "not mapped".into(),
    };
    if n > 0 {
        s.hexdump(Hexdump::new("", address, &buffer));
    }
    s.say(format!("**{n}** of {len} bytes, {from}."));
}

fn search(s: &mut Session, memory: &Memory, needle: &[u8]) {
    const MOST: usize = 20;
    s.step_at(format!("Search for {} bytes", needle.len()), s4_memory::HERE);
    let found = memory.search(needle, MOST);
    for address in &found {
        let mut around = vec![0; 48];
        let start = address & !15;
        let n = memory.read(start, &mut around);
        s.hexdump(Hexdump::new(&format!("at {address:#x}"), start, &around[..n]));
    }
    let more = if found.len() == MOST { " or more" } else { "" };
    s.say(format!("**{}**{more} places in the memory that the core holds.", found.len()));
    s.metric("found", "places", found.len() as f64);
}

fn backtraces(s: &mut Session, o: &Options, core: &Core, memory: &Memory) {
    s.step_at("Backtraces of all threads", s7_symbols::HERE);
    let started = std::time::Instant::now();
    let traces = show_walk::backtraces(s, core, memory);
    s.metric("backtrace_ms", "ms", started.elapsed().as_secs_f64() * 1e3);
    s.metric("frames", "frames", traces.iter().flatten().map(|t| t.frames.len()).sum::<usize>() as f64);
    let mut symbols = Symbols::new(memory, o.sysroot.clone(), true);
    for (thread, trace) in core.process.threads.iter().zip(&traces) {
        match trace {
            Some(trace) => {
                let frames = words::count(trace.frames.len(), "frame");
                s.say(format!("Thread **{}**: {frames}; {}.", thread.tid, trace.end));
                backtrace(s, trace, &mut symbols, if words::for_programs() { 100_000 } else { 200 });
            }
            None => s.say(format!("Thread {}: registers not decoded.", thread.tid)),
        }
    }
    compressed(s, &symbols);
}

/// Says whose line tables were not read.
pub fn compressed(s: &mut Session, symbols: &Symbols<'_>) {
    for file in symbols.compressed().iter().take(3) {
        s.missing(
            format!(
                "lines and inlined functions of {}",
                elf_core::source::printable(&file.to_string_lossy())
            ),
            "its debug sections are compressed, which is not read here",
            "a copy by objcopy --decompress-debug-sections; --exe or --sysroot names it",
        );
    }
}

/// One backtrace as a table.
pub fn backtrace(s: &mut Session, trace: &Backtrace, symbols: &mut Symbols<'_>, limit: usize) {
    let mut table = Table::new(["frame", "found by", "function", "where"]);
    let (rows, hidden) = words::rows(trace, symbols, words::most(s, 0) > 0, limit);
    for row in rows {
        let cells =
            [row.number, row.trust.to_owned(), words::cell(&row.function, 30), words::cell(&row.line, 20)];
        if row.trust == s6_unwind::Trust::Registers.name() {
            table = table.mark(cells)
        } else {
            table.push(cells)
        }
    }
    s.table(table);
    if hidden > 0 {
        s.say(format!("… and {hidden} more, mostly of Rust's library (-v shows them)."));
    }
}
