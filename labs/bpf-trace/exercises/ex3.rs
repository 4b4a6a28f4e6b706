//! Exercise 3: three refused programs, explained and mended. The statement is in the lab's README;
//! `cargo xtask homework check bpf-trace ex3` says how far you are. The programs are in `tests/refused/mod.rs`.

use bpf_trace::s1_by_hand::insn;

/// Why the verifier refuses a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// An address that may be null is used.
    MayBeNull,
    /// It cannot be seen to end.
    NeverEnds,
    /// A register is read that holds nothing.
    NotSet,
    /// Memory is used that may not be the program's.
    OutOfBounds,
    /// An address of the kernel is given away.
    TellsAnAddress,
}

/// Where and why a program is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The number of the instruction, as in the comments of `tests/refused/mod.rs`; of a loop, the one that jumps back.
    pub instruction: usize,
    /// Why.
    pub why: Why,
}

/// Of `index`, `sum` and `add`, in this order.
pub fn answers() -> [Answer; 3] {
    // TODO(you): which instruction of each, and why?
    [Answer { instruction: 0, why: Why::TellsAnAddress }; 3]
}

/// The mended `index`.
pub fn index(map: i32) -> Vec<u64> {
    // TODO(you): mend it. An instruction is insn(opcode, destination, source, offset, constant).
    let _ = insn(0x95, 0, 0, 0, 0);
    super::refused::index(map)
}

/// The mended `sum`.
pub fn sum(map: i32) -> Vec<u64> {
    super::refused::sum(map)
}

/// The mended `add`.
pub fn add(map: i32) -> Vec<u64> {
    super::refused::add(map)
}
