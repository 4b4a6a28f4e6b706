//! A core, opened: the stages put together.

use std::path::Path;
use std::rc::Rc;

use crate::s1_header::{Header, Segment, read_segments};
use crate::s2_notes::{Note, read_notes};
use crate::s3_process::{Process, Thread};
use crate::s4_memory::{Lookup, Memory};
use crate::s6_unwind::{Backtrace, Unwinder};
use crate::s7_symbols::{Symbols, fold};
use crate::source::Source;
use crate::{Error, Problem, cause};

/// What is known of a core without looking at memory: this much costs what the notes cost, whatever the core's size.
#[derive(Debug)]
pub struct Core {
    /// Its bytes.
    pub source: Rc<Source>,
    /// The ELF header.
    pub header: Header,
    /// All segments, in the file's order.
    pub segments: Vec<Segment>,
    /// All notes, in the file's order.
    pub notes: Vec<Note>,
    /// What the notes say.
    pub process: Process,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

impl Core {
    /// Opens a core and reads its notes.
    ///
    /// # Errors
    /// Only where nothing can be shown: it cannot be opened, is not ELF, or is not a core.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::read(Source::open(path)?)
    }

    /// The same for bytes in memory.
    ///
    /// # Errors
    /// As [`Core::open`].
    pub fn read(source: Source) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let header = Header::read(&source, &mut problems)?;
        if header.e_type != goblin::elf::header::ET_CORE {
            return Err(Error::NotCore { kind: header.kind(), e_type: header.e_type });
        }
        let segments = read_segments(&source, &header, &mut problems);
        let notes = read_notes(&source, &header, &segments, &mut problems);
        let process = Process::read(&source, &header, &notes, &mut problems);
        Ok(Self { source: Rc::new(source), header, segments, notes, process, problems })
    }

    /// The memory of the process, with the mapped files that can be found.
    pub fn memory(&mut self, lookup: &Lookup) -> Memory {
        let mut memory =
            Memory::new(self.source.clone(), &self.segments, &self.process.files, &mut self.problems);
        if self.header.is_x86_64() {
            memory.find_modules(lookup, self.process.auxv(3));
            if let Some(vdso) = self.process.auxv(33) {
                memory.add_vdso(vdso);
            }
        }
        memory
    }

    /// Whether a signal ended it; a snapshot is of a process that lives on.
    pub fn died(&self) -> bool {
        let signal = self.process.siginfo.map_or(0, |i| i.signal);
        signal != 0 || self.dead_thread().is_some_and(|t| t.signal != 0)
    }

    /// The thread that died; of a snapshot, the first.
    pub fn dead_thread(&self) -> Option<&Thread> {
        self.process.threads.first()
    }

    /// Why it died, in one sentence; `place` says where in words.
    pub fn cause(&self, memory: &Memory, place: Option<String>) -> String {
        let Some(info) = &self.process.siginfo else {
            return match self.dead_thread().map(|t| t.signal) {
                None => "The core has no thread.".into(),
                Some(0) => "It did not die: this is a snapshot of a running process.".into(),
                Some(signal) => format!(
                    "{}, but the core says no more (no NT_SIGINFO).",
                    cause::signal_name(i32::from(signal))
                ),
            };
        };
        let registers = self.dead_thread().and_then(|t| t.registers.as_ref());
        if info.signal == 0
            || self.dead_thread().is_some_and(|t| t.signal == 0)
                && info.sender.is_none()
                && info.address.is_none()
        {
            return "It did not die: this is a snapshot of a running process.".into();
        }
        let context = cause::Context {
            pid: self.process.program.as_ref().map(|p| p.ids[0]).or(self.dead_thread().map(|t| t.tid)),
            place,
            stack_guard: info.address.zip(registers).is_some_and(|(a, r)| is_stack_guard(memory, a, r.rsp())),
            jumped: info.address.zip(registers).is_some_and(|(a, r)| a == r.rip()),
        };
        cause::sentence(info, &context)
    }

    /// Backtraces of all threads, in the core's order; `None` for threads without registers.
    pub fn backtraces(&self, memory: &Memory) -> Vec<Option<Backtrace>> {
        let mut unwinder = Unwinder::new(memory);
        self.process.threads.iter().map(|t| t.registers.as_ref().map(|r| unwinder.unwind(r))).collect()
    }

    /// Command line and environment, from the main thread's stack: the kernel put the strings at its top, in order,
    /// before `AT_EXECFN`'s.
    pub fn arguments(&self, memory: &Memory) -> (Vec<String>, Vec<String>) {
        let Some(execfn) = self.process.auxv(31) else { return Default::default() };
        let Some(stack) = memory.segment(execfn) else { return Default::default() };
        // Above the strings: execfn. Below them: AT_RANDOM's 16 bytes and AT_PLATFORM; below those auxv, envp, argv, argc.
        let end = self.process.auxv(25).unwrap_or(execfn).min(execfn);
        let Some(auxv) = self.auxv_address(memory, stack.vaddr, end) else { return Default::default() };
        let env = pointers_before(memory, auxv);
        let args = pointers_before(memory, auxv.saturating_sub(8 * (env.len() as u64 + 1)));
        let strings =
            |pointers: Vec<u64>| pointers.into_iter().filter_map(|p| memory.string(p, 4096)).collect();
        (strings(args), strings(env))
    }

    /// The auxiliary vector's place on the stack: its first two entries, as the note has them.
    fn auxv_address(&self, memory: &Memory, start: u64, end: u64) -> Option<u64> {
        let (first, second) = (self.process.auxv.first()?, self.process.auxv.get(1)?);
        let start = start.max(end.saturating_sub(256 << 10)).next_multiple_of(8);
        let mut bytes = vec![0; usize::try_from(end.checked_sub(start)?).ok()?];
        let n = memory.read(start, &mut bytes);
        let pattern: Vec<u8> =
            [first.0, first.1, second.0, second.1].iter().flat_map(|w| w.to_le_bytes()).collect();
        // The highest match: a copy of it may stand further down the stack.
        (0..n.saturating_sub(pattern.len() - 1))
            .rev()
            .find(|i| i % 8 == 0 && bytes[*i..].starts_with(&pattern))
            .map(|i| start + i as u64)
    }
}

/// Asks a core everything that can be asked, and opens no other file: for fuzzers and for tests with broken cores.
/// Returns how many threads and frames there were.
pub fn ask_everything(source: Source) -> Result<(usize, usize), Error> {
    let mut core = Core::read(source)?;
    let memory = core.memory(&Lookup { none: true, ..Lookup::default() });
    let traces = core.backtraces(&memory);
    let mut symbols = Symbols::new(&memory, None, true);
    let mut frames = 0;
    for trace in traces.iter().flatten() {
        frames += trace.frames.len();
        for part in fold(trace).iter().take(1000) {
            symbols.frame(&trace.frames[part.start]);
        }
    }
    for thread in core.process.threads.iter().take(100) {
        thread.vectors(&core.source);
    }
    core.cause(&memory, None);
    core.arguments(&memory);
    memory.search(b"BENCHTOP", 10);
    for s in memory.segments().iter().take(100) {
        memory.backing(s.vaddr);
        memory.read(s.vaddr.saturating_sub(8), &mut [0; 64]);
    }
    for problem in &core.problems {
        let _ = problem.to_string();
    }
    Ok((core.process.threads.len(), frames))
}

/// The pointers of an array that ends in a null one right before `end`, in order; at most 4096.
fn pointers_before(memory: &Memory, end: u64) -> Vec<u64> {
    let mut pointers = Vec::new();
    let mut at = end.wrapping_sub(16); // the null pointer is at end - 8
    while let Some(pointer) = memory.u64(at).filter(|p| *p > 4096 && pointers.len() < 4096) {
        pointers.push(pointer);
        at = at.wrapping_sub(8);
    }
    pointers.reverse();
    pointers
}

/// A stack overflow faults in the guard below its stack: close below the stack pointer, or above it by less than a frame,
/// where nothing can be accessed.
fn is_stack_guard(memory: &Memory, address: u64, rsp: u64) -> bool {
    let accessible = |a: u64| memory.segment(a).is_some_and(|s| s.flags & 6 != 0);
    !accessible(address)
        && address.abs_diff(rsp) < 64 << 10
        && (accessible(address.saturating_add(64 << 10)) || accessible(rsp))
}
