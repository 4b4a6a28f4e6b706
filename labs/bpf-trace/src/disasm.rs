//! A disassembler for BPF, in the notation of LLVM and of Documentation/bpf/standardization/instruction-set.rst.

/// An instruction's parts: see [`crate::s1_by_hand::insn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// The opcode: its lowest three bits are the class.
    pub op: u8,
    /// Destination register.
    pub dst: u8,
    /// Source register; with some opcodes, what the constant means.
    pub src: u8,
    /// Offset: of memory in bytes, of a jump in instructions.
    pub off: i16,
    /// Constant.
    pub imm: i32,
}

impl From<u64> for Insn {
    fn from(raw: u64) -> Self {
        Self {
            op: raw as u8,
            dst: (raw >> 8 & 15) as u8,
            src: (raw >> 12 & 15) as u8,
            off: (raw >> 16) as i16,
            imm: (raw >> 32) as i32,
        }
    }
}

/// BPF_LD | BPF_IMM | BPF_DW: a constant of 64 bits, the only instruction that is two.
pub const LOAD_64: u8 = 0x18;
/// BPF_JMP | BPF_CALL
pub const CALL: u8 = 0x85;

const LDX: u8 = 1;
const ST: u8 = 2;
const STX: u8 = 3;
const ALU: u8 = 4;
const JMP: u8 = 5;
const JMP32: u8 = 6;
const ALU64: u8 = 7;

impl Insn {
    fn class(self) -> u8 {
        self.op & 7
    }

    /// Whether the operand is a register and no constant: BPF_X.
    fn by_register(self) -> bool {
        self.op & 8 != 0
    }

    /// The instruction as text; `next` is the one that follows, of which a constant of 64 bits is the second half.
    pub fn text(self, next: Option<u64>) -> String {
        match self.class() {
            _ if self.op == LOAD_64 => self.load_64(next),
            LDX | ST | STX => self.memory(),
            ALU | ALU64 => self.arithmetic(),
            JMP | JMP32 => self.jump(),
            _ => None,
        }
        .unwrap_or_else(|| format!("unknown {:#04x}", self.op))
    }

    fn load_64(self, next: Option<u64>) -> Option<String> {
        let high = Self::from(next?).imm;
        let value = u64::from(self.imm as u32) | (u64::from(high as u32) << 32);
        Some(match self.src {
            0 => format!("r{} = {value:#x} ll", self.dst),
            // BPF_PSEUDO_MAP_FD (after loading: its id), BPF_PSEUDO_MAP_VALUE
            1 => format!("r{} = map {}", self.dst, self.imm),
            2 => format!("r{} = map {} value + {high}", self.dst, self.imm),
            other => format!("r{} = pseudo {other} {value:#x}", self.dst),
        })
    }

    /// Loads and stores: BPF_LDX, BPF_ST, BPF_STX.
    fn memory(self) -> Option<String> {
        let size = ["u32", "u16", "u8", "u64"][usize::from(self.op >> 3 & 3)];
        let register = if self.class() == LDX { self.src } else { self.dst };
        let sign = if self.off < 0 { '-' } else { '+' };
        let place = format!("(r{register} {sign} {})", self.off.unsigned_abs());
        let cell = format!("*({size} *){place}");
        match (self.class(), self.op >> 5) {
            (LDX, 3) => Some(format!("r{} = {cell}", self.dst)),
            (LDX, 4) => Some(format!("r{} = *({} *){place}", self.dst, size.replace('u', "s"))),
            (ST, 3) => Some(format!("{cell} = {}", self.imm)),
            (STX, 3) => Some(format!("{cell} = r{}", self.src)),
            (STX, 6) => self.atomic(size, &place),
            _ => None,
        }
    }

    /// BPF_ATOMIC: the constant says which operation, and bit 0 whether the old value is fetched.
    fn atomic(self, size: &str, place: &str) -> Option<String> {
        let (name, sign) = match self.imm & 0xf0 {
            0x00 => ("add", "+="),
            0x40 => ("or", "|="),
            0x50 => ("and", "&="),
            0xa0 => ("xor", "^="),
            0xe0 | 0xf0 => {
                let (r, form) = if size == "u64" { ('r', "_64") } else { ('w', "32_32") };
                let place = place.trim_matches(['(', ')']);
                return Some(match self.imm & 0xf0 {
                    0xe0 => format!("{r}{0} = xchg{form}({place}, {r}{0})", self.src),
                    _ => format!("{r}0 = cmpxchg{form}({place}, {r}0, {r}{})", self.src),
                });
            }
            _ => return None,
        };
        Some(match self.imm & 1 {
            0 => format!("lock *({size} *){place} {sign} r{}", self.src),
            _ => format!("r{0} = atomic_fetch_{name}(({size} *){place}, r{0})", self.src),
        })
    }

    /// BPF_ALU on the lower halves (w0 to w9), BPF_ALU64 on whole registers.
    fn arithmetic(self) -> Option<String> {
        let r = if self.class() == ALU { 'w' } else { 'r' };
        let to = format!("{r}{}", self.dst);
        let operand = if self.by_register() { format!("{r}{}", self.src) } else { self.imm.to_string() };
        let sign = match (self.op >> 4, self.off) {
            (0x0, _) => "+=",
            (0x1, _) => "-=",
            (0x2, _) => "*=",
            (0x3, 0) => "/=",
            (0x3, _) => "s/=",
            (0x4, _) => "|=",
            (0x5, _) => "&=",
            (0x6, _) => "<<=",
            (0x7, _) => ">>=",
            (0x8, _) => return Some(format!("{to} = -{to}")),
            (0x9, 0) => "%=",
            (0x9, _) => "s%=",
            (0xa, _) => "^=",
            (0xb, 0) => "=",
            (0xb, bits) => return Some(format!("{to} = (s{bits}){operand}")),
            (0xc, _) => "s>>=",
            (0xd, _) => {
                let order = match (self.class(), self.by_register()) {
                    (ALU64, _) => "bswap",
                    (_, true) => "be",
                    (_, false) => "le",
                };
                return Some(format!("r{0} = {order}{1} r{0}", self.dst, self.imm));
            }
            _ => return None,
        };
        Some(format!("{to} {sign} {operand}"))
    }

    /// BPF_JMP compares whole registers, BPF_JMP32 their lower halves.
    fn jump(self) -> Option<String> {
        let r = if self.class() == JMP32 { 'w' } else { 'r' };
        let sign = match self.op >> 4 {
            0x0 if self.class() == JMP => return Some(format!("goto {:+}", self.off)),
            0x0 => return Some(format!("gotol {:+}", self.imm)),
            0x8 if self.src == 0 && self.by_register() => return Some(format!("callx r{}", self.dst)),
            // BPF_PSEUDO_CALL: a function of the program's own.
            0x8 if self.src == 1 => return Some(format!("call {:+}", self.imm)),
            0x8 => return Some(format!("call {}", self.imm)),
            0x9 => return Some("exit".into()),
            0x1 => "==",
            0x2 => ">",
            0x3 => ">=",
            0x4 => "&",
            0x5 => "!=",
            0x6 => "s>",
            0x7 => "s>=",
            0xa => "<",
            0xb => "<=",
            0xc => "s<",
            0xd => "s<=",
            _ => return None,
        };
        let operand = if self.by_register() { format!("{r}{}", self.src) } else { self.imm.to_string() };
        Some(format!("if {r}{} {sign} {operand} goto {:+}", self.dst, self.off))
    }
}

/// Disassembles a program: the number of each instruction, and its text.
pub fn listing(code: &[u64]) -> Vec<(usize, Insn, String)> {
    let mut lines = Vec::new();
    let mut at = 0;
    while let Some(raw) = code.get(at) {
        let insn = Insn::from(*raw);
        lines.push((at, insn, insn.text(code.get(at + 1).copied())));
        at += if insn.op == LOAD_64 { 2 } else { 1 };
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s1_by_hand::insn;

    #[test]
    fn instructions_read_as_in_the_specification() {
        for (raw, text) in [
            (insn(0x62, 10, 0, -4, 0), "*(u32 *)(r10 - 4) = 0"),
            (insn(0x81, 1, 2, 8, 0), "r1 = *(s32 *)(r2 + 8)"),
            (insn(0xdb, 0, 1, 0, 1), "r1 = atomic_fetch_add((u64 *)(r0 + 0), r1)"),
            (insn(0xc3, 3, 1, 4, 0x40), "lock *(u32 *)(r3 + 4) |= r1"),
            (insn(0xdb, 2, 1, 0, 0xe1), "r1 = xchg_64(r2 + 0, r1)"),
            (insn(0xc3, 1, 9, 8, 0xf1), "w0 = cmpxchg32_32(r1 + 8, w0, w9)"),
            (insn(0x37, 1, 0, 1, -3), "r1 s/= -3"),
            (insn(0xbf, 1, 2, 8, 0), "r1 = (s8)r2"),
            (insn(0xdc, 4, 0, 0, 16), "r4 = be16 r4"),
            (insn(0x85, 0, 1, 0, -7), "call -7"),
            (insn(0x06, 0, 0, 0, 70_000), "gotol +70000"),
            (insn(0xff, 0, 0, 0, 0), "unknown 0xff"),
        ] {
            assert_eq!(Insn::from(raw).text(None), text);
        }
    }

    #[test]
    fn any_bytes_are_text() {
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            assert!(!Insn::from(state).text(Some(!state)).is_empty());
        }
    }
}
