//! From `BIN:SYMBOL` to places in a file: which file, which functions of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use goblin::elf::program_header::PT_LOAD;
use goblin::elf::sym::{STT_FUNC, STT_GNU_IFUNC};
use goblin::elf::{Elf, Sym};
use iced_x86::{Decoder, DecoderOptions};
use kit::SysError;

use crate::symbols::demangled;
use crate::{libraries, names};

/// Functions to be probed, all in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The file.
    pub path: PathBuf,
    /// Where in it; several functions can have one name.
    pub functions: Vec<Function>,
    /// Bytes behind the begin of each; not 0: what is there is no begin of a function, and nothing returns to it.
    pub offset: u64,
    /// What a reader should know about the choice; empty: nothing.
    pub note: String,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name, as its author wrote it.
    pub name: String,
    /// Its address, as the file has it.
    pub address: u64,
    /// Where in the file the probe goes.
    pub place: u64,
}

/// Why there is nothing to probe.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is not written as `BIN:SYMBOL`.
    #[error("{0:?} is not BIN:SYMBOL, such as c:malloc, ./program:main or /bin/bash:readline+4")]
    Form(String),
    /// No such file, program or library.
    #[error(
        "no program or library {name:?}{}\n  a path, a program of PATH, or a library that ldconfig -p lists",
        hint(near)
    )]
    NoFile {
        /// What was asked for.
        name: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// A call failed on the way.
    #[error("{0}")]
    Sys(#[from] SysError),
    /// The file has no machine code of this machine's.
    #[error("{path}: {why}")]
    NotElf {
        /// The file.
        path: String,
        /// What it is instead.
        why: String,
    },
    /// No function of this name.
    #[error("no function {symbol:?} in {path}{}{}", hint(near), stripped(*exported))]
    NoFunction {
        /// What was asked for.
        symbol: String,
        /// The file.
        path: String,
        /// Names like it.
        near: Vec<String>,
        /// If the file is stripped: how many names it has left.
        exported: Option<usize>,
    },
    /// An instruction on the way to the offset is none that is known here.
    #[error(
        "{symbol}+{at}: an instruction there is unknown (AVX, say), so where those behind it begin is, too"
    )]
    Unread {
        /// The function.
        symbol: String,
        /// Where that instruction is.
        at: u64,
    },
    /// The offset is in the middle of an instruction.
    #[error(
        "{symbol}+{offset} is inside of an instruction, and a probe there would break the program: take +{before} or +{after}"
    )]
    Inside {
        /// The function.
        symbol: String,
        /// The offset.
        offset: u64,
        /// Where that instruction begins.
        before: u64,
        /// Where the next does.
        after: u64,
    },
}

fn hint(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("\n  did you mean {}?", near.join(", ")) }
}

fn stripped(exported: Option<usize>) -> String {
    exported.map_or(String::new(), |n| {
        format!(
            "\n  the file is stripped: only {n} functions, which it offers to others, have names\n  install its debug \
             symbols, or build it without strip; BIN:0x… takes an address"
        )
    })
}

impl Target {
    /// Finds what `text` says; a library's name is looked up as process `pid` has it, if one is given.
    pub fn find(text: &str, pid: Option<u32>) -> Result<Self, TargetError> {
        let form = || TargetError::Form(text.into());
        let (file, symbol) = text.split_once(':').ok_or_else(form)?;
        if file.is_empty() || symbol.is_empty() {
            return Err(form());
        }
        let path = libraries::find(file, pid)?;
        let bytes =
            fs::read(&path).map_err(SysError::io(format!("open({:?})", path.display().to_string())))?;
        Self::within(&path, &bytes, symbol)
    }

    /// Finds a symbol in a file.
    fn within(path: &Path, bytes: &[u8], symbol: &str) -> Result<Self, TargetError> {
        let shown = path.display().to_string();
        let not_elf = |why: &str| TargetError::NotElf { path: shown.clone(), why: why.into() };
        if bytes.starts_with(b"#!") {
            let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
            let program = String::from_utf8_lossy(&line[2..]).trim().to_owned();
            return Err(not_elf(&format!("a script; the program that runs is {program}")));
        }
        let elf = Elf::parse(bytes).map_err(|_| not_elf("not an ELF file"))?;
        if elf.header.e_machine != goblin::elf::header::EM_X86_64 {
            return Err(not_elf("made for another kind of machine"));
        }
        let debug = debug_file(&elf, bytes);
        let table = Table::read(&elf, debug.as_deref());
        if let Some(hex) = symbol.strip_prefix("0x") {
            let address =
                u64::from_str_radix(hex, 16).map_err(|_| TargetError::Form(format!("{shown}:{symbol}")))?;
            return table.by_address(path, &elf, bytes, address);
        }
        let (name, offset) = match symbol.rsplit_once('+').map(|(name, offset)| (name, number(offset))) {
            Some((name, Some(offset))) => (name, offset),
            _ => (symbol, 0),
        };
        let found: BTreeMap<u64, &Entry> =
            table.functions.iter().filter(|f| f.is_called(name)).map(|f| (f.address, f)).collect();
        if found.is_empty() {
            let near = table.near(name);
            return Err(TargetError::NoFunction {
                symbol: name.into(),
                path: shown,
                near,
                exported: table.exported,
            });
        }
        let mut notes = Vec::new();
        if found.values().any(|f| f.chosen) {
            notes.push(format!(
                "{name} is chosen when the program starts (IFUNC): what is seen is the choosing"
            ));
        }
        if found.len() > 1 {
            notes.push(format!("{} functions have this name", found.len()));
        }
        let mut functions = Vec::new();
        for f in found.into_values() {
            let address = f.address + offset;
            let Some(place) = place(&elf, address) else { continue };
            boundary(&elf, bytes, f, offset)?;
            functions.push(Function { name: f.name.clone(), address, place });
        }
        Ok(Self { path: path.to_owned(), functions, offset, note: notes.join("; ") })
    }
}

/// A number in decimal or, after 0x, in hexadecimal.
fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

/// Where in the file an address is.
fn place(elf: &Elf<'_>, address: u64) -> Option<u64> {
    elf.program_headers
        .iter()
        .filter(|p| p.p_type == PT_LOAD && p.is_executable())
        .find(|p| (p.p_vaddr..p.p_vaddr + p.p_filesz).contains(&address))
        .map(|p| address - p.p_vaddr + p.p_offset)
}

/// Whether `offset` is where an instruction begins: known by decoding the function from its begin.
fn boundary(elf: &Elf<'_>, bytes: &[u8], f: &Entry, offset: u64) -> Result<(), TargetError> {
    let code = place(elf, f.address).and_then(|at| bytes.get(at as usize..)).unwrap_or_default();
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut before = 0;
    while decoder.ip() < offset && decoder.can_decode() {
        before = decoder.ip();
        if decoder.decode().is_invalid() {
            return Err(TargetError::Unread { symbol: f.name.clone(), at: before });
        }
    }
    match decoder.ip() {
        after if after > offset => Err(TargetError::Inside { symbol: f.name.clone(), offset, before, after }),
        _ => Ok(()),
    }
}

/// Symbols that were stripped off, as Debian and others package them: named by the build id.
fn debug_file(elf: &Elf<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    if !elf.syms.is_empty() {
        return None;
    }
    let mut notes = elf.iter_note_headers(bytes)?.flatten();
    let id = notes.find(|n| n.n_type == goblin::elf::note::NT_GNU_BUILD_ID)?.desc.to_vec();
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    fs::read(format!("/usr/lib/debug/.build-id/{}/{}.debug", hex.get(..2)?, hex.get(2..)?)).ok()
}

/// A function of a symbol table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    raw: String,
    name: String,
    address: u64,
    size: u64,
    /// An IFUNC: returns the function that is to be called.
    chosen: bool,
}

impl Entry {
    fn is_called(&self, name: &str) -> bool {
        self.raw == name || self.name == name
    }
}

/// The functions of a file.
#[derive(Debug, Default)]
struct Table {
    functions: Vec<Entry>,
    /// If there is no `.symtab`: how many there are in `.dynsym`.
    exported: Option<usize>,
}

impl Table {
    fn read(elf: &Elf<'_>, debug: Option<&[u8]>) -> Self {
        let debug = debug.and_then(|bytes| Elf::parse(bytes).ok());
        let owner = debug.as_ref().unwrap_or(elf);
        let entry = |sym: Sym, name: Option<&str>| {
            let kind = sym.st_type();
            let is_code = matches!(kind, STT_FUNC | STT_GNU_IFUNC) && sym.st_shndx != 0 && sym.st_value != 0;
            let raw = name.filter(|name| is_code && !name.is_empty())?;
            Some(Entry {
                raw: raw.to_owned(),
                name: demangled(raw),
                address: sym.st_value,
                size: sym.st_size,
                chosen: kind == STT_GNU_IFUNC,
            })
        };
        let own = owner.syms.iter().filter_map(|s| entry(s, owner.strtab.get_at(s.st_name)));
        let exported = elf.dynsyms.iter().filter_map(|s| entry(s, elf.dynstrtab.get_at(s.st_name)));
        let exported: Vec<Entry> = exported.collect();
        let stripped = owner.syms.is_empty().then_some(exported.len());
        Self { functions: own.chain(exported).collect(), exported: stripped }
    }

    /// Names to offer: those that end in what was asked for as a path does, then those that look like it.
    fn near(&self, name: &str) -> Vec<String> {
        let tail = format!("::{name}");
        let mut near: Vec<String> =
            self.functions.iter().filter(|f| f.name.ends_with(&tail)).map(|f| f.name.clone()).collect();
        near.sort();
        near.dedup();
        let like = names::nearest(name, self.functions.iter().map(|f| f.name.as_str()));
        near.extend(like.into_iter().map(str::to_owned));
        near.truncate(5);
        near
    }

    fn by_address(
        &self,
        path: &Path,
        elf: &Elf<'_>,
        bytes: &[u8],
        address: u64,
    ) -> Result<Target, TargetError> {
        let inside = |f: &&Entry| (f.address..f.address + f.size.max(1)).contains(&address);
        let function = self.functions.iter().find(inside);
        let missing = || TargetError::NoFunction {
            symbol: format!("{address:#x}"),
            path: path.display().to_string(),
            near: Vec::new(),
            exported: self.exported,
        };
        let place = place(elf, address).ok_or_else(missing)?;
        let (name, offset, note) = match function {
            Some(f) => {
                boundary(elf, bytes, f, address - f.address)?;
                (f.name.clone(), address - f.address, String::new())
            }
            None => {
                let note = "no symbol says what is there: taken for the begin of a function, on your word";
                (format!("{address:#x}"), 0, note.to_owned())
            }
        };
        let functions = vec![Function { name, address, place }];
        Ok(Target { path: path.to_owned(), functions, offset, note })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> (PathBuf, Vec<u8>) {
        let path = std::env::current_exe().unwrap();
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    }

    #[test]
    fn a_function_is_found_mangled_demangled_and_by_its_address() {
        let (path, bytes) = own();
        let name = "bpf_trace::target::number";
        let by_name = Target::within(&path, &bytes, name).unwrap();
        assert_eq!(by_name.functions.len(), 1, "{by_name:?}");
        let f = &by_name.functions[0];
        let elf = Elf::parse(&bytes).unwrap();
        let table = Table::read(&elf, None);
        let raw = &table.functions.iter().find(|e| e.name == name).unwrap().raw;
        assert_ne!(raw, name);
        assert_eq!(Target::within(&path, &bytes, raw).unwrap(), by_name);
        let by_address = Target::within(&path, &bytes, &format!("{:#x}", f.address)).unwrap();
        assert_eq!(by_address, by_name);
        // The file's bytes there are those of this process's memory there.
        let code = place(&elf, f.address).unwrap() as usize;
        assert_eq!(f.place, code as u64);
        assert!(bytes[code..code + 4].iter().any(|b| *b != 0));
    }

    #[test]
    fn a_name_that_is_not_there_gives_those_like_it() {
        let (path, bytes) = own();
        for (asked, offered) in [("bpf_trace::target::numbr", "number"), ("within", "Target::within")] {
            match Target::within(&path, &bytes, asked) {
                Err(TargetError::NoFunction { near, exported: None, .. }) => {
                    assert!(near.iter().any(|n| n.ends_with(offered)), "{asked}: {near:?}");
                }
                other => panic!("{asked}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_offset_must_be_where_an_instruction_begins() {
        let (_, bytes) = own();
        let elf = Elf::parse(&bytes).unwrap();
        let table = Table::read(&elf, None);
        let f = table.functions.iter().find(|f| f.is_called("bpf_trace::target::number")).unwrap();
        let mut good = 0;
        for offset in 1..32 {
            match boundary(&elf, &bytes, f, offset) {
                Ok(()) => good += 1,
                Err(TargetError::Inside { before, after, .. }) => assert!(before < offset && offset < after),
                Err(other) => panic!("{other}"),
            }
        }
        assert!((1..31).contains(&good), "{good}");
    }

    #[test]
    fn what_is_no_program_is_said() {
        let path = Path::new("x");
        let why = |bytes: &[u8]| Target::within(path, bytes, "main").unwrap_err().to_string();
        assert!(why(b"#!/bin/sh -e\nexit\n").contains("a script; the program that runs is /bin/sh -e"));
        assert!(why(b"\x7fELF").contains("not an ELF file"));
        assert!(why(b"").contains("not an ELF file"));
        for bad in ["malloc", ":malloc", "c:"] {
            assert!(matches!(Target::find(bad, None), Err(TargetError::Form(_))), "{bad}");
        }
    }

    #[test]
    fn a_damaged_file_is_no_crash() {
        let (path, mut bytes) = own();
        bytes.truncate(1 << 16);
        let mut state = 7_u64;
        for _ in 0..300 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % 4096;
            let was = bytes[at];
            bytes[at] = (state >> 20) as u8;
            let _ = Target::within(&path, &bytes, "main");
            bytes[at] = was;
        }
    }
}
