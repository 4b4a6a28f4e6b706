//! Exercise 2: from registers to a backtrace. The statement is in the lab's README; `cargo xtask homework check elf-core
//! ex2` says how far you are.
//!
//! Part 1 follows frame pointers, part 2 one rule of the unwind tables, part 3 runs the small program that makes the
//! rule, and part 4 puts them together. Stacks grow down: a caller's `sp` is above that of the function it called.
//!
//! Memory is read by `read(address)`: the 64-bit word there, or None. Addresses may be anything: no sum overflows.

/// Of a frame, what is needed to find its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// Where it would go on.
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
}

/// Reads a word of the dead process.
pub type Read<'a> = &'a dyn Fn(u64) -> Option<u64>;

/// The rule for one instruction: where the caller's registers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The canonical frame address, CFA, is this register…
    pub base: Base,
    /// … plus this. It is what the caller's `sp` will be. The return address is right below it, at CFA - 8.
    pub offset: i64,
    /// The caller's `bp` is at CFA plus this; None: still in `bp`.
    pub bp_at: Option<i64>,
}

/// What a CFA is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// DWARF register 7.
    Sp,
    /// DWARF register 6.
    Bp,
}

/// The rule at the first instruction of a function: only the return address was pushed.
pub const ENTRY: Row = Row { base: Base::Sp, offset: 8, bp_at: None };

/// Part 1: the caller by frame pointer. `[bp]` is the caller's `bp`, the return address is above it.
///
/// None where `bp` is no frame pointer: not a multiple of 8, below `sp`, not readable; or the return address is 0.
pub fn by_frame_pointer(_now: Registers, _read: Read<'_>) -> Option<Registers> {
    unimplemented!("TODO(you): check bp, then read two words")
}

/// Part 2: the caller by a rule. None where a word cannot be read, or the return address is 0.
pub fn by_row(_row: Row, _now: Registers, _read: Read<'_>) -> Option<Registers> {
    unimplemented!("TODO(you): compute the CFA, then read what the rule says")
}

/// Part 3: the rule `target` bytes into a function, by the instructions of its FDE. It starts from [`ENTRY`] at 0; what
/// stands before an advance to beyond `target` counts.
///
/// ```text
/// 0x00 nop                               0x40 | n     advance n bytes
/// 0x02 advance, u8                       0x80 | r     offset: register r is saved at CFA - 8 × (ULEB128 that follows)
/// 0x03 advance, u16                      0xc0 | r     restore: register r is as in ENTRY again
/// 0x04 advance, u32                      0x0a         remember: the whole row is put on a stack
/// 0x0c CFA = register ULEB128 + ULEB128  0x0b         recall: the whole row is taken off it
/// 0x0d CFA register, ULEB128; same offset
/// 0x0e CFA offset, ULEB128; same register
/// ```
///
/// Of registers other than 6 and 16 nothing is kept, but they are read past. None for any other instruction before
/// `target`, for one that is cut off, and for a CFA by a register other than 6 and 7.
pub fn row(_program: &[u8], _target: u64) -> Option<Row> {
    unimplemented!("TODO(you): a loop, a cursor, a match")
}

/// Part 4: all frames from `now` outwards, `now` first. The caller is found by `row_of`, which returns the rule of the
/// instruction at an address; where it has none, or its rule leads nowhere or not up, by frame pointer.
///
/// A return address may be the first byte of the next function, if the call never returns: it is not the address to ask
/// for. Ends where there is no caller, and after `MOST` frames.
pub fn unwind(_now: Registers, _read: Read<'_>, _row_of: &dyn Fn(u64) -> Option<Row>) -> Vec<Registers> {
    unimplemented!("TODO(you): rule, else frame pointer, and only up")
}

/// Frames that are followed at most.
pub const MOST: usize = 10_000;
