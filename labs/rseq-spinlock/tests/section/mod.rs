//! A free list for each CPU, and what a spec must see of a section that works on it.

mod inject;
mod sys;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, MemorySize, Mnemonic, OpKind, Register};
pub use inject::{OURS, THEIRS, rounds};
pub use rseq_spinlock::sys::rseq::SIGNATURE;
pub use sys::Pretended;

/// One CPU's list.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct List {
    /// Low half: 1 + the first node, or 0. High half: how many there are.
    pub head: AtomicU64,
}

/// What comes after a node: 1 + a node, or 0.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Link(pub AtomicU32);

/// Empty lists, and nodes that are on none.
pub fn lists(cpus: usize, nodes: usize) -> (Vec<List>, Vec<Link>) {
    let links = (0..nodes).map(|_| Link(AtomicU32::new(77))).collect();
    ((0..cpus).map(|_| List::default()).collect(), links)
}

/// A list's count, and its nodes from the first on; ends even if it is a ring.
pub fn nodes(list: &List, links: &[Link]) -> (u32, Vec<u32>) {
    let head = list.head.load(Ordering::Relaxed);
    let (mut next, mut all) = (head as u32, Vec::new());
    while next != 0 && all.len() <= links.len() {
        all.push(next - 1);
        next = links.get(next as usize - 1).map_or(0, |l| l.0.load(Ordering::Relaxed));
    }
    ((head >> 32) as u32, all)
}

/// A descriptor, and the code that it is about.
#[derive(Debug)]
pub struct Section {
    pub version_and_flags: u64,
    pub start: u64,
    pub len: u64,
    pub abort: u64,
    pub signature: u32,
    /// The instructions from start to commit.
    pub code: Vec<Instruction>,
}

/// Our own memory, also where there is none.
fn memory<const N: usize>(at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

impl Section {
    /// The one at this address; what cannot be read is zero.
    pub fn at(descriptor: u64) -> Self {
        let word = |i: u64| memory(descriptor + 8 * i).map_or(0, u64::from_le_bytes);
        let (start, len, abort) = (word(1), word(2), word(3));
        let mut bytes = vec![0; len.min(400) as usize];
        let read = File::open("/proc/self/mem").is_ok_and(|m| m.read_exact_at(&mut bytes, start).is_ok());
        let code = if read { bytes.as_slice() } else { &[] };
        Self {
            version_and_flags: word(0),
            start,
            len,
            abort,
            signature: memory(abort.wrapping_sub(4)).map_or(0, u32::from_le_bytes),
            code: Decoder::with_ip(64, code, start, DecoderOptions::NONE).iter().collect(),
        }
    }

    /// The instructions in words.
    pub fn listing(&self) -> String {
        self.code.iter().map(|i| format!("{i}")).collect::<Vec<_>>().join("; ")
    }

    /// Bytes that each instruction writes to memory.
    pub fn stores(&self) -> Vec<usize> {
        let writes = |i: &Instruction| match i.mnemonic() {
            Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt | Mnemonic::Nop => 0,
            Mnemonic::Mul | Mnemonic::Imul | Mnemonic::Div | Mnemonic::Idiv => 0,
            _ if i.op_count() > 0 && i.op0_kind() == OpKind::Memory => size(i),
            Mnemonic::Xchg | Mnemonic::Xadd => size(i),
            _ => 0,
        };
        self.code.iter().map(writes).collect()
    }

    /// Whether the last instruction is a plain store.
    pub fn ends_with_mov(&self) -> bool {
        self.code.last().is_some_and(|i| matches!(i.code(), Code::Mov_rm64_r64 | Code::Mov_rm64_imm32))
    }

    /// How many instructions read through fs: the number of the CPU.
    pub fn reads_of_fs(&self) -> usize {
        self.code.iter().filter(|i| i.memory_segment() == Register::FS && size(i) == 4).count()
    }

    /// Instructions that have no place in a section.
    pub fn strange(&self) -> Vec<String> {
        let strange = |i: &&Instruction| {
            let far = [Mnemonic::Call, Mnemonic::Ret, Mnemonic::Syscall, Mnemonic::Push, Mnemonic::Pop];
            let locked = i.has_lock_prefix() || i.mnemonic() == Mnemonic::Xchg;
            i.is_invalid() || locked || i.has_rep_prefix() || far.contains(&i.mnemonic())
        };
        self.code.iter().filter(strange).map(ToString::to_string).collect()
    }
}

/// Bytes of the instruction's operand in memory; 0 without one.
fn size(i: &Instruction) -> usize {
    match i.memory_size() {
        MemorySize::UInt8 | MemorySize::Int8 => 1,
        MemorySize::UInt16 | MemorySize::Int16 => 2,
        MemorySize::UInt32 | MemorySize::Int32 => 4,
        MemorySize::UInt64 | MemorySize::Int64 => 8,
        MemorySize::Unknown => 0,
        // Vectors and the like: more than belongs here.
        _ => 16,
    }
}
