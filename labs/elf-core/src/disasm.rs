//! The instructions around a place, by iced-x86.

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

use crate::s4_memory::Memory;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Instruction {
    /// Where it is.
    pub address: u64,
    /// Its bytes, in hexadecimal.
    pub bytes: String,
    /// Its text.
    pub text: String,
    /// Whether it is the one asked for.
    pub here: bool,
}

/// Up to `before` instructions before `pc`, the one at `pc`, and `after` after it. x86 can only be read forwards:
/// without the function's `start` nothing before `pc` is known.
pub fn around(memory: &Memory, pc: u64, start: Option<u64>, before: usize, after: usize) -> Vec<Instruction> {
    // A start that is far away or does not lead to `pc` is of no use.
    let start = start.filter(|s| *s <= pc && pc - s < 64 << 10).unwrap_or(pc);
    let all = decode(memory, start, (pc - start) as usize + 15 * (after + 1), pc);
    let all = if all.iter().any(|i| i.here) { all } else { decode(memory, pc, 15 * (after + 1), pc) };
    let Some(here) = all.iter().position(|i| i.here) else { return Vec::new() };
    let from = here.saturating_sub(before);
    all.into_iter().skip(from).take(here - from + 1 + after).collect()
}

fn decode(memory: &Memory, start: u64, len: usize, pc: u64) -> Vec<Instruction> {
    let mut bytes = vec![0; len];
    let n = memory.read(start, &mut bytes);
    bytes.truncate(n);
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_space_after_operand_separator(true);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    let mut out = Vec::new();
    let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
    while decoder.can_decode() {
        let at = decoder.position();
        let instruction = decoder.decode();
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        let raw = crate::s5_module::hex(&bytes[at..decoder.position()]);
        out.push(Instruction { address: start + at as u64, bytes: raw, text, here: instruction.ip() == pc });
    }
    out
}
