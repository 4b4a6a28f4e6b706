//! Guest code as a reader sees it: addresses, bytes, instructions.

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};

use crate::exits::Why;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it is in the guest.
    pub at: u64,
    /// Its encoding.
    pub bytes: Vec<u8>,
    /// Intel syntax, as nasm writes it.
    pub text: String,
}

impl Line {
    /// The address of the next instruction.
    pub fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// The bytes in hexadecimal: `b0 48`.
    pub fn hex(&self) -> String {
        hex(&self.bytes)
    }
}

/// Bytes as `b0 48`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

/// Disassembles code that the guest has at `at`, for a processor in 16-, 32- or 64-bit mode.
///
/// Padding between functions (zeroes to the next page) is left out.
pub fn disassemble(code: &[u8], bits: u32, at: u64) -> Vec<Line> {
    let mut decoder = Decoder::with_ip(bits, code, at, DecoderOptions::NONE);
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    let mut instruction = Instruction::default();
    let mut lines = Vec::new();
    while decoder.can_decode() {
        let from = decoder.position();
        if code[from..].starts_with(&[0, 0]) {
            let padding = code[from..].iter().take_while(|b| **b == 0).count();
            if decoder.set_position(from + padding).is_err() {
                break;
            }
            decoder.set_ip(at + (from + padding) as u64);
            continue;
        }
        decoder.decode_out(&mut instruction);
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        lines.push(Line { at: instruction.ip(), bytes: code[from..decoder.position()].to_vec(), text });
    }
    lines
}

/// The instruction that an exit is about.
///
/// Where RIP points at an exit depends on who ran the instruction: behind it when KVM's emulator did
/// (it had finished), at it when the processor trapped and KVM completes it at the next entry. So
/// the instruction that ends at RIP is taken if it can have caused the exit, else the one at RIP.
pub fn instruction_of<'l>(lines: &'l [Line], rip: u64, why: &Why) -> Option<&'l Line> {
    let behind = lines.iter().find(|l| l.end() == rip && fits(&l.text, why));
    behind.or_else(|| lines.iter().find(|l| l.at == rip))
}

fn fits(text: &str, why: &Why) -> bool {
    match why {
        Why::PortOut { .. } => text.contains("out"),
        Why::PortIn { .. } => text.starts_with("in ") || text.contains("ins"),
        Why::MmioWrite { .. } | Why::MmioRead { .. } => text.contains('['),
        Why::Halt => text == "hlt",
        _ => false,
    }
}
