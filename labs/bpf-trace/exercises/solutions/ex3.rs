//! Exercise 3: three refused programs, explained and mended.

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
    [
        Answer { instruction: 9, why: Why::OutOfBounds },
        Answer { instruction: 5, why: Why::NeverEnds },
        Answer { instruction: 2, why: Why::NotSet },
    ]
}

/// The mended `index`: a byte outside is not asked for.
pub fn index(map: i32) -> Vec<u64> {
    vec![
        insn(0x79, 6, 1, 8, 0),   //  0  r6 = n
        insn(0x62, 10, 0, -4, 0), //  1  *(u32 *)(r10 - 4) = 0: the key
        insn(0xbf, 2, 10, 0, 0),  //  2  r2 = r10
        insn(0x07, 2, 0, 0, -4),  //  3  r2 += -4
        insn(0x18, 1, 1, 0, map), //  4  r1 = map
        insn(0, 0, 0, 0, 0),
        insn(0x85, 0, 0, 0, 1),   //  6  call bpf_map_lookup_elem
        insn(0x15, 0, 0, 4, 0),   //  7  if r0 == 0 goto out
        insn(0x25, 6, 0, 3, 63),  //  8  if r6 > 63 goto out, compared as unsigned
        insn(0x0f, 0, 6, 0, 0),   //  9  r0 += r6
        insn(0x71, 0, 0, 0, 0),   // 10  r0 = *(u8 *)(r0 + 0)
        insn(0x95, 0, 0, 0, 0),   // 11  exit
        insn(0xb7, 0, 0, 0, 0),   // 12  out: r0 = 0
        insn(0x95, 0, 0, 0, 0),   // 13  exit
    ]
}

/// The mended `sum`: from at most 100 on, a hundred rounds at most.
pub fn sum(_map: i32) -> Vec<u64> {
    vec![
        insn(0x79, 6, 1, 8, 0),   // 0  r6 = n
        insn(0xb7, 0, 0, 0, 0),   // 1  r0 = 0
        insn(0xb5, 6, 0, 1, 100), // 2  if r6 <= 100 goto again
        insn(0xb7, 6, 0, 0, 100), // 3  r6 = 100
        insn(0x15, 6, 0, 3, 0),   // 4  again: if r6 == 0 goto out
        insn(0x0f, 0, 6, 0, 0),   // 5  r0 += r6
        insn(0x07, 6, 0, 0, -1),  // 6  r6 += -1
        insn(0x05, 0, 0, -4, 0),  // 7  goto again
        insn(0x95, 0, 0, 0, 0),   // 8  out: exit
    ]
}

/// The mended `add`: the context is put where a call leaves it alone.
pub fn add(_map: i32) -> Vec<u64> {
    vec![
        insn(0xbf, 6, 1, 0, 0),  // 0  r6 = r1
        insn(0x85, 0, 0, 0, 14), // 1  call bpf_get_current_pid_tgid
        insn(0x77, 0, 0, 0, 32), // 2  r0 >>= 32
        insn(0x79, 2, 6, 8, 0),  // 3  r2 = n
        insn(0x0f, 0, 2, 0, 0),  // 4  r0 += r2
        insn(0x95, 0, 0, 0, 0),  // 5  exit
    ]
}
