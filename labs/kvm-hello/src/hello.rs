//! The experiment of the default run: a guest says hello, computes, halts; and every exit is noted.

use std::time::{Duration, Instant};

use kvm_bindings::{kvm_regs, kvm_sregs};

use crate::error::Error;
use crate::exits::{Bus, Exit, Why};
use crate::layout;
use crate::listing::{self, Line, disassemble};
use crate::machine::{Call, Machine};
use crate::mode::Mode;
use crate::paging::{Tables, Walk};
use crate::s5_user;

/// The data port of the first serial port.
pub const COM1: u16 = 0x3f8;

/// How closely to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Only what must be answered: as fast as it goes.
    Nothing,
    /// Registers and instruction at every exit.
    Exits,
    /// The same after every instruction.
    Steps,
}

/// One exit, with what led to it.
#[derive(Debug, Clone)]
pub struct Traced {
    /// Why, and how long the guest was away.
    pub exit: Exit,
    /// RIP when the guest came back.
    pub rip: u64,
    /// The instruction that the exit is about, where there is one.
    pub line: Option<Line>,
    /// Registers that changed since the exit before.
    pub changed: Vec<Change>,
}

/// A register's new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `rax`, `rsi`, …
    pub name: &'static str,
    /// What it was at the exit before.
    pub before: u64,
    /// What it is now.
    pub after: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Hello {
    /// The processor's mode.
    pub mode: Mode,
    /// What building and setting up the machine took.
    pub calls: Vec<Call>,
    /// Every exit; with [`Watch::Nothing`], empty.
    pub exits: Vec<Traced>,
    /// How often the guest came back.
    pub exit_count: u64,
    /// What it wrote to the serial port.
    pub said: Vec<u8>,
    /// From `KVM_CREATE_VM` to the return of the first `KVM_RUN`.
    pub first_exit: Duration,
    /// Time spent in `KVM_RUN`.
    pub in_guest: Duration,
    /// From opening /dev/kvm to the last exit.
    pub whole: Duration,
    /// The last exit: a halt, if all went well.
    pub last: Exit,
    /// The registers then.
    pub regs: kvm_regs,
    /// The system registers before the first instruction, as KVM reads them back; with
    /// [`Watch::Nothing`], empty.
    pub sregs: kvm_sregs,
    /// The word where the result should be.
    pub in_memory: u64,
    /// How the address of the result is translated, where the mode has page tables.
    pub walk: Option<Walk>,
    /// The physical address of the instruction that was next at the end, by the page tables.
    pub next_instruction: Option<u64>,
    /// Where the guest's memory is in this process.
    pub host_address: u64,
    /// What ring 0 of [`Mode::User`] noted of its page fault: the address and the error code.
    pub page_fault: (u64, u64),
}

impl Hello {
    /// The greeting came through the port, and then a halt.
    pub fn said_hello(&self) -> bool {
        self.said == self.mode.hello().as_bytes() && self.last.why == Why::Halt
    }

    /// It said what it should, and its result is where it should be.
    pub fn well(&self) -> bool {
        self.said_hello() && self.in_memory() && self.in_register()
    }

    /// The result is in the guest's memory.
    pub fn in_memory(&self) -> bool {
        self.in_memory == layout::ANSWER
    }

    /// The result is in RAX.
    pub fn in_register(&self) -> bool {
        self.regs.rax == layout::ANSWER
    }

    /// KVM gave up before the first instruction of 32-bit paging, although the page tables, walked by hand, map it.
    ///
    /// A KVM that emulates ring 0 may not know this mode, and no other is excused. A wrong program can look
    /// like this too; the last piece of evidence is that the same bytes run in [`Mode::Protected`].
    pub fn kvm_cannot(&self) -> bool {
        self.mode == Mode::Paging32
            && self.said.is_empty()
            && self.next_instruction.is_some()
            && matches!(self.last.why, Why::Shutdown | Why::InternalError { .. } | Why::FailEntry { .. })
    }
}

/// A terminal at the end of the serial line.
#[derive(Debug, Default)]
struct Console {
    said: Vec<u8>,
}

impl Bus for Console {
    fn port_out(&mut self, port: u16, data: &[u8]) {
        if port == COM1 {
            self.said.extend_from_slice(data);
        }
    }
}

/// Where a guest runs until it halts.
pub const HERE: kit::Place = kit::here!();

/// Boots a machine into a mode, and lets the guest say hello, for `timeout` at most (zero: no limit).
///
/// # Errors
/// A call that failed. A guest that went astray is not an error: see [`Hello::last`].
pub fn run(mode: Mode, watch: Watch, timeout: Duration) -> Result<Hello, Error> {
    run_and_keep(mode, watch, timeout).map(|(hello, _)| hello)
}

/// The same, and the machine stays.
///
/// # Errors
/// As [`run`].
pub fn run_and_keep(mode: Mode, watch: Watch, timeout: Duration) -> Result<(Hello, Machine), Error> {
    let start = Instant::now();
    let mut machine = mode.machine()?;
    let mut console = Console::default();
    let (mut trace, mut sregs) = (None, kvm_sregs::default());
    let calls = std::mem::take(&mut machine.calls);
    if !timeout.is_zero() {
        machine.vcpu.set_deadline(Some(timeout))?;
    }
    if watch != Watch::Nothing {
        machine.vcpu.single_step(watch == Watch::Steps)?;
        trace = Some(Trace::start(mode, &machine)?);
        sregs = machine.sregs()?;
    }

    let (mut first_exit, mut in_guest, mut exit_count) = (None, Duration::ZERO, 0);
    let last = loop {
        let mut exit = machine.run(&mut console)?;
        first_exit.get_or_insert_with(|| machine.created.elapsed());
        in_guest += exit.took;
        exit_count += 1;
        if let Some(trace) = &mut trace {
            trace.note(&machine, &mut exit)?;
        }
        if !matches!(exit.why, Why::PortOut { .. } | Why::Debug { .. }) {
            break exit;
        }
    };
    let whole = start.elapsed();

    let regs = machine.regs()?;
    let tables = mode.paging().map(|format| Tables::existing(machine.memory(), format));
    let hello = Hello {
        mode,
        exits: trace.map(|t| t.exits).unwrap_or_default(),
        exit_count,
        said: console.said,
        first_exit: first_exit.unwrap_or_default(),
        in_guest,
        whole,
        last,
        regs,
        sregs,
        in_memory: result(mode, &machine),
        walk: tables.as_ref().map(|t| t.walk(mode.result_address())),
        next_instruction: tables.and_then(|t| t.walk(regs.rip).physical),
        host_address: machine.memory().address(),
        page_fault: (machine.read_u64(s5_user::NOTED_ADDRESS), machine.read_u64(s5_user::NOTED_CODE)),
        calls,
    };
    Ok((hello, machine))
}

/// The result, as wide as the mode's `mov` made it.
fn result(mode: Mode, machine: &Machine) -> u64 {
    let word = machine.read_u64(layout::RESULT);
    if mode.bits() == 64 { word } else { word & ((1 << mode.bits()) - 1) }
}

/// Notes exits as they come.
struct Trace {
    lines: Vec<Line>,
    before: kvm_regs,
    exits: Vec<Traced>,
}

impl Trace {
    fn start(mode: Mode, machine: &Machine) -> Result<Self, Error> {
        Ok(Self { lines: program_lines(mode), before: machine.regs()?, exits: Vec::new() })
    }

    fn note(&mut self, machine: &Machine, exit: &mut Exit) -> Result<(), Error> {
        let regs = machine.regs()?;
        let line = match exit.why {
            // After a step RIP is at the next instruction; the one that ran is where RIP was.
            Why::Debug { .. } => self.lines.iter().find(|l| l.at == self.before.rip),
            _ => listing::instruction_of(&self.lines, regs.rip, &exit.why),
        };
        // KVM's emulator reports a stepped `hlt` as a step, and would go on behind it.
        if matches!(exit.why, Why::Debug { .. }) && line.is_some_and(|l| l.text == "hlt") {
            exit.why = Why::Halt;
        }
        self.exits.push(Traced {
            exit: exit.clone(),
            rip: regs.rip,
            line: line.cloned(),
            changed: changes(&self.before, &regs),
        });
        self.before = regs;
        Ok(())
    }
}

/// The mode's program, disassembled where the guest has it.
pub fn program_lines(mode: Mode) -> Vec<Line> {
    let program = mode.program();
    disassemble(&program.bytes[..program.code], mode.bits(), layout::CODE)
}

/// The general registers that differ, RIP left out.
pub fn changes(before: &kvm_regs, after: &kvm_regs) -> Vec<Change> {
    named(before)
        .into_iter()
        .zip(named(after))
        .filter(|(b, a)| b.1 != a.1)
        .map(|((name, before), (_, after))| Change { name, before, after })
        .collect()
}

fn named(r: &kvm_regs) -> [(&'static str, u64); 17] {
    [
        ("rax", r.rax),
        ("rbx", r.rbx),
        ("rcx", r.rcx),
        ("rdx", r.rdx),
        ("rsi", r.rsi),
        ("rdi", r.rdi),
        ("rsp", r.rsp),
        ("rbp", r.rbp),
        ("r8", r.r8),
        ("r9", r.r9),
        ("r10", r.r10),
        ("r11", r.r11),
        ("r12", r.r12),
        ("r13", r.r13),
        ("r14", r.r14),
        ("r15", r.r15),
        ("rflags", r.rflags),
    ]
}
