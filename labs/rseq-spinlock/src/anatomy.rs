//! A critical section as the kernel sees it: the descriptor, and the instructions that it delimits.

use iced_x86::{Decoder, DecoderOptions, Formatter as _, NasmFormatter};

use crate::inject::Part;
use crate::sys::sections::{Entry, Kind, table};

/// One instruction.
#[derive(Debug, Clone)]
pub struct Line {
    /// Address.
    pub ip: u64,
    /// What it says.
    pub text: String,
    /// Where it stands.
    pub part: Part,
}

/// A section.
#[derive(Debug, Clone)]
pub struct Anatomy {
    /// Addresses.
    pub entry: Entry,
    /// From the frame to the commit.
    pub lines: Vec<Line>,
    /// The abort handler.
    pub abort: Vec<Line>,
    /// The four bytes before the abort handler.
    pub signature: u32,
}

/// Takes a section of this program apart; none if it was not linked.
pub fn dissect(kind: Kind) -> Option<Anatomy> {
    let entry = *table().iter().find(|e| e.kind() == kind && e.armed())?;
    let (code, tail) = entry.code();
    let (signature, abort) = tail.split_first_chunk::<4>()?;
    let part = |ip| match ip {
        ip if ip < entry.start_ip => Part::Before,
        ip if ip < entry.post_commit_ip => Part::Inside,
        _ => Part::After,
    };
    let disassemble = |code: &[u8], at: u64| {
        let mut formatter = NasmFormatter::new();
        let options = formatter.options_mut();
        options.set_uppercase_all(false);
        options.set_space_after_operand_separator(true);
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_branch_leading_zeros(false);
        let decoded: Vec<_> = Decoder::with_ip(64, code, at, DecoderOptions::NONE).iter().collect();
        decoded
            .iter()
            .filter(|i| !i.is_invalid())
            .map(|i| {
                let mut text = String::new();
                formatter.format(i, &mut text);
                Line { ip: i.ip(), text, part: part(i.ip()) }
            })
            .collect::<Vec<_>>()
    };
    Some(Anatomy {
        lines: disassemble(code, entry.frame_ip),
        abort: disassemble(abort, entry.abort_ip),
        signature: u32::from_le_bytes(*signature),
        entry,
    })
}
