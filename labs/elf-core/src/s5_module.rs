//! Stage 5: the files that were mapped: is it the same build, where was it loaded, which sections has it.
//!
//! A path is no proof: the library may have been upgraded since. The build-id, a hash that the linker puts into
//! a note, is in the first page, and the kernel dumps the first page of every mapped ELF file for this.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use goblin::elf::section_header::{SHF_COMPRESSED, SHT_NOBITS, SectionHeader};

use crate::Error;
use crate::s1_header::{Header, Segment, read_segments};
use crate::s2_notes::{self, BUILD_ID, Owner};
use crate::s3_process::FileMap;
use crate::s4_memory::Memory;
use crate::source::Source;

/// A section is read whole; one above this many bytes is not.
const MAX_SECTION: u64 = 1 << 30;

/// An executable or library.
#[derive(Debug)]
pub struct Elf {
    /// Where it was found.
    pub path: PathBuf,
    /// Its bytes.
    pub source: Source,
    /// Its header.
    pub header: Header,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Its `NT_GNU_BUILD_ID`.
    pub build_id: Option<Vec<u8>>,
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    name: Vec<u8>,
    address: u64,
    offset: u64,
    /// 0 where the section has no bytes in the file.
    size: u64,
    compressed: bool,
}

impl Elf {
    /// Opens and reads the headers.
    ///
    /// # Errors
    /// Not readable, or not ELF.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_source(Source::open(path)?, path)
    }

    /// Reads the headers.
    ///
    /// # Errors
    /// Not ELF.
    pub fn from_source(source: Source, path: &Path) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let header = Header::read(&source, &mut problems)?;
        let segments = read_segments(&source, &header, &mut problems);
        let build_id = build_id(&source, &header, &segments);
        let sections = sections(&source, &header);
        Ok(Self { path: path.to_owned(), source, header, segments, build_id, sections })
    }

    /// A section's address and bytes; `None` if it is not there, or compressed.
    pub fn section(&self, name: &str) -> Option<(u64, Vec<u8>)> {
        let s = self.sections.iter().find(|s| s.name == name.as_bytes())?;
        (!s.compressed && s.size > 0)
            .then(|| (s.address, self.source.read_vec(s.offset, s.size.min(MAX_SECTION))))
    }

    /// A section's address.
    pub fn section_address(&self, name: &str) -> Option<u64> {
        self.sections.iter().find(|s| s.name == name.as_bytes()).map(|s| s.address)
    }

    /// Whether there are line tables that can be read.
    pub fn has_dwarf(&self) -> bool {
        self.sections.iter().any(|s| s.name == b".debug_info" && !s.compressed && s.size > 0)
    }

    /// Whether its line tables are compressed (`SHF_COMPRESSED`, `gcc -gz`): such are not read.
    pub fn has_compressed_dwarf(&self) -> bool {
        self.sections.iter().any(|s| s.compressed && s.name.starts_with(b".debug_"))
    }

    /// The address that the first loaded segment was linked for, rounded down to its page.
    pub fn first_load_address(&self) -> u64 {
        self.segments.iter().find(|s| s.is_load()).map_or(0, |s| s.vaddr & !0xfff)
    }

    /// What must be added to the file's addresses: found by the mapping that holds a loaded segment's first page.
    pub fn bias(&self, maps: &[FileMap]) -> Option<u64> {
        self.segments.iter().filter(|s| s.is_load()).find_map(|s| {
            let map = maps.iter().find(|m| m.offset == s.offset & !0xfff)?;
            Some(map.start.wrapping_sub(s.vaddr & !0xfff))
        })
    }

    /// The file with the debug information that was split off this one: by build-id, then by `.gnu_debuglink`.
    pub fn debug_file(&self, sysroot: Option<&Path>) -> Option<Self> {
        let root = |p: &Path| under(sysroot, p);
        let id = self.build_id.as_deref().unwrap_or_default();
        let mut candidates = Vec::new();
        if let [first, rest @ ..] = id
            && !rest.is_empty()
        {
            let rest = hex(rest);
            candidates.push(root(Path::new(&format!("/usr/lib/debug/.build-id/{first:02x}/{rest}.debug"))));
        }
        if let (Some((_, link)), Some(dir)) = (self.section(".gnu_debuglink"), self.path.parent()) {
            let name = link.split(|b| *b == 0).next().unwrap_or_default();
            let name = Path::new(std::ffi::OsStr::from_bytes(name)).file_name()?;
            candidates.push(dir.join(name));
            candidates.push(dir.join(".debug").join(name));
            candidates.push(root(
                &Path::new("/usr/lib/debug").join(dir.strip_prefix("/").unwrap_or(dir)).join(name),
            ));
        }
        let same = |e: &Self| e.build_id == self.build_id && e.path != self.path;
        candidates.iter().filter_map(|p| Self::open(p).ok()).find(same)
    }
}

/// Hexadecimal, without separators.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Looks for the file that was mapped as `path`.
///
/// # Errors
/// Why it cannot be used: gone, not ELF, or another build.
pub fn find_file(
    exe: Option<&Path>,
    path: &Path,
    sysroot: Option<&Path>,
    build_id: Option<&[u8]>,
) -> Result<Elf, String> {
    // The kernel appends " (deleted)" to the name of a file that is gone; a new one of the name may be the same build.
    let bytes = path.as_os_str().as_bytes();
    let deleted = bytes.strip_suffix(b" (deleted)");
    let plain = Path::new(std::ffi::OsStr::from_bytes(deleted.unwrap_or(bytes)));
    if exe.is_none() && !plain.is_absolute() {
        return Err("no file, only a name".into());
    }
    let place = exe.map_or_else(|| under(sysroot, plain), Path::to_owned);
    let elf = Elf::open(&place).map_err(|e| match deleted {
        Some(_) => format!("deleted while it ran; {e}"),
        None => e.to_string(),
    })?;
    match (build_id, elf.build_id.as_deref()) {
        (Some(want), Some(have)) if want == have => Ok(elf),
        (Some(want), have) => Err(format!(
            "another build: build-id {} in the core, {} in {}",
            hex(want),
            have.map_or("none".into(), hex),
            place.display()
        )),
        // Without an id in memory, a file that was replaced cannot be told from the right one.
        (None, _) if deleted.is_some() => {
            Err("deleted while it ran, and the core has no build-id of it".into())
        }
        (None, _) => Ok(elf),
    }
}

fn under(sysroot: Option<&Path>, path: &Path) -> PathBuf {
    match sysroot {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

/// The build-id of the ELF file whose first page is at `base` in memory.
pub fn build_id_in_memory(memory: &Memory, base: u64) -> Option<Vec<u8>> {
    let mut page = vec![0; 4096];
    let n = memory.read(base, &mut page);
    page.truncate(n);
    let source = Source::bytes(page);
    let mut ignored = Vec::new();
    let header = Header::read(&source, &mut ignored).ok()?;
    let segments = read_segments(&source, &header, &mut ignored);
    build_id(&source, &header, &segments)
}

fn build_id(source: &Source, header: &Header, segments: &[Segment]) -> Option<Vec<u8>> {
    let (mut notes, mut ignored) = (Vec::new(), Vec::new());
    for s in segments.iter().filter(|s| s.is_note()).take(16) {
        let len = s.filesz.min(source.len().saturating_sub(s.offset)).min(64 << 10);
        s2_notes::walk(source, header.big_endian, s.offset, len, s.align, &mut notes, &mut ignored);
    }
    let note = notes.iter().find(|n| n.owner == Owner::Gnu && n.kind == BUILD_ID)?;
    Some(note.desc(source, 64)).filter(|id| !id.is_empty())
}

/// Reads the section headers and their names. A file without them, or with nonsense, has none.
fn sections(source: &Source, header: &Header) -> Vec<Section> {
    let size = header.section_size() as u64;
    let (count, names) = header.sections;
    if header.shoff == 0 || count == 0 {
        return Vec::new();
    }
    let bytes = source.read_vec(header.shoff, size * u64::from(count));
    let whole = bytes.len() / size as usize;
    let Ok(parsed) = SectionHeader::parse_from(&bytes, 0, whole.max(1), header.ctx()) else {
        return Vec::new();
    };
    let strings = parsed
        .get(usize::from(names))
        .map_or_else(Vec::new, |s| source.read_vec(s.sh_offset, s.sh_size.min(1 << 20)));
    let section = |s: &SectionHeader| Section {
        name: strings.get(s.sh_name..).and_then(|n| n.split(|b| *b == 0).next()).unwrap_or_default().to_vec(),
        address: s.sh_addr,
        offset: s.sh_offset,
        size: if s.sh_type == SHT_NOBITS { 0 } else { s.sh_size },
        compressed: s.sh_flags & u64::from(SHF_COMPRESSED) != 0,
    };
    parsed.iter().map(section).collect()
}
