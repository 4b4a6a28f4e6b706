//! Stage 6: from registers to a backtrace.
//!
//! A frame is a place in the code and a place on the stack. The caller of a frame is found, in this order, by
//!
//! 1. **CFI**: the tables in `.eh_frame` say for every instruction where the caller's registers were saved;
//! 2. the **frame pointer**: `rbp` points to the caller's `rbp`, the return address is above it;
//! 3. **scan**: the next word up the stack that follows a call instruction. A guess: it may be left over from before.
//!
//! Each frame says which one found it. Stacks grow down, so a caller's stack pointer must be above: this ends every loop.

use std::collections::HashMap;
use std::rc::Rc;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EhFrameOffset, EndianSlice, Evaluation, EvaluationResult,
    LittleEndian, Location, Pointer, Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection,
    Value,
};

use crate::s3_process::{DWARF_ORDER, Registers};
use crate::s4_memory::Memory;
use crate::s5_module::Elf;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

const RBP: usize = 6;
const RSP: usize = 7;
const RIP: usize = 16;
/// Registers that a function must leave as it found them: where CFI is silent, they still have their value.
const PRESERVED: [usize; 6] = [3, 6, 12, 13, 14, 15];
/// A thread's stack is not followed further.
pub const MAX_FRAMES: usize = 1 << 20;
/// Signal frames may move the stack anywhere (sigaltstack), so they are counted.
const MAX_SIGNALS: usize = 16;
/// Words that a scan looks at.
const SCAN: u64 = 1024;

/// How a frame was found, and so how far to trust it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// It is what the registers say.
    Registers,
    /// `.eh_frame` of the frame below said so.
    Cfi,
    /// Restored from the frame that the kernel pushed to deliver a signal.
    Signal,
    /// `rbp` said so.
    FramePointer,
    /// A word on the stack that looks like a return address.
    Scan,
}

impl Trust {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::Cfi => "cfi",
            Self::Signal => "signal frame",
            Self::FramePointer => "frame pointer",
            Self::Scan => "scan",
        }
    }
}

/// One frame of a backtrace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Frame {
    /// Where it would go on: the instruction that faulted, or the one after a call.
    pub pc: u64,
    /// Its stack pointer.
    pub sp: u64,
    /// How it was found.
    pub trust: Trust,
}

impl Frame {
    /// An address inside the instruction that is meant: a call can be the last of its function, so the return address
    /// may already belong to the next one.
    pub fn lookup_pc(&self) -> u64 {
        match self.trust {
            Trust::Registers | Trust::Signal => self.pc,
            _ => self.pc.wrapping_sub(1),
        }
    }
}

/// A backtrace.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Backtrace {
    /// Frames, innermost first.
    pub frames: Vec<Frame>,
    /// Why it ended.
    pub end: String,
}

/// The rules of one instruction, kept: recursion asks for the same ones 100,000 times.
#[derive(Debug, Clone)]
struct Rules {
    cfa: CfaRule<usize>,
    registers: [Option<RegisterRule<usize>>; 17],
    signal: bool,
    encoding: gimli::Encoding,
    tables: Rc<Tables>,
}

/// The unwind sections of one module.
#[derive(Debug)]
struct Tables {
    eh_frame: Vec<u8>,
    address: u64,
    eh_frame_hdr: Option<Vec<u8>>,
    bases: BaseAddresses,
}

/// Unwinds the threads of one core; keeps what it learnt about the code between them.
#[derive(Debug)]
pub struct Unwinder<'m> {
    memory: &'m Memory,
    tables: HashMap<u64, Option<Rc<Tables>>>,
    rules: HashMap<u64, Option<Rc<Rules>>>,
    context: Box<UnwindContext<usize>>,
    /// Frames that may still be found, over all threads: a core can hold many threads that share one long stack.
    budget: usize,
}

type State = [Option<u64>; 17];

impl<'m> Unwinder<'m> {
    /// Ready to unwind.
    pub fn new(memory: &'m Memory) -> Self {
        let context = Box::new(UnwindContext::new());
        Self { memory, tables: HashMap::new(), rules: HashMap::new(), context, budget: 4 * MAX_FRAMES }
    }

    /// The backtrace of a thread.
    pub fn unwind(&mut self, registers: &Registers) -> Backtrace {
        let mut state: State = DWARF_ORDER.map(|i| Some(registers.0[i]));
        let mut trace = Backtrace::default();
        let mut signals = 0;
        let mut trust = Trust::Registers;
        loop {
            let (Some(pc), Some(sp)) = (state[RIP], state[RSP]) else {
                trace.end = "the registers are lost".into();
                break;
            };
            if pc == 0 && trust != Trust::Registers {
                trace.end = "return address 0: the outermost frame".into();
                break;
            }
            let frame = Frame { pc, sp, trust };
            trace.frames.push(frame);
            self.budget = self.budget.saturating_sub(1);
            if trace.frames.len() == MAX_FRAMES || self.budget == 0 {
                trace.end = format!("stopped after {} frames", trace.frames.len());
                break;
            }
            match self.step(&frame, &mut state) {
                Step::To(Trust::Signal) if signals == MAX_SIGNALS => {
                    trace.end = format!("more than {MAX_SIGNALS} signal frames");
                    break;
                }
                Step::To(Trust::Signal) => {
                    signals += 1;
                    trust = Trust::Signal;
                }
                Step::To(next) if state[RSP].is_none_or(|new| new <= sp) => {
                    trace.end = format!("{} led down the stack again", next.name());
                    break;
                }
                Step::To(next) => trust = next,
                Step::Outermost => {
                    trace.end = "marked as the outermost frame".into();
                    break;
                }
                Step::Lost => {
                    trace.end = "no caller found".into();
                    break;
                }
            }
        }
        trace
    }

    fn step(&mut self, frame: &Frame, state: &mut State) -> Step {
        if let Some(rules) = self.rules_at(frame.lookup_pc())
            && let Some(step) = apply(&rules, state, self.memory)
        {
            return step;
        }
        let before = *state;
        for way in [sigreturn, frame_pointer, scan] {
            *state = before;
            if let Some(trust) = way(self.memory, frame, state) {
                return Step::To(trust);
            }
        }
        Step::Lost
    }

    /// The CFI rules of the instruction at `pc`.
    fn rules_at(&mut self, pc: u64) -> Option<Rc<Rules>> {
        if let Some(known) = self.rules.get(&pc) {
            return known.clone();
        }
        let rules = self.find_rules(pc).map(Rc::new);
        self.rules.insert(pc, rules.clone());
        rules
    }

    fn find_rules(&mut self, pc: u64) -> Option<Rules> {
        let module = self.memory.module(pc)?;
        let elf = module.elf.as_ref().ok()?;
        let tables =
            self.tables.entry(module.range.0).or_insert_with(|| Tables::load(elf).map(Rc::new)).clone()?;
        tables.clone().rules(pc.wrapping_sub(module.bias), &mut self.context)
    }
}

enum Step {
    To(Trust),
    Outermost,
    Lost,
}

impl Tables {
    fn load(elf: &Elf) -> Option<Self> {
        let (at, eh_frame) = elf.section(".eh_frame")?;
        let hdr = elf.section(".eh_frame_hdr");
        let mut bases = BaseAddresses::default().set_eh_frame(at);
        if let Some((at, _)) = &hdr {
            bases = bases.set_eh_frame_hdr(*at);
        }
        for (name, set) in
            [(".text", BaseAddresses::set_text as fn(_, _) -> _), (".got", BaseAddresses::set_got)]
        {
            if let Some(at) = elf.section_address(name) {
                bases = set(bases, at);
            }
        }
        Some(Self { eh_frame, address: at, eh_frame_hdr: hdr.map(|(_, bytes)| bytes), bases })
    }

    fn rules(self: Rc<Self>, address: u64, context: &mut UnwindContext<usize>) -> Option<Rules> {
        let eh_frame = EhFrame::new(&self.eh_frame, LittleEndian);
        let hdr = self
            .eh_frame_hdr
            .as_ref()
            .and_then(|h| EhFrameHdr::new(h, LittleEndian).parse(&self.bases, 8).ok());
        let fde = match hdr.as_ref().and_then(|h| h.table()) {
            Some(table) => {
                // Not gimli's fde_for_address: it subtracts without looking, and a table may point before its section.
                let Ok(Pointer::Direct(at)) = table.lookup(address, &self.bases) else { return None };
                let offset = EhFrameOffset(usize::try_from(at.checked_sub(self.address)?).ok()?);
                eh_frame
                    .fde_from_offset(&self.bases, offset, EhFrame::cie_from_offset)
                    .ok()
                    .filter(|fde| fde.contains(address))?
            }
            None => eh_frame.fde_for_address(&self.bases, address, EhFrame::cie_from_offset).ok()?,
        };
        let row = fde.unwind_info_for_address(&eh_frame, &self.bases, context, address).ok()?;
        let (cfa, registers) = (row.cfa().clone(), std::array::from_fn(|i| row.register(Register(i as u16))));
        let (signal, encoding) = (fde.is_signal_trampoline(), fde.cie().encoding());
        Some(Rules { cfa, registers, signal, encoding, tables: self })
    }
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

/// Computes the caller's registers. `None` where the rules need what is not there.
fn apply(rules: &Rules, state: &mut State, memory: &Memory) -> Option<Step> {
    if matches!(rules.registers[RIP], Some(RegisterRule::Undefined)) {
        return Some(Step::Outermost);
    }
    let cfa = match &rules.cfa {
        CfaRule::RegisterAndOffset { register, offset } => {
            state.get(usize::from(register.0))?.as_ref()?.wrapping_add_signed(*offset)
        }
        CfaRule::Expression(e) => evaluate(rules, e, None, state, memory)?,
    };
    let mut caller: State = [None; 17];
    for (i, value) in caller.iter_mut().enumerate() {
        *value = match &rules.registers[i] {
            Some(RegisterRule::SameValue) => state[i],
            Some(RegisterRule::Offset(offset)) => memory.u64(cfa.wrapping_add_signed(*offset)),
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(*offset)),
            Some(RegisterRule::Register(r)) => state.get(usize::from(r.0)).copied().flatten(),
            Some(RegisterRule::Expression(e)) => {
                evaluate(rules, e, Some(cfa), state, memory).and_then(|a| memory.u64(a))
            }
            Some(RegisterRule::ValExpression(e)) => evaluate(rules, e, Some(cfa), state, memory),
            None if i == RSP => Some(cfa),
            None if PRESERVED.contains(&i) => state[i],
            _ => None,
        };
    }
    caller[RIP]?;
    *state = caller;
    Some(Step::To(if rules.signal { Trust::Signal } else { Trust::Cfi }))
}

/// A DWARF expression: a small stack machine, used where an offset is not enough (PLT entries, signal frames).
fn evaluate(
    rules: &Rules,
    e: &UnwindExpression<usize>,
    cfa: Option<u64>,
    state: &State,
    memory: &Memory,
) -> Option<u64> {
    let section: EhFrame<Slice<'_>> = EhFrame::new(&rules.tables.eh_frame, LittleEndian);
    let mut evaluation = e.get(&section).ok()?.evaluation(rules.encoding);
    evaluation.set_max_iterations(1000);
    if let Some(cfa) = cfa {
        evaluation.set_initial_value(cfa);
    }
    let mut result = evaluation.evaluate().ok()?;
    for _ in 0..1000 {
        result = match result {
            EvaluationResult::Complete => return location(evaluation),
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = (*state.get(usize::from(register.0))?)?;
                evaluation.resume_with_register(Value::Generic(value)).ok()?
            }
            EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                evaluation.resume_with_memory(Value::Generic(memory.u64(address)?)).ok()?
            }
            _ => return None,
        };
    }
    None
}

fn location(evaluation: Evaluation<Slice<'_>>) -> Option<u64> {
    match evaluation.as_result().last()?.location {
        Location::Address { address } => Some(address),
        _ => None,
    }
}

/// A signal frame without CFI: `mov $15,%rax; syscall` is rt_sigreturn(2), and its stack pointer points to the
/// `ucontext_t` whose registers it would restore (uc_mcontext at 40: r8…r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip).
fn sigreturn(memory: &Memory, frame: &Frame, state: &mut State) -> Option<Trust> {
    const CODE: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    const ORDER: [usize; 17] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16];
    let mut code = [0; 9];
    if memory.read(frame.pc, &mut code) < 9 || code != CODE {
        return None;
    }
    for (i, register) in ORDER.iter().enumerate() {
        state[*register] = memory.u64(frame.sp.checked_add(40 + 8 * i as u64)?);
    }
    state[RIP].map(|_| Trust::Signal)
}

/// `[rbp]` is the caller's rbp, `[rbp + 8]` the return address.
fn frame_pointer(memory: &Memory, frame: &Frame, state: &mut State) -> Option<Trust> {
    let rbp = state[RBP]?;
    // rbp is an ordinary register in code without frame pointers: it must point up this stack, and to a return address.
    if rbp < frame.sp || rbp - frame.sp > 1 << 20 || !rbp.is_multiple_of(8) || !memory.is_code(frame.pc) {
        return None;
    }
    let (saved, pc) = (memory.u64(rbp)?, memory.u64(rbp.checked_add(8)?)?);
    if pc != 0 && !follows_call(memory, pc) {
        return None;
    }
    *state = [None; 17];
    (state[RIP], state[RSP], state[RBP]) = (Some(pc), Some(rbp.checked_add(16)?), Some(saved));
    Some(Trust::FramePointer)
}

/// The next word up the stack that could be a return address.
fn scan(memory: &Memory, frame: &Frame, state: &mut State) -> Option<Trust> {
    let start = frame.sp.checked_next_multiple_of(8)?;
    for i in 0..SCAN {
        let at = start.checked_add(8 * i)?;
        let pc = memory.u64(at)?;
        if follows_call(memory, pc) {
            let rbp = state[RBP];
            *state = [None; 17];
            (state[RIP], state[RSP], state[RBP]) = (Some(pc), Some(at + 8), rbp);
            return Some(Trust::Scan);
        }
    }
    None
}

/// Whether `pc` is in executable memory and right after a call: `e8 rel32`, or `ff /2` in its lengths of 2 to 7 bytes.
/// Where the code's bytes are missing, being executable must do.
fn follows_call(memory: &Memory, pc: u64) -> bool {
    if !memory.is_code(pc) {
        return false;
    }
    let mut before = [0; 7];
    let Some(start) = pc.checked_sub(7) else { return false };
    if memory.read(start, &mut before) < 7 {
        return true;
    }
    before[2] == 0xe8 || (0..6).any(|i| before[i] == 0xff && before[i + 1] & 0x38 == 0x10)
}
