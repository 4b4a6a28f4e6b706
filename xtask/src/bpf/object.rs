//! Two objects of clang's, compared by what they mean: instructions, data, relocations by the names of their targets,
//! map definitions and types by BTF. Where a thing lies in the file, DWARF and the lines of the source do not count.
//!
//! An object is described as a map from a thing's name to its value, all of it text; then two maps are compared.

use std::collections::BTreeMap;

use super::btf::Btf;

/// The section that holds the sum of what an object was made from.
pub(super) const SOURCES: &str = "sources";

/// `("tp_btf/sys_exit", "instruction 12")` to `"b7 00 00 00 00 00 00 00"`
type Facts = BTreeMap<(String, String), String>;

/// Differences that are named; more are counted.
const NAMED: usize = 3;

/// What differs, in words: of each section the first few things. `None` if one of them is no such object.
pub(super) fn differences(committed: &[u8], fresh: &[u8]) -> Option<Vec<String>> {
    let (old, new) = (facts(committed)?, facts(fresh)?);
    let mut by_section: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let both: BTreeMap<_, _> = old.iter().chain(&new).map(|(key, _)| (key, ())).collect();
    for key @ (section, item) in both.into_keys() {
        let (was, is) = (old.get(key), new.get(key));
        if was != is {
            let or_none = |v: Option<&String>| v.map_or("nothing", String::as_str).to_owned();
            let words = format!("{section}: {item} is {}, should be {}", or_none(was), or_none(is));
            by_section.entry(section).or_default().push(words);
        }
    }
    let mut all = Vec::new();
    for (section, words) in by_section {
        let more = words.len().saturating_sub(NAMED);
        all.extend(words.into_iter().take(NAMED));
        if more > 0 {
            all.push(format!("{section}: and {more} more"));
        }
    }
    Some(all)
}

/// The sum of what an object was made from.
pub(super) fn sources(object: &[u8]) -> Option<u64> {
    let elf = Elf::read(object)?;
    let section = elf.sections.iter().find(|s| s.name == SOURCES)?;
    u64_at(section.bytes, 0)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.get(..2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.get(..4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.get(..8)?.try_into().ok()?))
}

/// The NUL-terminated string at an offset of a string table.
pub(super) fn string_at(table: &[u8], at: u32) -> Option<String> {
    let bytes = table.get(at as usize..)?;
    let end = bytes.iter().position(|b| *b == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

// elf(5)
const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_NOBITS: u32 = 8;
const SHT_REL: u32 = 9;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const STT_OBJECT: u8 = 1;
const STT_FUNC: u8 = 2;
const STT_SECTION: u8 = 3;

struct Section<'a> {
    name: String,
    kind: u32,
    flags: u64,
    size: u64,
    /// For relocations: the section that they are of.
    info: usize,
    bytes: &'a [u8],
}

struct Symbol {
    name: String,
    kind: u8,
    section: usize,
    value: u64,
    size: u64,
}

struct Elf<'a> {
    sections: Vec<Section<'a>>,
    symbols: Vec<Symbol>,
}

impl<'a> Elf<'a> {
    /// A 64-bit little-endian file.
    fn read(file: &'a [u8]) -> Option<Self> {
        if !file.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let table = u64_at(file, 40)? as usize;
        let (count, names) = (usize::from(u16_at(file, 60)?), usize::from(u16_at(file, 62)?));
        let header = |n: usize| file.get(table.checked_add(n * 64)?..)?.get(..64);
        let content = |n: usize| {
            let header = header(n)?;
            if u32_at(header, 4)? == SHT_NOBITS {
                return Some(&file[..0]);
            }
            file.get(u64_at(header, 24)? as usize..)?.get(..u64_at(header, 32)? as usize)
        };
        let strings = content(names)?;
        let mut elf = Self { sections: Vec::new(), symbols: Vec::new() };
        for n in 0..count {
            let header = header(n)?;
            elf.sections.push(Section {
                name: string_at(strings, u32_at(header, 0)?)?,
                kind: u32_at(header, 4)?,
                flags: u64_at(header, 8)?,
                size: u64_at(header, 32)?,
                info: u32_at(header, 44)? as usize,
                bytes: content(n)?,
            });
            if u32_at(header, 4)? == SHT_SYMTAB {
                let names = content(u32_at(header, 40)? as usize)?;
                for symbol in content(n)?.chunks_exact(24) {
                    elf.symbols.push(Symbol {
                        name: string_at(names, u32_at(symbol, 0)?)?,
                        kind: symbol[4] & 15,
                        section: usize::from(u16_at(symbol, 6)?),
                        value: u64_at(symbol, 8)?,
                        size: u64_at(symbol, 16)?,
                    });
                }
            }
        }
        Some(elf)
    }

    /// What a relocation points to, by name: the numbers of symbols are the writer's choice.
    fn target(&self, symbol: usize) -> Option<String> {
        let symbol = self.symbols.get(symbol)?;
        Some(match symbol.kind {
            STT_SECTION => self.sections.get(symbol.section)?.name.clone(),
            _ => symbol.name.clone(),
        })
    }
}

fn facts(file: &[u8]) -> Option<Facts> {
    let elf = Elf::read(file)?;
    let mut facts = Facts::new();
    let mut add = |section: &str, item: String, value: String| facts.insert((section.into(), item), value);
    for section in &elf.sections {
        let loaded = section.flags & SHF_ALLOC != 0;
        match section.kind {
            SHT_PROGBITS if loaded => {
                let what = if section.flags & SHF_EXECINSTR != 0 { "instruction" } else { "word" };
                for (n, bytes) in section.bytes.chunks(8).enumerate() {
                    let bytes: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
                    add(&section.name, format!("{what} {n:4}"), bytes.join(" "));
                }
            }
            SHT_NOBITS if loaded => drop(add(&section.name, "size".into(), section.size.to_string())),
            SHT_REL => {
                let of = elf.sections.get(section.info)?;
                if of.flags & SHF_ALLOC == 0 {
                    continue; // of DWARF, or of BTF's own tables
                }
                for entry in section.bytes.chunks_exact(16) {
                    let (at, info) = (u64_at(entry, 0)?, u64_at(entry, 8)?);
                    let value = format!("{} (type {})", elf.target((info >> 32) as usize)?, info as u32);
                    add(&of.name, format!("relocation of instruction {:4}", at / 8), value);
                }
            }
            _ => {}
        }
    }
    for symbol in elf.symbols.iter().filter(|s| [STT_OBJECT, STT_FUNC].contains(&s.kind)) {
        let Some(section) = elf.sections.get(symbol.section) else { continue };
        let value = format!("{} bytes at {}", symbol.size, symbol.value);
        add(&section.name, format!("symbol {}", symbol.name), value);
    }
    let bytes = |name: &str| elf.sections.iter().find(|s| s.name == name).map(|s| s.bytes);
    let btf = Btf::read(bytes(".BTF")?)?;
    btf.maps(&mut add)?;
    btf.types(&mut add)?;
    btf.offsets(bytes(".BTF.ext")?, &mut add)?;
    Some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of a lab's: what the comparison is for.
    const OBJECT: &[u8] = include_bytes!("../../../labs/bpf-trace/bpf/syscalls.bpf.o");

    /// Where a section's content lies in the file.
    fn place(name: &str) -> usize {
        let elf = Elf::read(OBJECT).unwrap();
        let section = elf.sections.iter().find(|s| s.name == name).unwrap();
        section.bytes.as_ptr() as usize - OBJECT.as_ptr() as usize
    }

    fn changed(at: usize, to: u8) -> Vec<String> {
        let mut other = OBJECT.to_vec();
        assert_ne!(other[at], to);
        other[at] = to;
        differences(OBJECT, &other).unwrap()
    }

    #[test]
    fn an_object_is_as_itself() {
        assert_eq!(differences(OBJECT, OBJECT), Some(vec![]));
        assert!(facts(OBJECT).unwrap().len() > 500);
        assert!(sources(OBJECT).is_some());
    }

    #[test]
    fn a_changed_instruction_is_found() {
        let found = changed(place("tp_btf/sys_exit") + 8 * 5, 0xff);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("tp_btf/sys_exit: instruction    5 is"), "{found:?}");
    }

    #[test]
    fn a_changed_constant_is_found() {
        let found = changed(place(".rodata"), 0xff);
        assert!(found[0].starts_with(".rodata: word    0 is"), "{found:?}");
    }

    #[test]
    fn a_changed_relocation_is_found() {
        // The first relocation names another symbol: r_info's upper half.
        let at = place(".reltp_btf/sys_exit") + 12;
        let found = changed(at, OBJECT[at] ^ 1);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("tp_btf/sys_exit: relocation of instruction"), "{found:?}");
    }

    #[test]
    fn a_changed_map_is_found() {
        // The length of the array by which max_entries of `calls` is told, as BTF has it: an array's third word.
        let size = 16384_u32.to_le_bytes();
        let btf = &OBJECT[place(".BTF")..];
        let word = btf.chunks_exact(4).position(|w| w == size).unwrap();
        let at = place(".BTF") + 4 * word;
        let found = changed(at, 1);
        assert!(found.iter().any(|f| f.contains("max_entries is 16384, should be 16385")), "{found:?}");
    }

    #[test]
    fn a_changed_core_relocation_is_found() {
        let ext = &OBJECT[place(".BTF.ext")..];
        let core = (u32_at(ext, 4).unwrap() + u32_at(ext, 24).unwrap()) as usize;
        // After the size of a record and the section's name and count: the first record's kind.
        let found = changed(place(".BTF.ext") + core + 4 + 8 + 12, 9);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("CO-RE at instruction"), "{found:?}");
    }

    #[test]
    fn lines_and_dwarf_do_not_count() {
        let ext = &OBJECT[place(".BTF.ext")..];
        let lines = (u32_at(ext, 4).unwrap() + u32_at(ext, 16).unwrap()) as usize;
        // The first record's line and column.
        let at = place(".BTF.ext") + lines + 4 + 8 + 12;
        assert_eq!(changed(at, OBJECT[at] ^ 0xff), Vec::<String>::new());
        assert_eq!(differences(OBJECT, &with_section(".debug_info", b"anything")), Some(vec![]));
    }

    /// The object with one more section that is not loaded.
    fn with_section(name: &str, content: &[u8]) -> Vec<u8> {
        let mut file = OBJECT.to_vec();
        let (table, names) = (u64_at(&file, 40).unwrap() as usize, u16_at(&file, 62).unwrap());
        let mut count = u16_at(&file, 60).unwrap();
        let mut headers = file[table..table + usize::from(count) * 64].to_vec();
        let put = |header: &mut [u8], at: usize, value: u64| {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        };
        // A longer string table, in place of the old one.
        let strings = &mut headers[usize::from(names) * 64..][..64];
        let (old, len) = (u64_at(strings, 24).unwrap() as usize, u64_at(strings, 32).unwrap() as usize);
        put(strings, 24, file.len() as u64);
        put(strings, 32, (len + name.len() + 1) as u64);
        file.extend_from_within(old..old + len);
        file.extend([name.as_bytes(), b"\0"].concat());
        let mut header = [0; 64];
        header[..4].copy_from_slice(&(len as u32).to_le_bytes());
        header[4..8].copy_from_slice(&SHT_PROGBITS.to_le_bytes());
        put(&mut header, 24, file.len() as u64);
        put(&mut header, 32, content.len() as u64);
        file.extend(content);
        headers.extend(header);
        count += 1;
        let table = file.len() as u64;
        put(&mut file, 40, table);
        file[60..62].copy_from_slice(&count.to_le_bytes());
        file.extend(headers);
        assert!(Elf::read(&file).unwrap().sections.iter().any(|s| s.name == name && s.bytes == content));
        file
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(differences(OBJECT, b"\x7fELF\x02\x01 and no more"), None);
        for len in (0..OBJECT.len()).step_by(1499) {
            let _ = differences(OBJECT, &OBJECT[..len]); // and nothing panics
        }
    }
}
