//! Stage 2: notes, by hand.
//!
//! ```text
//!   namesz  descsz  type  name …  pad  desc …  pad      (three 32-bit words, also in 64-bit files)
//! ```
//!
//! Name and desc are padded to 4 bytes, to 8 where `p_align` is 8; kernels before 5.18 wrote a `p_align` of 0 and
//! mean 4. A type means nothing without its owner: type 3 is `NT_PRPSINFO` of CORE and the build-id of GNU.

use crate::Problem;
use crate::s1_header::{Header, Segment};
use crate::source::{Ints, Source, text};

/// The owner, a note's name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Owner {
    /// `CORE`: what every Unix writes.
    Core,
    /// `LINUX`: registers that came later.
    Linux,
    /// `GNU`: the build-id.
    Gnu,
    /// Anything else.
    Other(String),
}

impl Owner {
    /// As stored.
    pub fn name(&self) -> &str {
        match self {
            Self::Core => "CORE",
            Self::Linux => "LINUX",
            Self::Gnu => "GNU",
            Self::Other(name) => name,
        }
    }
}

/// One note: where its desc is, not its bytes.
#[derive(Debug, Clone, serde::Serialize)]
#[doc(alias = "Elf64_Nhdr")]
pub struct Note {
    /// Who defined the type.
    pub owner: Owner,
    /// The type; see [`Note::name`].
    pub kind: u32,
    /// File offset of the desc.
    pub offset: u64,
    /// Bytes of the desc that are in the segment and the file.
    pub len: u64,
    /// Bytes of the desc by the note's own word.
    pub said: u32,
}

/// `NT_PRSTATUS`: registers of a thread.
pub const PRSTATUS: u32 = 1;
/// `NT_FPREGSET`: x87 and SSE state.
pub const FPREGSET: u32 = 2;
/// `NT_PRPSINFO` (owner CORE): the process in words.
pub const PRPSINFO: u32 = 3;
/// `NT_GNU_BUILD_ID` (owner GNU): which build a binary is.
pub const BUILD_ID: u32 = 3;
/// `NT_AUXV`: what the kernel told the program at exec.
pub const AUXV: u32 = 6;
/// `NT_SIGINFO`, "SIGI": the signal.
pub const SIGINFO: u32 = 0x5349_4749;
/// `NT_FILE`, "FILE": mapped files.
pub const FILE: u32 = 0x4649_4c45;
/// `NT_X86_XSTATE`: XSAVE area.
pub const XSTATE: u32 = 0x202;

impl Note {
    /// The type's name in `<elf.h>`.
    pub fn name(&self) -> &'static str {
        match (&self.owner, self.kind) {
            (Owner::Core, PRSTATUS) => "NT_PRSTATUS",
            (Owner::Core, FPREGSET) => "NT_FPREGSET",
            (Owner::Core, PRPSINFO) => "NT_PRPSINFO",
            (Owner::Core, AUXV) => "NT_AUXV",
            (Owner::Core, SIGINFO) => "NT_SIGINFO",
            (Owner::Core, FILE) => "NT_FILE",
            (Owner::Gnu, BUILD_ID) => "NT_GNU_BUILD_ID",
            (Owner::Linux, XSTATE) => "NT_X86_XSTATE",
            (Owner::Linux, 0x200) => "NT_386_TLS",
            (Owner::Linux, 0x203) => "NT_X86_CET",
            (Owner::Linux, 0x204) => "NT_X86_SHSTK",
            (Owner::Linux, 0x205) => "NT_X86_XSAVE_LAYOUT",
            (Owner::Linux, 0x400) => "NT_ARM_VFP",
            (Owner::Linux, 0x401) => "NT_ARM_TLS",
            (Owner::Linux, 0x402) => "NT_ARM_HW_BREAK",
            (Owner::Linux, 0x403) => "NT_ARM_HW_WATCH",
            (Owner::Linux, 0x404) => "NT_ARM_SYSTEM_CALL",
            (Owner::Linux, 0x405) => "NT_ARM_SVE",
            (Owner::Linux, 0x406) => "NT_ARM_PAC_MASK",
            (Owner::Linux, 0x409) => "NT_ARM_TAGGED_ADDR_CTRL",
            (Owner::Linux, 0x46e6_2b7f) => "NT_PRXFPREG",
            _ => "unknown",
        }
    }

    /// Whether it is `kind` of CORE.
    pub fn is_core(&self, kind: u32) -> bool {
        self.owner == Owner::Core && self.kind == kind
    }

    /// Reads the desc, at most `limit` bytes.
    pub fn desc(&self, source: &Source, limit: u64) -> Vec<u8> {
        source.read_vec(self.offset, self.len.min(limit))
    }
}

/// Walks all note segments of a core.
///
/// A note costs one look at its header and its name: the descs, which make up nearly all the bytes, are not read.
pub fn read_notes(
    source: &Source,
    header: &Header,
    segments: &[Segment],
    problems: &mut Vec<Problem>,
) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut walked = 0;
    let mut areas: Vec<&Segment> = segments.iter().filter(|s| s.is_note()).collect();
    areas.sort_by_key(|s| s.offset);
    for area in areas {
        // Segments that overlap would make few bytes into many notes.
        if area.offset < walked {
            problems.push(Problem::lie(
                "PT_NOTE",
                format!("at offset {:#x} overlaps the one before: left out", area.offset),
            ));
            continue;
        }
        let have = source.len().saturating_sub(area.offset).min(area.filesz);
        if have < area.filesz {
            problems.push(Problem::Truncated { part: "notes".into(), have, want: area.filesz });
        }
        walked = area.offset.saturating_add(have);
        walk(source, header.big_endian, area.offset, have, area.align, &mut notes, problems);
    }
    notes
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

/// Walks `len` bytes of notes at `start`; also used for the notes of executables.
pub fn walk(
    source: &Source,
    big_endian: bool,
    start: u64,
    len: u64,
    align: u64,
    notes: &mut Vec<Note>,
    problems: &mut Vec<Problem>,
) {
    let pad = if align == 8 { 8 } else { 4 };
    let up = |n: u64| n.next_multiple_of(pad);
    let mut at = 0; // relative to the segment: that is what the padding counts from
    while at + 12 <= len {
        let mut head = [0; 12];
        if source.read_at(start + at, &mut head) < 12 {
            break;
        }
        let ints = Ints { bytes: &head, big_endian };
        let word = |i| u64::from(ints.u32(i).unwrap_or(0));
        let (namesz, descsz, kind) = (word(0), word(4), ints.u32(8).unwrap_or(0));
        if namesz == 0 && descsz == 0 && kind == 0 {
            problems
                .push(Problem::lie("note", format!("all zero at offset {:#x}: stopped there", start + at)));
            break;
        }
        let desc = up(at + 12 + namesz);
        if desc > len {
            problems.push(Problem::lie(
                "note",
                format!("name of {namesz} bytes at offset {:#x} leaves the segment", start + at),
            ));
            break;
        }
        let there = (len - desc).min(descsz);
        if there < descsz {
            problems.push(Problem::Truncated {
                part: format!("desc of the note at offset {:#x}", start + at),
                have: there,
                want: descsz,
            });
        }
        let mut name = [0; 64];
        let wanted = namesz.min(64) as usize;
        let got = source.read_at(start + at + 12, &mut name[..wanted]);
        notes.push(Note {
            owner: owner(&name[..got]),
            kind,
            offset: start + desc,
            len: there,
            said: descsz as u32,
        });
        at = up(desc + descsz);
    }
}

fn owner(name: &[u8]) -> Owner {
    match text(name).as_str() {
        "CORE" => Owner::Core,
        "LINUX" => Owner::Linux,
        "GNU" => Owner::Gnu,
        other => Owner::Other(other.to_owned()),
    }
}
