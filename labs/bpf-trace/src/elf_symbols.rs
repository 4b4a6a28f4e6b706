//! The functions of a program or a library, by address: what its ELF file says of itself.
//!
//! Only the tables that are needed are read, however large the file is. A file may be anything: what does not fit is
//! taken as absent.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use goblin::container::{Container, Ctx};
use goblin::elf::header::ELFMAG;
use goblin::elf::program_header::{PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader};
use goblin::elf::section_header::{SHN_UNDEF, SHT_DYNSYM, SHT_NOBITS, SHT_SYMTAB, SectionHeader};
use goblin::elf::sym::{STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, Symtab};
use goblin::elf::{Elf, Header};

/// No table of symbols is larger, or it is none: 1 GiB.
const MOST: u64 = 1 << 30;

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Function {
    start: u64,
    /// 0: not said, as of functions in assembly.
    size: u64,
    name: String,
}

/// The functions of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ElfSymbols {
    /// By start; of several names for one, the first.
    functions: Vec<Function>,
    /// Where functions begin, with or without a name: what is written down for the unwinding of exceptions.
    starts: Vec<u64>,
    /// Parts of the file that are put into memory: offset, length, address as the file counts.
    loads: Vec<(u64, u64, u64)>,
    /// The build id, in hexadecimal.
    pub build_id: Option<String>,
    /// Whether only the names are there that other modules can link to.
    pub stripped: bool,
}

/// Where bytes come from: a file, or memory.
pub trait Source {
    /// Fills `to` from `offset` on, or says that it cannot.
    fn read(&self, offset: u64, to: &mut [u8]) -> Option<()>;
    /// Bytes in all.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for File {
    fn read(&self, offset: u64, to: &mut [u8]) -> Option<()> {
        self.read_exact_at(to, offset).ok()
    }
    fn len(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }
}

impl Source for [u8] {
    fn read(&self, offset: u64, to: &mut [u8]) -> Option<()> {
        let start = usize::try_from(offset).ok()?;
        to.copy_from_slice(self.get(start..start.checked_add(to.len())?)?);
        Some(())
    }
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }
}

fn bytes<S: Source + ?Sized>(source: &S, offset: u64, size: u64) -> Option<Vec<u8>> {
    if size > MOST.min(source.len()) {
        return None;
    }
    let mut bytes = vec![0; size as usize];
    source.read(offset, &mut bytes)?;
    Some(bytes)
}

impl ElfSymbols {
    /// Reads the tables; `None` for what is no ELF file.
    pub fn read<S: Source + ?Sized>(source: &S) -> Option<Self> {
        let head = bytes(source, 0, source.len().min(64))?;
        if !head.starts_with(ELFMAG) {
            return None;
        }
        let header = Elf::parse_header(&head).ok()?;
        let ctx = Ctx::new(header.container().ok()?, header.endianness().ok()?);
        let mut this = Self { stripped: true, ..Self::default() };
        let programs = programs(source, &header, ctx).unwrap_or_default();
        let loads = programs.iter().filter(|p| p.p_type == PT_LOAD);
        this.loads = loads.map(|p| (p.p_offset, p.p_filesz, p.p_vaddr)).collect();
        let frames = programs.iter().find(|p| p.p_type == PT_GNU_EH_FRAME);
        this.starts = frames.and_then(|p| starts(source, p)).unwrap_or_default();
        let sections = sections(source, &header, ctx).unwrap_or_default();
        this.build_id = sections.iter().find_map(|s| build_id(source, s, &header));
        // The full table holds what the other does, and more.
        for kind in [SHT_SYMTAB, SHT_DYNSYM] {
            let functions = sections.iter().find(|s| s.sh_type == kind).and_then(|s| {
                let names = sections.get(s.sh_link as usize)?;
                functions(source, s, names, ctx)
            });
            if let Some(functions) = functions.filter(|f| !f.is_empty()) {
                this.functions = functions;
                this.stripped = kind == SHT_DYNSYM;
                break;
            }
        }
        Some(this)
    }

    /// The address, as the file counts, of the byte at `offset` in it.
    pub fn address(&self, offset: u64) -> Option<u64> {
        let (from, _, address) =
            self.loads.iter().find(|(from, size, _)| offset >= *from && offset - from < *size)?;
        Some(address.wrapping_add(offset - from))
    }

    /// The name of the function at `address`.
    pub fn function(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|f| f.start <= address);
        let f = self.functions.get(after.checked_sub(1)?)?;
        // A function without a size goes on to the next one.
        (f.size == 0 || address - f.start < f.size).then_some(f.name.as_str())
    }

    /// Where the function at `address` begins, whose name is not known; the address itself if that is not known either.
    pub fn start(&self, address: u64) -> u64 {
        let after = self.starts.partition_point(|start| *start <= address);
        after.checked_sub(1).map_or(address, |i| self.starts[i])
    }

    /// Takes the functions of `other`, the same file with its names: what debuggers load.
    pub fn take_names(&mut self, other: Self) {
        if !other.stripped {
            self.functions = other.functions;
            self.stripped = false;
        }
    }
}

impl Function {
    /// Names that a reader knows come before those that the compiler made.
    fn rank(&self) -> (u64, bool, bool, &str) {
        (self.start, self.size == 0, self.name.starts_with('_'), &self.name)
    }
}

fn programs<S: Source + ?Sized>(source: &S, header: &Header, ctx: Ctx) -> Option<Vec<ProgramHeader>> {
    let count = usize::from(header.e_phnum);
    let table = bytes(source, header.e_phoff, (count * ProgramHeader::size(ctx)) as u64)?;
    ProgramHeader::parse(&table, 0, count, ctx).ok()
}

/// `.eh_frame_hdr`, as every linker makes it: a sorted table of where functions begin, relative to itself (Linux
/// Standard Base, "Exception Frames"). It stays when a file is stripped.
fn starts<S: Source + ?Sized>(source: &S, header: &ProgramHeader) -> Option<Vec<u64>> {
    const PC_RELATIVE_4: u8 = 0x1b;
    const UNSIGNED_4: u8 = 0x03;
    const TABLE_RELATIVE_4: u8 = 0x3b;
    let table = bytes(source, header.p_offset, header.p_filesz)?;
    if table.get(..4)? != [1, PC_RELATIVE_4, UNSIGNED_4, TABLE_RELATIVE_4] {
        return None;
    }
    let (entries, _) = table.get(12..)?.as_chunks::<8>();
    let start = |entry: &[u8; 8]| {
        let relative = i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        header.p_vaddr.wrapping_add_signed(relative.into())
    };
    let starts: Vec<u64> = entries.iter().map(start).collect();
    starts.is_sorted().then_some(starts)
}

fn sections<S: Source + ?Sized>(source: &S, header: &Header, ctx: Ctx) -> Option<Vec<SectionHeader>> {
    let count = usize::from(header.e_shnum);
    let table = bytes(source, header.e_shoff, (count * SectionHeader::size(ctx)) as u64)?;
    if count == 0 { None } else { SectionHeader::parse_from(&table, 0, count, ctx).ok() }
}

/// `.note.gnu.build-id`: three words, `GNU\0`, the id.
fn build_id<S: Source + ?Sized>(source: &S, section: &SectionHeader, header: &Header) -> Option<String> {
    if section.sh_type != goblin::elf::section_header::SHT_NOTE || section.sh_size > 4096 {
        return None;
    }
    let note = bytes(source, section.sh_offset, section.sh_size)?;
    let little = header.endianness().ok()? == goblin::container::Endian::Little;
    let word = |at: usize| -> Option<u32> {
        let four: [u8; 4] = note.get(at..at + 4)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    };
    let (name, size, kind) = (word(0)?, word(4)?, word(8)?);
    if (name, kind) != (4, goblin::elf::note::NT_GNU_BUILD_ID) || note.get(12..16)? != b"GNU\0" {
        return None;
    }
    let id = note.get(16..16_usize.checked_add(size as usize)?)?;
    Some(id.iter().map(|b| format!("{b:02x}")).collect())
}

fn functions<S: Source + ?Sized>(
    source: &S,
    section: &SectionHeader,
    names: &SectionHeader,
    ctx: Ctx,
) -> Option<Vec<Function>> {
    // In the debug files that distributions ship, sections without content keep their place in the table.
    if section.sh_type == SHT_NOBITS || names.sh_type == SHT_NOBITS {
        return None;
    }
    let table = bytes(source, section.sh_offset, section.sh_size)?;
    let names = bytes(source, names.sh_offset, names.sh_size)?;
    let entry = if matches!(ctx.container, Container::Big) { 24 } else { 16 };
    let symbols = Symtab::parse(&table, 0, table.len() / entry, ctx).ok()?;
    let mut functions = Vec::new();
    for symbol in symbols.iter() {
        let code = matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC)
            || symbol.st_type() == STT_NOTYPE && symbol.st_value != 0;
        if !code || symbol.st_shndx == SHN_UNDEF as usize || symbol.st_value == 0 {
            continue;
        }
        let Some(name) = names.get(symbol.st_name..) else { continue };
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        if end == 0 {
            continue;
        }
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        functions.push(Function { start: symbol.st_value, size: symbol.st_size, name });
    }
    functions.sort_by(|a, b| a.rank().cmp(&b.rank()));
    functions.dedup_by_key(|f| f.start);
    Some(functions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn names_are_those_that_nm_finds() {
        let path = std::env::current_exe().unwrap();
        let Ok(nm) = Command::new("nm").arg("--print-size").arg(&path).output() else {
            kit::skip!("nm", "binutils are not installed");
        };
        let symbols = ElfSymbols::read(&File::open(&path).unwrap()).unwrap();
        assert!(!symbols.stripped);
        let mut held = 0;
        for line in String::from_utf8(nm.stdout).unwrap().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [start, size, "t" | "T", _] = words.as_slice() else { continue };
            let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
            let (start, size) = (hex(start), hex(size));
            if size == 0 {
                continue;
            }
            // Several names may be one function's: the same one at its begin and at its end.
            let name = symbols.function(start).unwrap_or_else(|| panic!("{line}"));
            assert!(!name.is_empty());
            assert!(symbols.function(start + size - 1).is_some(), "{line}");
            assert!(symbols.start(start) <= start, "{line}");
            held += 1;
        }
        assert!(held > 1000, "{held}");
    }

    fn vdso() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|l| l.ends_with("[vdso]")).unwrap();
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let hex = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (hex(start), hex(end));
        let mut image = vec![0; (end - start) as usize];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut image, start).unwrap();
        image
    }

    proptest! {
        /// A file may be anything.
        #[test]
        fn a_damaged_file_harms_nobody(
            damage in prop::collection::vec((0_usize..8192, any::<u8>()), 0..40),
            header in prop::collection::vec((0_usize..64, any::<u8>()), 0..4),
            cut in 0_usize..8192,
            address in any::<u64>(),
        ) {
            static VDSO: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut image = VDSO.get_or_init(vdso).clone();
            for (at, byte) in damage.into_iter().chain(header) {
                if let Some(b) = image.get_mut(at) {
                    *b = byte;
                }
            }
            image.truncate(image.len() - cut.min(image.len()));
            if let Some(symbols) = ElfSymbols::read(image.as_slice()) {
                let _ = (symbols.function(address), symbols.start(address), symbols.address(address));
            }
        }
    }
}
