//! Fails `the_program_gives_the_rule`: a row is taken to start after the byte that it was advanced to, so that the
//! first instruction of each stretch has the rule before.

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

/// The caller by frame pointer.
pub fn by_frame_pointer(now: Registers, read: Read<'_>) -> Option<Registers> {
    // In code without frame pointers bp is a register like any other: it must point up this stack.
    if now.bp < now.sp || !now.bp.is_multiple_of(8) {
        return None;
    }
    let above = now.bp.checked_add(8)?;
    let (bp, ip) = (read(now.bp)?, read(above)?);
    // The return popped its address, too.
    (ip != 0).then_some(Registers { ip, sp: above.checked_add(8)?, bp })
}

/// The caller by a rule.
pub fn by_row(row: Row, now: Registers, read: Read<'_>) -> Option<Registers> {
    let base = match row.base {
        Base::Sp => now.sp,
        Base::Bp => now.bp,
    };
    let cfa = base.checked_add_signed(row.offset)?;
    let ip = read(cfa.checked_sub(8)?)?;
    let bp = match row.bp_at {
        Some(offset) => read(cfa.checked_add_signed(offset)?)?,
        None => now.bp,
    };
    (ip != 0).then_some(Registers { ip, sp: cfa, bp })
}

/// The instructions that are left.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// An integer of `N` bytes, least significant first.
    fn bytes<const N: usize>(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(first.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Seven bits a byte, least significant first; the eighth says that more follow.
    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.bytes::<1>()?;
            value |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn offset(&mut self) -> Option<i64> {
        self.uleb()?.try_into().ok()
    }

    fn base(&mut self) -> Option<Base> {
        match self.uleb()? {
            6 => Some(Base::Bp),
            7 => Some(Base::Sp),
            _ => None,
        }
    }
}

const BP: u64 = 6;

/// The rule `target` bytes into a function.
pub fn row(program: &[u8], target: u64) -> Option<Row> {
    let mut left = Cursor(program);
    let (mut row, mut remembered, mut at) = (ENTRY, Vec::new(), 0_u64);
    while !left.0.is_empty() {
        let op = left.bytes::<1>()?;
        let mut advance = 0;
        match (op >> 6, op & 0x3f) {
            (1, n) => advance = n,
            (2, register) => {
                let saved = left.offset()?.checked_mul(-8)?;
                if register == BP {
                    row.bp_at = Some(saved);
                }
            }
            (3, BP) => row.bp_at = ENTRY.bp_at,
            (3, _) | (0, 0x00) => {}
            (_, 0x02) => advance = left.bytes::<1>()?,
            (_, 0x03) => advance = left.bytes::<2>()?,
            (_, 0x04) => advance = left.bytes::<4>()?,
            (_, 0x0a) => remembered.push(row),
            (_, 0x0b) => row = remembered.pop()?,
            (_, 0x0c) => (row.base, row.offset) = (left.base()?, left.offset()?),
            (_, 0x0d) => row.base = left.base()?,
            (_, 0x0e) => row.offset = left.offset()?,
            _ => return None,
        }
        // What follows is about the instructions from `at` on.
        at = at.checked_add(advance)?;
        if at >= target {
            break;
        }
    }
    Some(row)
}

/// All frames from `now` outwards.
pub fn unwind(now: Registers, read: Read<'_>, row_of: &dyn Fn(u64) -> Option<Row>) -> Vec<Registers> {
    let mut frames = vec![now];
    let mut now = now;
    while frames.len() < MOST {
        // The innermost instruction has not been done; of all others the call before the return address is meant.
        let asked = if frames.len() == 1 { now.ip } else { now.ip.wrapping_sub(1) };
        let up = |caller: &Registers| caller.sp > now.sp;
        let by_row = row_of(asked).and_then(|row| by_row(row, now, read)).filter(up);
        let Some(caller) = by_row.or_else(|| by_frame_pointer(now, read).filter(up)) else { break };
        frames.push(caller);
        now = caller;
    }
    frames
}

/// Frames that are followed at most.
pub const MOST: usize = 10_000;
