//! A loaded program from inside: its bytecode with what the verifier knew, what the kernel made of it, its maps.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use iced_x86::{Code, Decoder, DecoderOptions, Formatter as _, NasmFormatter, OpKind};

use crate::disasm::{self, CALL, Insn, LOAD_64};
use crate::error::TraceError;
use crate::filter::Filter;
use crate::kallsyms::Kallsyms;
use crate::s1_by_hand;
use crate::sys::{bpf, inspect};
use crate::tracer::Plan;
use crate::verifier_log::{Known, Log};
use crate::verify::{Source, Strings, Submission};
use crate::{exec, gallery, offcpu, open, profile, runq, softirq, syscalls, tasks, uprobe};

/// Objects to look into: name, bytes, the program that is shown if none is named.
const OBJECTS: [(&str, &[u8], &str); 10] = [
    ("syscalls", syscalls::OBJECT, "sys_exit"),
    ("exec", exec::OBJECT, "sched_process_exec"),
    ("open", open::OBJECT, "sys_exit"),
    ("offcpu", offcpu::OBJECT, "sched_switch"),
    ("runq", runq::OBJECT, "sched_switch"),
    ("softirq", softirq::OBJECT, "softirq_exit"),
    ("profile", profile::OBJECT, "cpu_clock"),
    ("uprobe", uprobe::OBJECT, "enter"),
    ("tasks", tasks::OBJECT, "task"),
    ("gallery", gallery::OBJECT, "bounds_mended"),
];

/// Instructions walked through up to which the log of all states is no long wait.
const SHORT: u32 = 20_000;

/// Where programs are looked into.
pub const HERE: kit::Place = kit::here!();

/// An instruction as it was submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Submitted {
    /// Its number.
    pub at: usize,
    /// The instruction, helpers and maps by name.
    pub text: String,
    /// The source line that begins here.
    pub source: Option<String>,
    /// What the verifier knew; `None`: no path leads here.
    pub known: Option<Known>,
}

/// An instruction of the CPU's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its offset from the program's begin.
    pub at: u64,
    /// The instruction, called functions by name.
    pub text: String,
    /// The source line that begins here; of a program without source, the instruction of the bytecode.
    pub source: Option<String>,
}

/// Whether the kernel makes machine code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jit {
    /// It does, and shows it.
    Shown,
    /// It does, and hides it from this process.
    Hidden,
    /// It interprets.
    Off,
}

/// A program, loaded and attached to nothing.
#[derive(Debug)]
pub struct Inside {
    /// The program's name.
    pub name: String,
    /// What was submitted.
    pub submitted: Vec<Submitted>,
    /// What the verifier said.
    pub log: Log,
    /// The same in its own words; `None`: not asked for, since it would be long.
    pub words: Option<String>,
    /// Whether the log is longer than what is kept of it: then not all instructions are in it that are on a path.
    pub cut: bool,
    /// The bytecode after verification: number and text.
    pub bytecode: Vec<(usize, String)>,
    /// Calls of helpers in it.
    pub calls: usize,
    /// Whether there is machine code.
    pub jit: Jit,
    /// The machine code.
    pub machine: Vec<Machine>,
    /// Bytes of machine code.
    pub machine_len: u32,
    /// Instructions that the verifier walked through, as the kernel keeps it with the program; before Linux 5.16 it
    /// does not.
    pub verified: u32,
    /// Its maps.
    pub maps: Vec<inspect::Map>,
    program: OwnedFd,
    map: Option<OwnedFd>,
}

impl Inside {
    /// The programs that can be looked into.
    pub fn names() -> Vec<String> {
        let mut names = vec!["counter".to_owned()];
        names.extend(OBJECTS.iter().map(|(name, ..)| (*name).to_owned()));
        names
    }

    /// Loads `counter` (also: no name), `VIEW` or `VIEW/PROGRAM`; `None`: there is no such. With `patient`, the log is
    /// asked for however long it is: that can take many times as long as verification.
    pub fn open(name: &str, patient: bool) -> Result<Option<Self>, TraceError> {
        if name.is_empty() || name == "counter" {
            return Self::counter().map(Some);
        }
        let (view, program) = name.split_once('/').unwrap_or((name, ""));
        match OBJECTS.iter().find(|(n, ..)| *n == view) {
            Some((_, object, first)) => {
                Self::of(object, if program.is_empty() { first } else { program }, patient)
            }
            None => Ok(None),
        }
    }

    /// Stage 1's program. It has no source, so each instruction is given out to be a line of its own: the kernel then
    /// tells which machine code came of which.
    fn counter() -> Result<Self, TraceError> {
        let map = bpf::map_create(2, 4, 8, 1)?;
        let code = s1_by_hand::program(map.as_fd());
        let mut lines = disasm::listing(&code);
        let names = [(map.as_fd(), "counts".to_owned())];
        lines.iter_mut().for_each(|(_, insn, text)| *text = with_maps(*insn, text, &numbered(&names)));
        let (btf, infos) =
            line_infos(&lines.iter().map(|(at, _, text)| (*at, text.as_str())).collect::<Vec<_>>());
        let strings = Strings::of(&btf);
        let btf = bpf::btf_load(&btf)?;
        let lines = bpf::Lines { btf: btf.as_fd(), functions: &[], lines: &infos };
        let whole =
            bpf::Code { kind: bpf::RAW_TRACEPOINT, instructions: &code, attach: (0, 0), lines: Some(lines) };
        let load = |level| Ok(bpf::prog_load(whole, level));
        let source = Source { code: code.to_vec(), lines: Vec::new() };
        let mut this = Self::look("counter", &source, &names, &strings, load, true)?;
        // The lines were made before the log named the helper.
        for machine in &mut this.machine {
            let helper = machine.source.as_ref().is_some_and(|text| text.starts_with("call "));
            if let Some(call) = this.submitted.iter().find(|s| helper && s.text.starts_with("call ")) {
                machine.source = Some(call.text.clone());
            }
        }
        this.map = Some(map);
        Ok(this)
    }

    fn of(object: &[u8], name: &str, patient: bool) -> Result<Option<Self>, TraceError> {
        let submission = Submission::new(&Plan { object, filter: Filter::default(), ..Plan::default() })?;
        if !submission.programs().contains(&name) {
            return Ok(None);
        }
        let source = submission.source(name)?;
        let load = |level| submission.submit(name, level);
        Self::look(name, &source, &submission.maps(), submission.strings(), load, patient).map(Some)
    }

    fn look(
        name: &str,
        source: &Source,
        own: &[(BorrowedFd<'_>, String)],
        strings: &Strings,
        load: impl Fn(u32) -> Result<bpf::Loaded, TraceError>,
        patient: bool,
    ) -> Result<Self, TraceError> {
        // enum bpf_log_level: every state; statistics.
        const STATES: u32 = 2;
        const STATISTICS: u32 = 4;
        // Once for the program. A second time for the log: where that is too long, its begin must do, and without an
        // end it is an error.
        let loaded = load(STATISTICS)?;
        let Ok(program) = loaded.program else {
            load(1)?.program?;
            return Err(TraceError::Object(format!("{name} is refused, and then not")));
        };
        let statistics = Log::parse(&loaded.log);
        let mut words = None;
        let mut cut = true;
        if patient || statistics.processed <= SHORT {
            let mut states = load(STATES | bpf::FIXED)?;
            if states.program.as_ref().is_err_and(|e| e.errno == libc::EINVAL && states.log.is_empty()) {
                states = load(STATES)?; // before Linux 6.4
            }
            cut = states.program.is_err();
            words = Some(states.log);
        }
        let known = Log::parse(words.as_deref().unwrap_or_default()).known;
        let mut log = Log { known, ..statistics };
        let fds = numbered(own);
        let submitted = disasm::listing(&source.code)
            .into_iter()
            .map(|(at, insn, text)| {
                let known = log.known.remove(&at);
                let text = match &known {
                    Some(k) if !k.helper.is_empty() => format!("call {}", k.helper),
                    _ => with_maps(insn, &text, &fds),
                };
                let source = source.lines.iter().rfind(|(line, text)| *line == at && !text.is_empty());
                Submitted { at, text, source: source.map(|(_, text)| text.clone()), known }
            })
            .collect();
        let (info, running) = (bpf::prog_info(program.as_fd())?, inspect::running(program.as_fd())?);
        // Of the object's maps, those that this program uses. One may have been made without a name.
        let mut maps = BTreeMap::new();
        for (fd, name) in own {
            let (id, mut map) = inspect::map(*fd)?;
            if map.name.is_empty() {
                map.name.clone_from(name);
            }
            maps.insert(id, map);
        }
        let maps: Vec<(u32, inspect::Map)> =
            running.map_ids.iter().filter_map(|id| Some((*id, maps.remove(id)?))).collect();
        let symbols = Symbols::read();
        let ids: Vec<(i32, String)> = maps.iter().map(|(id, map)| (*id as i32, map.name.clone())).collect();
        let bytecode = disasm::listing(&running.bytecode);
        let calls = bytecode.iter().filter(|(_, insn, _)| insn.op == CALL && insn.src == 0).count();
        let bytecode =
            bytecode.into_iter().map(|(at, i, text)| (at, symbols.named(i, with_maps(i, &text, &ids))));
        Ok(Self {
            name: name.into(),
            submitted,
            log,
            cut,
            words,
            bytecode: bytecode.collect(),
            calls,
            jit: match (info.jited_len, running.machine.is_empty()) {
                (0, _) => Jit::Off,
                (_, true) => Jit::Hidden,
                _ => Jit::Shown,
            },
            machine: machine(&running, strings, &symbols),
            machine_len: info.jited_len,
            verified: info.verified,
            maps: maps.into_iter().map(|(_, map)| map).collect(),
            program,
            map: None,
        })
    }

    /// Calls the counter `n` times by BPF_PROG_TEST_RUN, attached to nothing; how many it has counted. `None`: another
    /// program.
    pub fn run(&self, n: u32) -> Result<Option<u64>, TraceError> {
        let Some(map) = &self.map else { return Ok(None) };
        for _ in 0..n {
            bpf::test_run(self.program.as_fd(), &[])?;
        }
        let mut value = [0; 8];
        bpf::map_lookup(map.as_fd(), 0, &mut value)?;
        Ok(Some(u64::from_ne_bytes(value)))
    }

    /// The program, to ask the kernel more.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

/// Maps by the numbers of their descriptors.
fn numbered(maps: &[(BorrowedFd<'_>, String)]) -> Vec<(i32, String)> {
    maps.iter().map(|(fd, name)| (fd.as_raw_fd(), name.clone())).collect()
}

/// Puts a map's name in the place of the descriptor or id that an instruction has for it.
fn with_maps(insn: Insn, text: &str, names: &[(i32, String)]) -> String {
    match names.iter().find(|(number, _)| insn.op == LOAD_64 && *number == insn.imm) {
        Some((number, name)) if insn.src == 1 || insn.src == 2 => {
            text.replace(&format!("map {number}"), &format!("map {name}"))
        }
        _ => text.to_owned(),
    }
}

/// A BTF that has nothing but strings and the one type that it must have, and a `struct bpf_line_info` for each text.
fn line_infos(lines: &[(usize, &str)]) -> (Vec<u8>, Vec<u8>) {
    let mut strings = b"\0int\0".to_vec();
    let mut infos = Vec::new();
    for (i, (at, text)) in lines.iter().enumerate() {
        let column_1_of_line = (i as u32 + 1) << 10 | 1;
        infos.extend([*at as u32, 0, strings.len() as u32, column_1_of_line]);
        strings.extend(text.bytes().chain([0]));
    }
    // struct btf_header: magic, version and flags; its length; where types are and how long; the same of strings.
    // struct btf_type: name, kind (1: an integer), size; an integer's encoding and bits.
    let words = [0x0001_eb9f, 24, 0, 16, 16, strings.len() as u32, 1, 1 << 24, 4, 32];
    let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<u8>>();
    ([bytes(&words), strings].concat(), bytes(&infos))
}

fn machine(running: &inspect::Running, strings: &Strings, symbols: &Symbols) -> Vec<Machine> {
    let mut decoder = Decoder::with_ip(64, &running.machine, running.address, DecoderOptions::NONE);
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_space_after_operand_separator(true);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    let mut lines = running.lines.iter().peekable();
    let mut machine = Vec::new();
    while decoder.can_decode() {
        let insn = decoder.decode();
        let mut source = None;
        while let Some((_, offset)) = lines.next_if(|(address, _)| *address <= insn.ip()) {
            source = Some(strings.at(*offset)).filter(|text| !text.is_empty());
        }
        let mut text = String::new();
        // A constant of 64 bits is an address.
        formatter.options_mut().set_signed_immediate_operands(insn.code() != Code::Mov_r64_imm64);
        formatter.format(&insn, &mut text);
        if insn.op0_kind() == OpKind::NearBranch64 {
            // A function of the kernel's by its name, a place in the program by its offset.
            let target = insn.near_branch_target();
            let offset = target.wrapping_sub(running.address);
            let within = offset < running.machine.len() as u64;
            let name = if within { Some(format!("+{offset}")) } else { symbols.at(target) };
            let mnemonic = text.split(' ').next().unwrap_or_default();
            text = name.map_or_else(|| text.clone(), |name| format!("{mnemonic} {name}"));
        }
        machine.push(Machine { at: insn.ip().wrapping_sub(running.address), text, source });
    }
    machine
}

/// The kernel's functions, to name what is called.
struct Symbols {
    functions: Kallsyms,
    /// `__bpf_call_base`: calls in verified bytecode count from here.
    base: Option<u64>,
}

impl Symbols {
    fn read() -> Self {
        let functions = Kallsyms::read();
        let base = match &functions {
            Kallsyms::Known(all) => {
                all.iter().find(|(_, name)| name == "__bpf_call_base").map(|(address, _)| *address)
            }
            _ => None,
        };
        Self { functions, base }
    }

    /// The function at an address; `None`: the kernel does not tell.
    fn at(&self, address: u64) -> Option<String> {
        matches!(self.functions, Kallsyms::Known(_)).then(|| self.functions.name(address))
    }

    /// A call by the name of what it calls.
    fn named(&self, insn: Insn, text: String) -> String {
        let base = self.base.filter(|_| insn.op == CALL && insn.src == 0);
        let name = base.and_then(|base| self.at(base.wrapping_add_signed(insn.imm.into())));
        name.map_or(text, |name| format!("call {name}"))
    }
}
