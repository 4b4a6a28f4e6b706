//! Stage 3: what the notes say: the process, its threads and registers, mappings, auxiliary vector.
//!
//! A thread is a run of notes that starts with its `NT_PRSTATUS`; the first thread is the one that died.
//! The layouts are the kernel's `struct elf_prstatus`, `elf_prpsinfo` (include/linux/elfcore.h) and
//! `user_regs_struct` (arch/x86/include/asm/user_64.h).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::Problem;
use crate::cause::Siginfo;
use crate::s1_header::Header;
use crate::s2_notes::{AUXV, FILE, FPREGSET, Note, Owner, PRPSINFO, PRSTATUS, SIGINFO, XSTATE};
use crate::source::{Ints, Source, text};

/// Names of `user_regs_struct`'s fields, in its order.
pub const REGISTER_NAMES: [&str; 27] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
];

/// Where in `user_regs_struct` each DWARF register is: rax rdx rcx rbx rsi rdi rbp rsp r8…r15 rip (psABI, figure 3.36).
pub const DWARF_ORDER: [usize; 17] = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];

/// General registers of an x86-64 thread, in [`REGISTER_NAMES`]' order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias = "user_regs_struct")]
pub struct Registers(pub [u64; 27]);

impl serde::Serialize for Registers {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(REGISTER_NAMES.iter().zip(self.0.iter().map(|v| format!("{v:#x}"))))
    }
}

impl Registers {
    /// The instruction pointer.
    pub fn rip(&self) -> u64 {
        self.0[16]
    }

    /// The stack pointer.
    pub fn rsp(&self) -> u64 {
        self.0[19]
    }

    /// A register by its name; `None` where there is none of that name.
    pub fn by_name(&self, name: &str) -> Option<u64> {
        REGISTER_NAMES.iter().position(|n| *n == name).map(|i| self.0[i])
    }
}

/// One thread.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Thread {
    /// Thread id (`pr_pid`), as its PID namespace's root saw it.
    pub tid: i32,
    /// `pr_cursig`: the signal being delivered.
    pub signal: u16,
    /// `None` for machines whose registers are not decoded, or where the note is cut short.
    pub registers: Option<Registers>,
    /// Its other notes: file offset and length of `NT_FPREGSET`, `NT_X86_XSTATE`.
    #[serde(skip)]
    pub notes: Vec<Note>,
}

impl Thread {
    /// The thread's note of `kind` and owner.
    pub fn note(&self, owner: &Owner, kind: u32) -> Option<&Note> {
        self.notes.iter().find(|n| n.owner == *owner && n.kind == kind)
    }

    /// Decodes its vector registers and extended state; `None` without `NT_X86_XSTATE` or `NT_FPREGSET`.
    pub fn vectors(&self, source: &Source) -> Option<crate::xstate::Xstate> {
        let note = self.note(&Owner::Linux, XSTATE).or_else(|| self.note(&Owner::Core, FPREGSET))?;
        crate::xstate::Xstate::parse(&note.desc(source, 64 << 10))
    }
}

/// `NT_PRPSINFO`: what `ps` would have shown.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[doc(alias = "elf_prpsinfo")]
pub struct Program {
    /// `pr_fname`: the name, cut to 15 characters.
    pub name: String,
    /// `pr_psargs`: the command line, cut to 79 characters.
    pub args: String,
    /// Process id, parent, group, session.
    pub ids: [i32; 4],
    /// User and group id.
    pub uid_gid: [u32; 2],
}

/// A line of `NT_FILE`: a mapped piece of a file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileMap {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// The file's path.
    pub path: PathBuf,
}

/// Everything that the notes say about the process.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Process {
    /// Threads; the first is the one that the signal killed.
    pub threads: Vec<Thread>,
    /// The process in words.
    pub program: Option<Program>,
    /// The signal; in cores by gdb every thread has one, the first counts.
    pub siginfo: Option<Siginfo>,
    /// The auxiliary vector: type and value.
    pub auxv: Vec<(u64, u64)>,
    /// Mapped files.
    pub files: Vec<FileMap>,
    /// The unit of `NT_FILE`'s offsets in bytes: the kernel counts pages, gdb's gcore single bytes.
    pub file_unit: u64,
}

impl Process {
    /// Decodes the notes. Reads `NT_PRSTATUS` of each thread and the process-wide ones, not the vector registers.
    pub fn read(source: &Source, header: &Header, notes: &[Note], problems: &mut Vec<Problem>) -> Self {
        let mut this = Self::default();
        for note in notes {
            if note.is_core(PRSTATUS) {
                let desc = note.desc(source, 1024);
                match thread(header, Ints { bytes: &desc, big_endian: header.big_endian }) {
                    Some(thread) => this.threads.push(thread),
                    None => problems.push(Problem::lie(
                        "NT_PRSTATUS",
                        format!("{} bytes are too few: no thread", note.len),
                    )),
                }
                continue;
            }
            if let Some(thread) = this.threads.last_mut()
                && (note.is_core(FPREGSET) || note.owner == Owner::Linux)
            {
                thread.notes.push(note.clone());
                continue;
            }
            if note.owner != Owner::Core {
                continue;
            }
            let bytes = match note.kind {
                PRPSINFO | SIGINFO => note.desc(source, 1024),
                AUXV => note.desc(source, 64 << 10),
                FILE => note.desc(source, 64 << 20),
                _ => continue,
            };
            let desc = Ints { bytes: &bytes, big_endian: header.big_endian };
            match note.kind {
                PRPSINFO => this.program = program(header, desc),
                SIGINFO if this.siginfo.is_none() => this.siginfo = Siginfo::parse(desc, header.is_64),
                AUXV => this.auxv = auxv(header, desc),
                FILE => (this.files, this.file_unit) = files(header, desc, problems),
                _ => {}
            }
        }
        if this.threads.is_empty() {
            problems.push(Problem::lie("notes", "no NT_PRSTATUS: no thread to show"));
        }
        this
    }

    /// An entry of the auxiliary vector; `AT_…` numbers are in getauxval(3).
    pub fn auxv(&self, kind: u64) -> Option<u64> {
        self.auxv.iter().find(|(k, _)| *k == kind).map(|(_, v)| *v)
    }

    /// The mapped file at `address`.
    pub fn file_at(&self, address: u64) -> Option<&FileMap> {
        // NT_FILE is sorted by address in every core that Linux writes; a core that is not loses names, no more.
        let i = self.files.partition_point(|f| f.start <= address).checked_sub(1)?;
        self.files.get(i).filter(|f| address < f.end)
    }
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

/// `pr_pid` comes after two longs, the registers after four ids and four times.
fn thread(header: &Header, desc: Ints<'_>) -> Option<Thread> {
    let tid = desc.i32(if header.is_64 { 32 } else { 24 })?;
    let mut registers = None;
    if header.is_x86_64() {
        let mut values = [0; 27];
        let all = values.iter_mut().enumerate().all(|(i, v)| desc.u64(112 + 8 * i).map(|r| *v = r).is_some());
        registers = all.then_some(Registers(values));
    }
    Some(Thread { tid, signal: desc.u16(12)?, registers, notes: Vec::new() })
}

fn program(header: &Header, desc: Ints<'_>) -> Option<Program> {
    // 32-bit x86 and ARM have 16-bit user ids; other 32-bit machines differ, and are left at 0.
    let (ids, name) = if header.is_64 { (24, 40) } else { (12, 28) };
    let id = |i: usize| desc.i32(ids + 4 * i).unwrap_or(0);
    Some(Program {
        name: text(desc.bytes.get(name..name + 16)?),
        args: text(desc.bytes.get(name + 16..)?).trim_end().to_owned(),
        ids: [id(0), id(1), id(2), id(3)],
        uid_gid: if header.is_64 { [desc.u32(16)?, desc.u32(20)?] } else { [0, 0] },
    })
}

fn auxv(header: &Header, desc: Ints<'_>) -> Vec<(u64, u64)> {
    let word = word(header);
    (0..desc.bytes.len() / (2 * word))
        .map_while(|i| Some((long(header, desc, 2 * i * word)?, long(header, desc, (2 * i + 1) * word)?)))
        .take_while(|(kind, _)| *kind != 0)
        .collect()
}

/// `count, unit, {start, end, offset} × count`, then `count` names that end in NUL.
fn files(header: &Header, desc: Ints<'_>, problems: &mut Vec<Problem>) -> (Vec<FileMap>, u64) {
    let word = word(header);
    let (count, unit) = (long(header, desc, 0).unwrap_or(0), long(header, desc, word).unwrap_or(1));
    let fits = (desc.bytes.len() as u64).saturating_sub(2 * word as u64) / (3 * word as u64 + 1);
    if count > fits {
        problems.push(Problem::lie("NT_FILE", format!("{count} mappings where {fits} fit")));
    }
    let read = count.min(fits) as usize;
    let table = 2 * word;
    // The names start after the table that the count announces; where that lies, there are none.
    let names_at = usize::try_from(count).ok().and_then(|c| c.checked_mul(3 * word)?.checked_add(table));
    let names = names_at.and_then(|at| desc.bytes.get(at..)).unwrap_or_default();
    let mut names = names.split(|b| *b == 0);
    let maps = (0..read)
        .map_while(|i| {
            let at = |field| long(header, desc, table + (3 * i + field) * word);
            Some(FileMap {
                start: at(0)?,
                end: at(1)?,
                offset: at(2)?.wrapping_mul(unit),
                path: PathBuf::from(OsString::from_vec(names.next().unwrap_or_default().to_vec())),
            })
        })
        .collect();
    (maps, unit)
}

fn word(header: &Header) -> usize {
    if header.is_64 { 8 } else { 4 }
}

fn long(header: &Header, desc: Ints<'_>, at: usize) -> Option<u64> {
    if header.is_64 { desc.u64(at) } else { desc.u32(at).map(u64::from) }
}

/// The name of an `AT_…` type of the auxiliary vector, and what its value is.
pub fn auxv_name(kind: u64) -> (&'static str, &'static str) {
    match kind {
        3 => ("AT_PHDR", "address of the program's own program headers"),
        4 => ("AT_PHENT", "bytes of one"),
        5 => ("AT_PHNUM", "how many"),
        6 => ("AT_PAGESZ", "page size"),
        7 => ("AT_BASE", "address of the dynamic linker"),
        8 => ("AT_FLAGS", "flags"),
        9 => ("AT_ENTRY", "where the program starts"),
        11 => ("AT_UID", "user id"),
        12 => ("AT_EUID", "effective user id"),
        13 => ("AT_GID", "group id"),
        14 => ("AT_EGID", "effective group id"),
        15 => ("AT_PLATFORM", "address of the platform's name"),
        16 => ("AT_HWCAP", "CPU features"),
        17 => ("AT_CLKTCK", "clock ticks a second"),
        23 => ("AT_SECURE", "set-user-id or capabilities gained"),
        25 => ("AT_RANDOM", "address of 16 random bytes"),
        26 => ("AT_HWCAP2", "more CPU features"),
        27 => ("AT_RSEQ_FEATURE_SIZE", "bytes of struct rseq"),
        28 => ("AT_RSEQ_ALIGN", "alignment of struct rseq"),
        29 => ("AT_HWCAP3", "more CPU features"),
        31 => ("AT_EXECFN", "address of the path given to execve"),
        33 => ("AT_SYSINFO_EHDR", "address of the vDSO"),
        51 => ("AT_MINSIGSTKSZ", "smallest signal stack"),
        _ => ("AT_?", "unknown"),
    }
}
