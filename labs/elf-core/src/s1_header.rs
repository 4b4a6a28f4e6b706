//! Stage 1: the ELF header and the table of segments.
//!
//! A core has no sections worth reading; everything is found through the program headers.
//! Their count is a 16-bit field: a core with 65,535 mappings or more stores `PN_XNUM` (0xffff) there and
//! the true count in `sh_info` of section header 0, the only section such a core has (elf(5)).

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{self, header32, header64};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE, ProgramHeader};
use goblin::elf::section_header::SectionHeader;

use crate::source::Source;
use crate::{Error, Problem};

/// `e_phnum` of a core whose count did not fit.
const PN_XNUM: u16 = 0xffff;
/// More segments than this are not read: Linux cannot map as many by default (65,530).
pub const MAX_SEGMENTS: u64 = 1 << 21;

/// The facts of an ELF header that matter for a core.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Header {
    /// 64-bit layout (`ELFCLASS64`).
    pub is_64: bool,
    /// Most significant byte first (`ELFDATA2MSB`).
    pub big_endian: bool,
    /// `e_machine`, an `EM_…` number.
    pub machine: u16,
    /// `e_type`: 4 is a core.
    pub e_type: u16,
    /// `e_entry`.
    pub entry: u64,
    /// Where the program headers start in the file.
    pub phoff: u64,
    /// Where the section headers start; 0 for none.
    pub shoff: u64,
    /// Bytes of one program header.
    pub phentsize: u16,
    /// Bytes of one section header.
    pub shentsize: u16,
    /// The true number of program headers.
    pub phnum: u64,
    /// Whether `e_phnum` is `PN_XNUM` and the count came from section header 0.
    pub extended: bool,
    /// `e_shnum`, `e_shstrndx` as stored.
    pub sections: (u16, u16),
    /// The header's bytes: 64, or 52 in 32-bit files.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

impl Header {
    /// Reads the header at offset 0.
    ///
    /// # Errors
    /// [`Error::NotElf`] where the magic, class or byte order is not one.
    #[doc(alias = "Elf64_Ehdr")]
    pub fn read(source: &Source, problems: &mut Vec<Problem>) -> Result<Self, Error> {
        let mut raw = [0; 64];
        let have = source.read_at(0, &mut raw);
        if have < 16 || raw[..4] != *header::ELFMAG {
            let start: Vec<String> = raw[..have.min(4)].iter().map(|b| format!("{b:02x}")).collect();
            return Err(Error::NotElf(match have {
                0 => "it is empty".into(),
                _ => format!("it starts with {}, not 7f 45 4c 46", start.join(" ")),
            }));
        }
        let is_64 = match raw[header::EI_CLASS] {
            header::ELFCLASS32 => false,
            header::ELFCLASS64 => true,
            class => return Err(Error::NotElf(format!("EI_CLASS is {class}, neither 32 nor 64 bit"))),
        };
        let big_endian = match raw[header::EI_DATA] {
            header::ELFDATA2LSB => false,
            header::ELFDATA2MSB => true,
            data => return Err(Error::NotElf(format!("EI_DATA is {data}, neither byte order"))),
        };
        let size = if is_64 { header64::SIZEOF_EHDR } else { header32::SIZEOF_EHDR };
        if have < size {
            return Err(Error::NotElf(format!("header truncated: {have} of {size} bytes")));
        }
        let elf = if is_64 {
            header64::Header::parse(&raw).map(header::Header::from)
        } else {
            header32::Header::parse(&raw).map(header::Header::from)
        };
        let elf = elf.map_err(|e| Error::NotElf(e.to_string()))?;
        let mut this = Self {
            is_64,
            big_endian,
            machine: elf.e_machine,
            e_type: elf.e_type,
            entry: elf.e_entry,
            phoff: elf.e_phoff,
            shoff: elf.e_shoff,
            phentsize: elf.e_phentsize,
            shentsize: elf.e_shentsize,
            phnum: u64::from(elf.e_phnum),
            extended: elf.e_phnum == PN_XNUM,
            sections: (elf.e_shnum, elf.e_shstrndx),
            raw: raw[..size].to_vec(),
        };
        if this.extended {
            this.phnum = this.count_in_section_zero(source, problems);
        }
        Ok(this)
    }

    /// `PN_XNUM`: the count did not fit, `sh_info` of section header 0 has it.
    fn count_in_section_zero(&self, source: &Source, problems: &mut Vec<Problem>) -> u64 {
        let bytes = source.read_vec(self.shoff, self.section_size() as u64);
        let first =
            if self.shoff == 0 { None } else { SectionHeader::parse_from(&bytes, 0, 1, self.ctx()).ok() };
        match first.and_then(|s| s.into_iter().next()) {
            Some(section) => u64::from(section.sh_info),
            None => {
                problems.push(Problem::lie(
                    "e_phnum",
                    "PN_XNUM without a section header 0; counted to the file's end",
                ));
                source.len().saturating_sub(self.phoff) / self.segment_size() as u64
            }
        }
    }

    pub(crate) fn ctx(&self) -> Ctx {
        let container = if self.is_64 { Container::Big } else { Container::Little };
        Ctx::new(container, if self.big_endian { Endian::Big } else { Endian::Little })
    }

    /// Bytes of a program header by the class.
    pub fn segment_size(&self) -> usize {
        if self.is_64 { 56 } else { 32 }
    }

    /// Bytes of a section header by the class.
    pub fn section_size(&self) -> usize {
        if self.is_64 { 64 } else { 40 }
    }

    /// Whether registers, signals and stacks are decoded for this machine.
    pub fn is_x86_64(&self) -> bool {
        self.machine == header::EM_X86_64 && self.is_64 && !self.big_endian
    }

    /// The machine's name.
    pub fn machine_name(&self) -> &'static str {
        match self.machine {
            header::EM_X86_64 if !self.is_64 => "x32",
            header::EM_X86_64 => "x86-64",
            header::EM_386 => "x86, 32-bit",
            header::EM_AARCH64 => "aarch64",
            header::EM_ARM => "ARM, 32-bit",
            header::EM_RISCV => "RISC-V",
            header::EM_PPC64 => "POWER, 64-bit",
            header::EM_S390 => "s390",
            header::EM_MIPS => "MIPS",
            _ => "unknown machine",
        }
    }

    /// What kind of file `e_type` says it is.
    pub fn kind(&self) -> &'static str {
        match self.e_type {
            header::ET_REL => "an object file",
            header::ET_EXEC => "an executable",
            header::ET_DYN => "a shared object or position-independent executable",
            header::ET_CORE => "a core",
            _ => "of an unknown kind",
        }
    }
}

/// One program header.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[doc(alias = "Elf64_Phdr")]
pub struct Segment {
    /// `p_type`.
    pub kind: u32,
    /// `p_flags`: 4 read, 2 write, 1 execute.
    pub flags: u32,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// Where they were in memory.
    pub vaddr: u64,
    /// Bytes in the file; fewer than `memsz` where the kernel left pages out.
    pub filesz: u64,
    /// Bytes in memory.
    pub memsz: u64,
    /// `p_align`.
    pub align: u64,
}

impl Segment {
    /// A piece of memory.
    pub fn is_load(&self) -> bool {
        self.kind == PT_LOAD
    }

    /// Notes.
    pub fn is_note(&self) -> bool {
        self.kind == PT_NOTE
    }

    /// Whether code could run there.
    pub fn is_exec(&self) -> bool {
        self.flags & PF_X != 0
    }

    /// `rwx`, with `-` for what is not allowed.
    pub fn permissions(&self) -> String {
        [(PF_R, 'r'), (PF_W, 'w'), (PF_X, 'x')]
            .iter()
            .map(|(bit, c)| if self.flags & bit != 0 { *c } else { '-' })
            .collect()
    }
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

/// Reads the program headers, at most [`MAX_SEGMENTS`], unused (`PT_NULL`) ones left out.
pub fn read_segments(source: &Source, header: &Header, problems: &mut Vec<Problem>) -> Vec<Segment> {
    let size = header.segment_size() as u64;
    if header.phnum == 0 {
        return Vec::new();
    }
    if u64::from(header.phentsize) != size {
        problems.push(Problem::lie("e_phentsize", format!("is {}, read as {size}", header.phentsize)));
    }
    let there = source.len().saturating_sub(header.phoff) / size;
    let count = header.phnum.min(there).min(MAX_SEGMENTS);
    if there < header.phnum {
        let (have, want) = (there * size, header.phnum.saturating_mul(size));
        problems.push(Problem::Truncated { part: "program headers".into(), have, want });
    } else if count < header.phnum {
        problems.push(Problem::lie("e_phnum", format!("{} segments, the first {count} read", header.phnum)));
    }
    let mut segments = Vec::new();
    let mut done = 0;
    while done < count {
        let batch = (count - done).min(1024);
        let bytes = source.read_vec(header.phoff + done * size, batch * size);
        let whole = bytes.len() / size as usize;
        let Ok(parsed) = ProgramHeader::parse(&bytes, 0, whole, header.ctx()) else { break };
        segments.extend(parsed.iter().filter(|p| p.p_type != 0).map(|p| Segment {
            kind: p.p_type,
            flags: p.p_flags,
            offset: p.p_offset,
            vaddr: p.p_vaddr,
            filesz: p.p_filesz,
            memsz: p.p_memsz,
            align: p.p_align,
        }));
        done += batch;
        if (whole as u64) < batch {
            break;
        }
    }
    segments
}
