//! `--inside`: a loaded program, from what was submitted to what the CPU runs.

use bpf_trace::inside::{HERE, Inside, Jit};
use bpf_trace::names;
use kit::stats::figure;
use kit::{Listing, Predict, Session, Table, Usage};

use crate::show::time;

/// Lines of a listing that are shown without -v.
const ROOM: usize = 40;

/// How often the counter is called by hand.
const RUNS: u32 = 1000;

pub fn show(s: &mut Session, name: &str) -> anyhow::Result<()> {
    s.step_at(format!("{}: as submitted, and what the verifier knew", title(name)), HERE);
    s.predict(Predict::new(
        "What does the kernel run when a BPF program is called?",
        ["the bytes that were loaded, in an interpreter", "machine code made of them when they were loaded"],
        1,
        "Once verified, each instruction becomes one or a few of the CPU's; there is nothing left to interpret.",
    ));
    let Some(inside) = Inside::open(name, s.verbose() > 0)? else {
        return Err(Usage(format!(
            "no program {name:?}: there are {}, and those of a view as VIEW/PROGRAM",
            Inside::names().join(", ")
        ))
        .into());
    };
    submitted(s, &inside);
    bytecode(s, &inside);
    machine(s, &inside);
    maps(s, &inside);
    if let Some(counted) = inside.run(RUNS)? {
        s.step("Call it by hand");
        s.say(format!("BPF_PROG_TEST_RUN, {RUNS} times, attached to nothing: it counted **{counted}**."));
        s.check("exact_count", counted == u64::from(RUNS), format!("{counted} of {RUNS} runs counted"));
    }
    s.so(
        "safety is paid once, when a program is loaded; what runs is plain machine code",
        "--inside syscalls, --verifier",
    );
    Ok(())
}

fn title(name: &str) -> &str {
    if name.is_empty() { "counter" } else { name }
}

fn submitted(s: &mut Session, inside: &Inside) {
    let mut lines = Vec::new();
    let mut source = None;
    for insn in &inside.submitted {
        if insn.source.is_some() && insn.source != source {
            source.clone_from(&insn.source);
            lines.extend(source.iter().map(|text| (format!("; {text}"), String::new())));
        }
        let note = match &insn.known {
            None if inside.words.is_none() => String::new(),
            None if inside.cut => "not in the log's first 16 MiB".into(),
            None => "never: no path leads here".into(),
            Some(known) => {
                let mut words = vec![brief(&known.after)];
                words.extend((known.visits > 1).then(|| format!("{} paths", known.visits)));
                words.retain(|w| !w.is_empty());
                words.join("; ")
            }
        };
        lines.push((format!("{:>4}  {}", insn.at, insn.text), note));
    }
    cut(s, "", lines);
    let log = &inside.log;
    let took = log.microseconds.map_or(String::new(), |us| format!(" in {}", time(us * 1000)));
    let stack = log.stack.map_or(String::new(), |bytes| format!(", {bytes} bytes of stack"));
    s.say(format!(
        "The verifier walked through **{} instructions**{took} (at most a million){stack}.",
        log.processed
    ));
    let never = inside.submitted.iter().filter(|i| i.known.is_none()).count();
    if never > 0 && !inside.cut {
        s.say(format!(
            "{never} of {} no path leads to: constants of the object rule them out, and they are taken away.",
            inside.submitted.len()
        ));
    }
    s.metric("verified_instructions", "1", f64::from(log.processed));
    if inside.verified > 0 {
        let detail = format!("the log and the program's own record: {} instructions", inside.verified);
        s.check("verified_agrees", inside.verified == log.processed, detail);
    }
    match &inside.words {
        None => s.say("What it knew at each instruction is a long log, and takes longer than this: -v."),
        Some(words) if s.verbose() > 0 => s.listing(Listing::text("The verifier's log:", words)),
        Some(_) => {}
    }
}

fn bytecode(s: &mut Session, inside: &Inside) {
    s.step("What the verifier made of it");
    if inside.bytecode.is_empty() {
        s.missing("the rewritten bytecode", "the kernel does not show it to this process", "run as root");
        return;
    }
    cut(
        s,
        "",
        inside.bytecode.iter().map(|(at, text)| (format!("{at:>4}  {text}"), String::new())).collect(),
    );
    let (before, after) = (inside.submitted.len(), inside.bytecode.len());
    let calls = inside.submitted.iter().filter(|i| i.text.starts_with("call ")).count();
    s.say(format!(
        "**{before} instructions have become {after}**; calls of helpers: {calls}, now {}.",
        inside.calls
    ));
    if calls > inside.calls {
        s.say("Where a call is gone, what it would have done stands in its place, or no path led to it.");
    }
}

fn machine(s: &mut Session, inside: &Inside) {
    s.step("What the CPU runs");
    s.metric("machine_bytes", "By", f64::from(inside.machine_len));
    match inside.jit {
        Jit::Off => s.missing(
            "machine code",
            "the kernel interprets: net.core.bpf_jit_enable is 0",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Jit::Hidden => s.missing(
            "machine code",
            format!("{} bytes are there, and hidden from this process", inside.machine_len),
            "sysctl kernel.kptr_restrict=1, as root",
        ),
        Jit::Shown => {
            let mut lines = Vec::new();
            let mut source = None;
            for insn in &inside.machine {
                if insn.source.is_some() && insn.source != source {
                    source.clone_from(&insn.source);
                    lines.extend(source.iter().map(|text| (text.clone(), String::new())));
                }
                lines.push((format!("    {:>4}  {}", insn.at, insn.text), String::new()));
            }
            cut(s, "", lines);
            s.say(format!(
                "The JIT is on: **{} bytes** of x86-64 in {} instructions, entered by a plain call.",
                inside.machine_len,
                inside.machine.len()
            ));
        }
    }
}

fn maps(s: &mut Session, inside: &Inside) {
    s.step("Its maps");
    let mut table = Table::new(["map", "kind", "key", "value", "entries", "memory"]).right(2..6);
    for map in &inside.maps {
        let memory = map.memory.map_or("?".into(), |bytes| format!("{} B", figure(bytes as f64)));
        let kind = names::map_kind(map.kind);
        table.push([
            &map.name,
            &kind,
            &map.key.to_string(),
            &map.value.to_string(),
            &map.entries.to_string(),
            &memory,
        ]);
    }
    s.table(table);
    let memory: u64 = inside.maps.iter().filter_map(|m| m.memory).sum();
    s.metric("map_bytes", "By", memory as f64);
    s.say("All of it goes when the last descriptor is closed: by exit, Ctrl-C or SIGKILL alike.");
}

/// A state without what its bounds say already: which bits may be set, and which other register holds the same.
fn brief(state: &str) -> String {
    let mut state = state.to_owned();
    for (from, to) in [(",var_off=(", ")"), ("id=", ",")] {
        while let Some(at) = state.find(from)
            && let Some(len) = state[at..].find(to)
        {
            state.replace_range(at..at + len + to.len(), "");
        }
    }
    state
}

/// Shows as much of a listing as there is room for; all of it with -v.
fn cut(s: &mut Session, title: &str, lines: Vec<(String, String)>) {
    let (all, verbose) = (lines.len(), s.verbose() > 0);
    let room = if verbose { all } else { ROOM };
    let listing =
        lines.into_iter().take(room).fold(Listing::new(title), |l, (text, note)| l.line(text, note));
    s.listing(listing);
    if all > room {
        s.say(format!("{} lines more: -v.", all - room));
    }
}

#[cfg(test)]
mod tests {
    use super::brief;

    #[test]
    fn states_are_read_aloud_without_their_bits() {
        assert_eq!(
            brief(
                "R1=scalar(id=1,smin=0,umax=0xff,var_off=(0x0; 0xff)) R2=scalar(var_off=(0x0; 0x1)) R3=fp-4"
            ),
            "R1=scalar(smin=0,umax=0xff) R2=scalar(var_off=(0x0; 0x1)) R3=fp-4"
        );
        assert_eq!(brief(""), "");
    }
}
