//! Stage 7: names for addresses.
//!
//! `.symtab` knows every function unless it was stripped, `.dynsym` only those that other modules use; DWARF adds
//! files, lines, and the functions that were inlined. Without all of them, module+offset.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use addr2line::Context;
use gimli::{Dwarf, EndianRcSlice, LittleEndian};

use crate::s4_memory::{Memory, Module};
use crate::s5_module::Elf;
use crate::s6_unwind::{Backtrace, Frame};
use crate::source::{Ints, printable};

type Reader = EndianRcSlice<LittleEndian>;

/// What is at an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Place {
    /// The function, demangled; `module+0x…` where no symbol is known.
    pub function: String,
    /// Distance from the function's start; `None` for an inlined function.
    pub offset: Option<u64>,
    /// File and line.
    pub line: Option<String>,
    /// The module's file name.
    pub module: String,
    /// Whether the function was inlined into the next one.
    pub inlined: bool,
    /// Whether its source is Rust's own library.
    pub library: bool,
}

/// A function of a symbol table.
#[derive(Debug)]
struct Symbol {
    address: u64,
    size: u64,
    /// Where its name starts in the string table.
    name: u32,
}

#[derive(Debug, Default)]
struct Table {
    symbols: Vec<Symbol>,
    strings: Vec<u8>,
}

#[derive(Default)]
struct Names {
    table: Table,
    /// The file whose line tables are compressed, and so are not read.
    compressed: Option<PathBuf>,
    lines: Option<Context<Reader>>,
}

/// Finds names, and keeps them by address.
pub struct Symbols<'m> {
    memory: &'m Memory,
    sysroot: Option<PathBuf>,
    with_lines: bool,
    modules: HashMap<u64, Names>,
    places: HashMap<u64, Rc<[Place]>>,
}

impl<'m> Symbols<'m> {
    /// Ready to look up; `with_lines` reads DWARF too, which costs most of the time.
    pub fn new(memory: &'m Memory, sysroot: Option<PathBuf>, with_lines: bool) -> Self {
        Self { memory, sysroot, with_lines, modules: HashMap::new(), places: HashMap::new() }
    }

    /// What is at `pc`, innermost inlined function first; never empty.
    pub fn at(&mut self, pc: u64) -> Rc<[Place]> {
        if let Some(known) = self.places.get(&pc) {
            return known.clone();
        }
        let places: Rc<[Place]> = self.find(pc).into();
        self.places.insert(pc, places.clone());
        places
    }

    /// What a frame is in.
    pub fn frame(&mut self, frame: &Frame) -> Rc<[Place]> {
        self.at(frame.lookup_pc())
    }

    /// The files met so far whose line tables are compressed: no lines and inlined functions come from them.
    pub fn compressed(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.modules.values().filter_map(|n| n.compressed.clone()).collect();
        files.sort();
        files
    }

    /// Address and size of the function at `pc`, to disassemble it from its start.
    pub fn function_range(&mut self, pc: u64) -> Option<(u64, u64)> {
        let module = self.memory.module(pc)?;
        let s = self.names(module).table.symbol(pc.wrapping_sub(module.bias))?;
        Some((s.address.wrapping_add(module.bias), s.size))
    }

    fn names(&mut self, module: &Module) -> &Names {
        let (sysroot, with_lines) = (self.sysroot.as_deref(), self.with_lines);
        self.modules.entry(module.range.0).or_insert_with(|| match &module.elf {
            Ok(elf) => Names::load(elf, sysroot, with_lines),
            Err(_) => Names::default(),
        })
    }

    fn find(&mut self, pc: u64) -> Vec<Place> {
        let Some(module) = self.memory.module(pc) else {
            return vec![unknown(format!("{pc:#x}"), String::new())];
        };
        let file = printable(&module.path.file_name().unwrap_or(module.path.as_os_str()).to_string_lossy());
        let address = pc.wrapping_sub(module.bias);
        let names = self.names(module);
        let mut places =
            names.lines.as_ref().map_or_else(Vec::new, |context| inlined(context, address, &file));
        let symbol = names.table.symbol(address);
        match (places.last_mut(), symbol) {
            (Some(outer), Some(s)) => {
                outer.offset = Some(address - s.address);
                if outer.function.is_empty() {
                    outer.function = demangle(&names.table.name(s));
                }
            }
            (None, Some(s)) => places.push(Place {
                function: demangle(&names.table.name(s)),
                offset: Some(address - s.address),
                line: None,
                module: file,
                inlined: false,
                library: false,
            }),
            (None, None) => {
                places.push(unknown(format!("{file}+{:#x}", pc.wrapping_sub(module.range.0)), file))
            }
            (Some(outer), None) if outer.function.is_empty() => {
                outer.function = format!("{file}+{:#x}", pc.wrapping_sub(module.range.0))
            }
            (Some(_), None) => {}
        }
        places
    }
}

fn unknown(function: String, module: String) -> Place {
    Place { function, offset: None, line: None, module, inlined: false, library: false }
}

/// The functions and lines that DWARF has for `address`, innermost first.
fn inlined(context: &Context<Reader>, address: u64, module: &str) -> Vec<Place> {
    let Ok(mut frames) = context.find_frames(address).skip_all_loads() else { return Vec::new() };
    let mut places = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        let library = frame.location.as_ref().and_then(|l| l.file).is_some_and(|f| f.starts_with("/rustc/"));
        let line = frame.location.and_then(|l| Some(format!("{}:{}", short(l.file?), l.line?)));
        // With line tables alone DWARF has no names of functions: those come from the symbol table.
        let name = frame.function.and_then(|f| Some(demangle(&f.raw_name().ok()?))).unwrap_or_default();
        places.push(Place {
            function: name,
            offset: None,
            line,
            module: module.to_owned(),
            inlined: true,
            library,
        });
    }
    if let Some(outer) = places.last_mut() {
        outer.inlined = false;
    }
    places
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

impl Names {
    fn load(elf: &Elf, sysroot: Option<&std::path::Path>, with_lines: bool) -> Self {
        let mut table = Table::load(elf, ".symtab", ".strtab");
        let split = (table.symbols.is_empty() || (with_lines && !elf.has_dwarf()))
            .then(|| elf.debug_file(sysroot))
            .flatten();
        if let Some(debug) = split.as_ref().filter(|_| table.symbols.is_empty()) {
            table = Table::load(debug, ".symtab", ".strtab");
        }
        if table.symbols.is_empty() {
            table = Table::load(elf, ".dynsym", ".dynstr");
        }
        let debug = split.as_ref().filter(|_| !elf.has_dwarf()).unwrap_or(elf);
        let compressed = (!debug.has_dwarf())
            .then(|| [Some(elf), split.as_ref()].into_iter().flatten().find(|e| e.has_compressed_dwarf()))
            .flatten()
            .map(|e| e.path.clone());
        let lines = if with_lines && debug.has_dwarf() { lines(debug) } else { None };
        Self { table, compressed, lines }
    }
}

impl Table {
    /// Functions and objects of a symbol table, sorted by address: 24 bytes each (`Elf64_Sym`).
    fn load(elf: &Elf, symbols: &str, strings: &str) -> Self {
        let (Some((_, symbols)), Some((_, strings))) = (elf.section(symbols), elf.section(strings)) else {
            return Self::default();
        };
        let symbol = |entry: &[u8; 24]| {
            let ints = Ints { bytes: entry, big_endian: false };
            let (name, address, size) = (ints.u32(0)?, ints.u64(8)?, ints.u64(16)?);
            let (info, section) = (entry[4], ints.u16(6)?);
            // STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_GNU_IFUNC; named, and defined here.
            let wanted = matches!(info & 15, 0..=2 | 10) && section != 0 && address != 0 && name != 0;
            wanted.then_some(Symbol { address, size, name })
        };
        let mut symbols: Vec<Symbol> = symbols.as_chunks::<24>().0.iter().filter_map(symbol).collect();
        symbols.sort_by_key(|s| (s.address, s.size));
        Self { symbols, strings }
    }

    fn symbol(&self, address: u64) -> Option<&Symbol> {
        let end = self.symbols.partition_point(|s| s.address <= address);
        // Several symbols share an address, and one of size 0 may stand inside another: look a few back.
        let inside = |s: &&Symbol| address - s.address < s.size;
        self.symbols[..end]
            .iter()
            .rev()
            .take(8)
            .find(inside)
            .or_else(|| self.symbols[..end].last().filter(|s| s.size == 0))
    }

    fn name(&self, symbol: &Symbol) -> Cow<'_, str> {
        let rest = self.strings.get(symbol.name as usize..).unwrap_or_default();
        String::from_utf8_lossy(rest.split(|b| *b == 0).next().unwrap_or_default())
    }
}

fn lines(elf: &Elf) -> Option<Context<Reader>> {
    let section = |id: gimli::SectionId| {
        let bytes = elf.section(id.name()).map(|(_, bytes)| bytes).unwrap_or_default();
        Ok::<_, gimli::Error>(Reader::new(bytes.into(), LittleEndian))
    };
    Context::from_dwarf(Dwarf::load(section).ok()?).ok()
}

/// Demangles Rust and C++ names; leaves others as they are.
pub fn demangle(name: &str) -> String {
    // A C function may be called `d`, which is also C++'s mangling of the type double.
    let mangled = name.starts_with("_Z") || name.starts_with("_R");
    if mangled { tidy(&addr2line::demangle_auto(Cow::from(name), None)) } else { printable(name) }
}

/// Drops the hash that the old Rust mangling ends in.
fn tidy(name: &str) -> String {
    let hash = name.len().checked_sub(19).filter(|at| name.is_char_boundary(*at));
    let plain = match hash.map(|at| name.split_at(at)) {
        Some((plain, hash))
            if hash.starts_with("::h") && hash[3..].bytes().all(|b| b.is_ascii_hexdigit()) =>
        {
            plain
        }
        _ => name,
    };
    printable(plain)
}

/// The last three parts of a path: enough to recognise a file.
fn short(path: &str) -> String {
    let parts: Vec<&str> = path.rsplitn(4, '/').take(3).collect();
    printable(&parts.into_iter().rev().collect::<Vec<_>>().join("/"))
}

/// A stretch of a backtrace: `len` frames, `times` over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Fold {
    /// Index of its first frame.
    pub start: usize,
    /// Frames of one round.
    pub len: usize,
    /// Rounds.
    pub times: usize,
}

/// Folds recursion: rounds of up to 8 frames with the same addresses that repeat at least three times.
pub fn fold(trace: &Backtrace) -> Vec<Fold> {
    let frames = &trace.frames;
    let mut folds = Vec::new();
    let mut i = 0;
    while i < frames.len() {
        let round = |len: usize| {
            let same = (i + len..frames.len()).take_while(|j| frames[*j].pc == frames[*j - len].pc).count();
            (len, same / len + 1)
        };
        // The shortest round that repeats: a a a is three times a, not aa and a half.
        let (len, times) = (1..=8).map(round).find(|(_, times)| *times >= 3).unwrap_or((1, 1));
        folds.push(Fold { start: i, len, times });
        i += len * times;
    }
    folds
}
