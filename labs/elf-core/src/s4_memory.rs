//! Stage 4: memory by address.
//!
//! Most of a process is mapped files, which the kernel leaves out (core(5), `coredump_filter`): the segment is there
//! with a `p_filesz` below its `p_memsz`. Those bytes come from the file, if it is still the same build.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::Problem;
use crate::s1_header::Segment;
use crate::s3_process::FileMap;
use crate::s5_module::{Elf, build_id_in_memory, find_file};
use crate::source::Source;

/// Where mapped files may be looked for.
#[derive(Debug, Clone, Default)]
pub struct Lookup {
    /// Looked for below this directory instead of `/`.
    pub sysroot: Option<PathBuf>,
    /// Stands in for the program's own file.
    pub exe: Option<PathBuf>,
    /// Open no file at all: for cores that nobody trusts.
    pub none: bool,
}

/// What a byte of memory is backed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// The core, at this file offset.
    Core(u64),
    /// A mapped file's build that was found, at this offset.
    File(PathBuf, u64),
    /// Mapped, and its bytes are nowhere.
    Missing(String),
    /// Not mapped.
    Unmapped,
}

/// A mapped file that was found, or why not.
#[derive(Debug)]
pub struct Module {
    /// The path in the core.
    pub path: PathBuf,
    /// Lowest and highest address of its mappings.
    pub range: (u64, u64),
    /// The file; `Err` says why there is none.
    pub elf: Result<Rc<Elf>, String>,
    /// The build-id that the core holds for it.
    pub build_id: Option<Vec<u8>>,
    /// What must be added to the file's addresses to get memory addresses.
    pub bias: u64,
}

/// The memory of the dead process.
#[derive(Debug)]
pub struct Memory {
    source: Rc<Source>,
    /// Sorted by address, disjoint.
    segments: Vec<Segment>,
    files: Vec<FileMap>,
    /// By path, in order of address.
    pub modules: Vec<Module>,
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

impl Memory {
    /// Sorts the segments; where two overlap, the first one of the file's keeps its place.
    pub fn new(
        source: Rc<Source>,
        segments: &[Segment],
        files: &[FileMap],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut sorted: Vec<Segment> =
            segments.iter().filter(|s| s.is_load() && s.memsz > 0).cloned().collect();
        sorted.sort_by_key(|s| s.vaddr);
        let mut disjoint: Vec<Segment> = Vec::with_capacity(sorted.len());
        let (mut end, mut cut, mut beyond) = (0_u64, 0, 0_u64);
        let mut overlaps = 0;
        for mut s in sorted {
            s.filesz = s.filesz.min(s.memsz);
            let have = source.len().saturating_sub(s.offset).min(s.filesz);
            if have < s.filesz {
                (cut, beyond) = (cut + 1, beyond.max(s.offset.saturating_add(s.filesz)));
                s.filesz = have;
            }
            if s.vaddr < end {
                overlaps += 1;
                let skip = end - s.vaddr;
                if skip >= s.memsz {
                    continue;
                }
                s.vaddr = end;
                s.memsz -= skip;
                s.offset = s.offset.saturating_add(skip);
                s.filesz = s.filesz.saturating_sub(skip);
            }
            s.memsz = s.memsz.min(u64::MAX - s.vaddr);
            s.filesz = s.filesz.min(s.memsz);
            end = s.vaddr + s.memsz;
            disjoint.push(s);
        }
        if cut > 0 {
            problems.push(Problem::Truncated {
                part: format!("memory, {cut} segments"),
                have: source.len(),
                want: beyond,
            });
        }
        if overlaps > 0 {
            problems
                .push(Problem::lie("segments", format!("{overlaps} overlap another: the lower one counts")));
        }
        Self { source, segments: disjoint, files: files.to_vec(), modules: Vec::new() }
    }

    /// Looks for the mapped files, by path, and checks each against the build-id in memory.
    pub fn find_modules(&mut self, lookup: &Lookup, at_phdr: Option<u64>) {
        let mut order: Vec<(PathBuf, Vec<FileMap>)> = Vec::new();
        let mut index: HashMap<PathBuf, usize> = HashMap::new();
        for map in &self.files {
            let i = *index.entry(map.path.clone()).or_insert_with(|| {
                order.push((map.path.clone(), Vec::new()));
                order.len() - 1
            });
            order[i].1.push(map.clone());
        }
        for (path, maps) in order {
            let range = (maps[0].start, maps.iter().map(|m| m.end).max().unwrap_or(0));
            // Data files are mapped too; what has no ELF header in memory is one, or a core without that page.
            let base = maps.iter().find(|m| m.offset == 0).map(|m| m.start);
            let build_id = base.and_then(|b| build_id_in_memory(self, b));
            let is_exe = at_phdr.is_some_and(|a| maps.iter().any(|m| (m.start..m.end).contains(&a)));
            let elf = if lookup.none {
                Err("no file is opened for this core".to_owned())
            } else {
                let exe = lookup.exe.as_deref().filter(|_| is_exe);
                find_file(exe, &path, lookup.sysroot.as_deref(), build_id.as_deref()).map(Rc::new)
            };
            let bias = elf.as_ref().ok().and_then(|e| e.bias(&maps)).unwrap_or(base.unwrap_or(range.0));
            self.modules.push(Module { path, range, elf, build_id, bias });
        }
    }

    /// Adds the vDSO: a whole ELF file that exists only in memory, at `AT_SYSINFO_EHDR`.
    pub fn add_vdso(&mut self, base: u64) {
        let Some(s) = self.segment(base).cloned() else { return };
        // Two or three pages; a core that says more does not get more.
        let mut bytes = vec![0; (s.vaddr + s.memsz - base).min(1 << 20) as usize];
        let n = self.read(base, &mut bytes);
        bytes.truncate(n);
        if let Ok(elf) = Elf::from_source(Source::bytes(bytes), "[vdso]".as_ref()) {
            let range = (base, s.vaddr + s.memsz);
            let bias = base.wrapping_sub(elf.first_load_address());
            let (path, build_id) = (PathBuf::from("[vdso]"), elf.build_id.clone());
            self.modules.push(Module { path, range, elf: Ok(Rc::new(elf)), build_id, bias });
        }
    }

    /// The segments, by address.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The core's bytes.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The segment at `address`.
    pub fn segment(&self, address: u64) -> Option<&Segment> {
        let i = self.segments.partition_point(|s| s.vaddr <= address).checked_sub(1)?;
        self.segments.get(i).filter(|s| address - s.vaddr < s.memsz)
    }

    /// Whether code could run at `address`.
    pub fn is_code(&self, address: u64) -> bool {
        self.segment(address).is_some_and(Segment::is_exec)
    }

    /// The module at `address`.
    pub fn module(&self, address: u64) -> Option<&Module> {
        let path = match self.file_at(address) {
            Some(map) => &map.path,
            None => Path::new("[vdso]"),
        };
        self.modules.iter().find(|m| m.path == path && (m.range.0..m.range.1).contains(&address))
    }

    fn file_at(&self, address: u64) -> Option<&FileMap> {
        let i = self.files.partition_point(|f| f.start <= address).checked_sub(1)?;
        self.files.get(i).filter(|f| address < f.end)
    }

    /// What `address` is backed by.
    pub fn backing(&self, address: u64) -> Backing {
        let Some(s) = self.segment(address) else { return Backing::Unmapped };
        let within = address - s.vaddr;
        if within < s.filesz {
            return Backing::Core(s.offset + within);
        }
        let Some(map) = self.file_at(address) else { return Backing::Missing("not in the core".into()) };
        match self.modules.iter().find(|m| m.path == map.path).map(|m| &m.elf) {
            Some(Ok(elf)) => Backing::File(elf.path.clone(), map.offset.saturating_add(address - map.start)),
            Some(Err(why)) => Backing::Missing(why.clone()),
            None => Backing::Missing("not in the core; its file was not looked for".into()),
        }
    }

    /// Reads up to `buf.len()` bytes at `address`; returns how many there are in one piece.
    pub fn read(&self, address: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let Some(at) = address.checked_add(done as u64) else { break };
            let Some(s) = self.segment(at) else { break };
            let within = at - s.vaddr;
            let want = buf.len() - done;
            let n = if within < s.filesz {
                let want = want.min(usize::try_from(s.filesz - within).unwrap_or(usize::MAX));
                self.source.read_at(s.offset + within, &mut buf[done..done + want])
            } else {
                let want = want.min(usize::try_from(s.memsz - within).unwrap_or(usize::MAX));
                self.read_file(at, &mut buf[done..done + want])
            };
            if n == 0 {
                break;
            }
            done += n;
        }
        done
    }

    /// Only read-only mappings have their file's bytes; a written page that was left out is lost.
    fn read_file(&self, address: u64, buf: &mut [u8]) -> usize {
        let (Some(map), Some(module)) = (self.file_at(address), self.module(address)) else { return 0 };
        let Ok(elf) = &module.elf else { return 0 };
        let want = buf.len().min(usize::try_from(map.end - address).unwrap_or(usize::MAX));
        elf.source.read_at(map.offset.saturating_add(address - map.start), &mut buf[..want])
    }

    /// A 64-bit word at `address`.
    pub fn u64(&self, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        (self.read(address, &mut word) == 8).then(|| u64::from_le_bytes(word))
    }

    /// A string that ends in NUL, at most `limit` bytes.
    pub fn string(&self, address: u64, limit: usize) -> Option<String> {
        let mut bytes = vec![0; limit];
        let n = self.read(address, &mut bytes);
        bytes.truncate(n);
        let end = bytes.iter().position(|b| *b == 0)?;
        Some(crate::source::text(&bytes[..end]))
    }

    /// Every place where `needle` is in memory that the core holds, at most `limit`.
    pub fn search(&self, needle: &[u8], limit: usize) -> Vec<u64> {
        let mut found = Vec::new();
        if needle.is_empty() {
            return found;
        }
        const CHUNK: u64 = 1 << 20;
        for s in &self.segments {
            let (mut at, end) = (s.offset, s.offset.saturating_add(s.filesz));
            while at < end {
                // Holes are zeros: unless those are looked for, skip to the next data.
                if needle.iter().any(|b| *b != 0) {
                    match self.source.next_data(at) {
                        Some(data) => at = data.max(at),
                        None => break,
                    }
                }
                let bytes =
                    self.source.read_vec(at, (CHUNK + needle.len() as u64 - 1).min(end.saturating_sub(at)));
                if bytes.len() < needle.len() {
                    break;
                }
                for i in positions(&bytes, needle).take_while(|i| (*i as u64) < CHUNK) {
                    found.push(s.vaddr + (at - s.offset) + i as u64);
                    if found.len() == limit {
                        return found;
                    }
                }
                at = at.saturating_add(CHUNK);
            }
        }
        found
    }
}

/// Where `needle` starts in `bytes`, also where it overlaps itself.
fn positions<'a>(bytes: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let finder = memchr::memmem::Finder::new(needle);
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + finder.find(&bytes[from..])?;
        from = at + 1;
        Some(at)
    })
}
