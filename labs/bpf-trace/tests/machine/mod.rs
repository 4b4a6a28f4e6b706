//! A machine for BPF bytecode, slow and suspicious: what the kernel's verifier would refuse to run, it refuses when it
//! comes to it. With it, a program can be judged where the kernel lets nobody load one.
#![allow(dead_code, reason = "each spec uses a part of it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// An array map: so many values of so many bytes, shared by all programs that have it.
#[derive(Debug, Clone)]
pub struct Array(Rc<RefCell<Vec<Vec<u8>>>>);

impl Array {
    pub fn new(entries: usize, size: usize) -> Self {
        Self(Rc::new(RefCell::new(vec![vec![0; size]; entries])))
    }

    /// The first eight bytes of a value as a number.
    pub fn number(&self, entry: usize) -> u64 {
        u64::from_ne_bytes(self.0.borrow()[entry][..8].try_into().unwrap())
    }

    pub fn put(&self, entry: usize, at: usize, byte: u8) {
        self.0.borrow_mut()[entry][at] = byte;
    }

    /// The entries that are not all zeros, and their first eight bytes.
    pub fn used(&self) -> Vec<(usize, u64)> {
        let all = self.0.borrow();
        let used = all.iter().enumerate().filter(|(_, v)| v.iter().any(|b| *b != 0));
        used.map(|(i, _)| (i, self.number(i))).collect()
    }
}

/// What a register holds, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Nothing,
    Number(u64),
    Context(i64),
    Stack(i64),
    Map,
    /// An address in a map's value: entry, offset.
    Value(usize, i64),
    /// The same before anybody has looked whether it is null.
    MayBeNull(usize),
}

/// Why a program was stopped.
pub type Fault = String;

/// One run of a program.
#[derive(Debug)]
pub struct Run<'a> {
    code: &'a [u64],
    context: &'a [u64],
    pid_tgid: u64,
    map: Array,
    registers: [Held; 11],
    stack: [Option<u8>; 512],
    spilled: BTreeMap<i64, Held>,
    at: usize,
    steps: usize,
    /// Set when it has ended.
    pub result: Option<u64>,
}

/// No honest program here is longer.
const MAX_STEPS: usize = 10_000;

impl<'a> Run<'a> {
    pub fn new(code: &'a [u64], context: &'a [u64], pid_tgid: u64, map: &Array) -> Self {
        let mut registers = [Held::Nothing; 11];
        registers[1] = Held::Context(0);
        registers[10] = Held::Stack(512);
        Self {
            code,
            context,
            pid_tgid,
            map: map.clone(),
            registers,
            stack: [None; 512],
            spilled: BTreeMap::new(),
            at: 0,
            steps: 0,
            result: None,
        }
    }

    /// To the end.
    pub fn finish(&mut self) -> Result<u64, Fault> {
        loop {
            if let Some(result) = self.result {
                return Ok(result);
            }
            self.step()?;
        }
    }

    /// One instruction.
    pub fn step(&mut self) -> Result<(), Fault> {
        let at = self.at;
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(format!("it still runs after {MAX_STEPS} instructions"));
        }
        let Some(insn) = self.code.get(at).copied() else {
            return Err(format!("instruction {at} does not exist: it ran or jumped out of the program"));
        };
        self.execute(insn).map_err(|why| format!("instruction {at}: {why}"))
    }

    fn execute(&mut self, insn: u64) -> Result<(), Fault> {
        let op = insn as u8;
        let (dst, src) = ((insn >> 8 & 15) as usize, (insn >> 12 & 15) as usize);
        let (off, imm) = (i64::from((insn >> 16) as i16), i64::from((insn >> 32) as i32));
        if dst > 10 || src > 10 {
            return Err("there is no such register".into());
        }
        self.at += 1;
        match op & 7 {
            // LDX, ST, STX
            1 => {
                let from = self.read(src)?;
                let value = self.load(from, off, width(op))?;
                self.write(dst, value)
            }
            2 => {
                let to = self.read(dst)?;
                self.store(to, off, width(op), Held::Number(imm as u64))
            }
            3 if op >> 5 == 6 => {
                let (to, by) = (self.read(dst)?, self.number(src)?);
                let old = self.load(to, off, width(op))?;
                let Held::Number(old) = old else { return Err("adds to an address in memory".into()) };
                self.store(to, off, width(op), Held::Number(old.wrapping_add(by)))?;
                match imm {
                    0 => Ok(()),
                    1 => self.write(src, Held::Number(old)),
                    _ => Err("an atomic operation that this machine does not know".into()),
                }
            }
            3 => {
                let (to, value) = (self.read(dst)?, self.read(src)?);
                self.store(to, off, width(op), value)
            }
            // LD: the 64-bit constant only
            0 if op == 0x18 => {
                let high = self.code.get(self.at).ok_or("half a 64-bit constant")? >> 32;
                self.at += 1;
                let value = match src {
                    0 => Held::Number(imm as u32 as u64 | high << 32),
                    1 => Held::Map,
                    _ => return Err("a constant of an unknown kind".into()),
                };
                self.write(dst, value)
            }
            4 | 7 => self.compute(op, dst, src, imm),
            5 | 6 => self.jump(op, dst, src, off, imm),
            _ => Err(format!("opcode {op:#x} is none")),
        }
    }

    fn read(&self, register: usize) -> Result<Held, Fault> {
        match self.registers[register] {
            Held::Nothing => {
                Err(format!("reads r{register}, which holds nothing (a call takes r1 to r5 along)"))
            }
            held => Ok(held),
        }
    }

    fn number(&self, register: usize) -> Result<u64, Fault> {
        match self.read(register)? {
            Held::Number(n) => Ok(n),
            _ => Err(format!("r{register} is an address, not a number")),
        }
    }

    fn write(&mut self, register: usize, value: Held) -> Result<(), Fault> {
        if register == 10 {
            return Err("r10 may not be written".into());
        }
        self.registers[register] = value;
        Ok(())
    }

    fn load(&self, from: Held, off: i64, width: usize) -> Result<Held, Fault> {
        let bytes = match from {
            Held::Context(at) => {
                let at = usize::try_from(at + off).map_err(|_| "reads before its context")?;
                let all: Vec<u8> = self.context.iter().flat_map(|w| w.to_ne_bytes()).collect();
                all.get(at..at + width).ok_or("reads behind its context")?.to_vec()
            }
            Held::Stack(at) => {
                if width == 8
                    && let Some(held) = self.spilled.get(&(at + off))
                {
                    return Ok(*held);
                }
                let range = stack_range(at + off, width)?;
                let bytes: Option<Vec<u8>> = self.stack[range].iter().copied().collect();
                bytes.ok_or("reads a part of the stack that was never written")?
            }
            Held::Value(entry, at) => {
                let all = self.map.0.borrow();
                let at = usize::try_from(at + off).map_err(|_| "reads before the value")?;
                all[entry].get(at..at + width).ok_or("reads behind the value")?.to_vec()
            }
            Held::MayBeNull(_) => return Err("uses an address that may be null".into()),
            Held::Number(0) => return Err("uses null as an address".into()),
            Held::Number(_) => return Err("uses a number as an address".into()),
            Held::Map | Held::Nothing => return Err("reads where it must not".into()),
        };
        let mut word = [0; 8];
        word[..width].copy_from_slice(&bytes);
        Ok(Held::Number(u64::from_ne_bytes(word)))
    }

    fn store(&mut self, to: Held, off: i64, width: usize, value: Held) -> Result<(), Fault> {
        let word = match value {
            Held::Number(n) => n.to_ne_bytes(),
            address => {
                let Held::Stack(at) = to else {
                    return Err("stores an address where others can read it".into());
                };
                stack_range(at + off, 8)?;
                self.spilled.insert(at + off, address);
                return Ok(());
            }
        };
        match to {
            Held::Stack(at) => {
                let range = stack_range(at + off, width)?;
                self.spilled.retain(|slot, _| *slot + 8 <= at + off || at + off + width as i64 <= *slot);
                for (byte, new) in self.stack[range].iter_mut().zip(word) {
                    *byte = Some(new);
                }
                Ok(())
            }
            Held::Value(entry, at) => {
                let mut all = self.map.0.borrow_mut();
                let at = usize::try_from(at + off).map_err(|_| "writes before the value")?;
                let place = all[entry].get_mut(at..at + width).ok_or("writes behind the value")?;
                place.copy_from_slice(&word[..width]);
                Ok(())
            }
            Held::MayBeNull(_) => Err("uses an address that may be null".into()),
            Held::Number(_) => Err("uses a number as an address".into()),
            Held::Context(_) | Held::Map | Held::Nothing => Err("writes where it must not".into()),
        }
    }

    fn compute(&mut self, op: u8, dst: usize, src: usize, imm: i64) -> Result<(), Fault> {
        let wide = op & 7 == 7;
        let by = if op & 8 == 0 { Held::Number(imm as u64) } else { self.read(src)? };
        if op >> 4 == 0xb {
            let value = match by {
                Held::Number(n) if !wide => Held::Number(u64::from(n as u32)),
                other => other,
            };
            return self.write(dst, value);
        }
        let old = self.read(dst)?;
        let value = match (old, by) {
            (Held::Number(a), Held::Number(b)) => Held::Number(arithmetic(op >> 4, wide, a, b)?),
            (address, Held::Number(b)) if wide && op >> 4 <= 1 => {
                let by = if op >> 4 == 0 { b as i64 } else { -(b as i64) };
                match address {
                    Held::Context(at) => Held::Context(at + by),
                    Held::Stack(at) => Held::Stack(at + by),
                    Held::Value(entry, at) => Held::Value(entry, at + by),
                    _ => return Err("computes with an address that may be null".into()),
                }
            }
            _ => return Err("computes with an address".into()),
        };
        self.write(dst, value)
    }

    fn jump(&mut self, op: u8, dst: usize, src: usize, off: i64, imm: i64) -> Result<(), Fault> {
        match op {
            0x85 => return self.call(imm),
            0x95 => {
                self.result = Some(self.number(0)?);
                return Ok(());
            }
            _ => {}
        }
        let (held, wide) = (self.read_unless_always(op, dst)?, op & 7 == 5);
        let by = if op & 8 == 0 { imm as u64 } else { self.number(src)? };
        let taken = match held {
            Held::MayBeNull(entry) if matches!(op, 0x15 | 0x55) && by == 0 => {
                // It is not null: from here on, that is known.
                self.registers[dst] = Held::Value(entry, 0);
                op == 0x55
            }
            Held::Number(n) => compare(op >> 4, wide, n, by)?,
            _ if op == 0x05 => true,
            _ => return Err(format!("compares r{dst}, an address, with a number")),
        };
        if taken {
            self.at = usize::try_from(self.at as i64 + off).map_err(|_| "jumps out of the program")?;
        }
        Ok(())
    }

    fn read_unless_always(&self, op: u8, dst: usize) -> Result<Held, Fault> {
        if op == 0x05 { Ok(Held::Number(0)) } else { self.read(dst) }
    }

    fn call(&mut self, helper: i64) -> Result<(), Fault> {
        let result = match helper {
            1 => {
                if self.read(1)? != Held::Map {
                    return Err("bpf_map_lookup_elem: r1 must be the map".into());
                }
                let Held::Number(key) = self.load(self.read(2)?, 0, 4)? else {
                    return Err("bpf_map_lookup_elem: the key is an address".into());
                };
                if (key as usize) < self.map.0.borrow().len() {
                    Held::MayBeNull(key as usize)
                } else {
                    Held::Number(0)
                }
            }
            14 => Held::Number(self.pid_tgid),
            other => return Err(format!("this machine has no helper {other}")),
        };
        self.registers[1..=5].fill(Held::Nothing);
        self.registers[0] = result;
        Ok(())
    }
}

fn width(op: u8) -> usize {
    match op & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

fn stack_range(at: i64, width: usize) -> Result<std::ops::Range<usize>, Fault> {
    let from = usize::try_from(at).ok().filter(|from| from + width <= 512);
    from.map(|from| from..from + width)
        .ok_or_else(|| "is not on the stack: that is from r10 - 512 to r10".into())
}

fn arithmetic(op: u8, wide: bool, a: u64, b: u64) -> Result<u64, Fault> {
    let bits = if wide { 64 } else { 32 };
    let (a, b) = if wide { (a, b) } else { (u64::from(a as u32), u64::from(b as u32)) };
    let shift = (b % bits) as u32;
    let result = match op {
        0x0 => a.wrapping_add(b),
        0x1 => a.wrapping_sub(b),
        0x2 => a.wrapping_mul(b),
        0x3 => a.checked_div(b).unwrap_or(0),
        0x4 => a | b,
        0x5 => a & b,
        0x6 => a << shift,
        0x7 => a >> shift,
        0x8 => a.wrapping_neg(),
        0x9 => a.checked_rem(b).unwrap_or(a),
        0xa => a ^ b,
        0xc if wide => (a as i64 >> shift) as u64,
        0xc => (a as i32 >> shift) as u64,
        _ => return Err("an operation that this machine does not know".into()),
    };
    Ok(if wide { result } else { u64::from(result as u32) })
}

fn compare(op: u8, wide: bool, a: u64, b: u64) -> Result<bool, Fault> {
    let (a, b) = if wide { (a, b) } else { (u64::from(a as u32), u64::from(b as u32)) };
    let (sa, sb) = if wide { (a as i64, b as i64) } else { (i64::from(a as i32), i64::from(b as i32)) };
    Ok(match op {
        0x0 => true,
        0x1 => a == b,
        0x2 => a > b,
        0x3 => a >= b,
        0x4 => a & b != 0,
        0x5 => a != b,
        0x6 => sa > sb,
        0x7 => sa >= sb,
        0xa => a < b,
        0xb => a <= b,
        0xc => sa < sb,
        0xd => sa <= sb,
        _ => return Err("a jump that this machine does not know".into()),
    })
}
