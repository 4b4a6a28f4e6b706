//! BTF, as far as objects are compared by it: types, the definitions of maps, and CO-RE relocations. The format is in
//! Documentation/bpf/btf.rst.

use super::object::{string_at, u16_at, u32_at};

const PTR: u32 = 2;
const ARRAY: u32 = 3;
const DATASEC: u32 = 15;

struct Type<'a> {
    name: String,
    kind: u32,
    /// Members, enumerators, parameters, variables.
    count: usize,
    /// Bytes, or the number of the type that it refers to.
    size_or_type: u32,
    /// What follows the first three words.
    rest: &'a [u8],
}

impl Type<'_> {
    /// Words of each of its `count` parts, and whether the first of them is a name.
    fn part(kind: u32) -> (usize, bool) {
        match kind {
            4 | 5 | 19 => (3, true), // struct, union, enum64
            6 | 13 => (2, true),     // enum, function's type
            DATASEC => (3, false),
            _ => (0, false),
        }
    }

    /// Words that follow a type of this kind once.
    fn once(kind: u32) -> usize {
        match kind {
            1 | 14 | 17 => 1, // integer, variable, tag
            ARRAY => 3,
            _ => 0,
        }
    }
}

pub(super) struct Btf<'a> {
    strings: &'a [u8],
    /// From number 1 on; 0 is void.
    types: Vec<Type<'a>>,
}

impl<'a> Btf<'a> {
    pub(super) fn read(section: &'a [u8]) -> Option<Self> {
        let (magic, header) = (u16_at(section, 0)?, u32_at(section, 4)? as usize);
        if magic != 0xeb9f {
            return None;
        }
        let part = |at: usize| {
            let (offset, len) = (u32_at(section, at)? as usize, u32_at(section, at + 4)? as usize);
            section.get(header + offset..)?.get(..len)
        };
        let (mut rest, strings) = (part(8)?, part(16)?);
        let mut types = Vec::new();
        while !rest.is_empty() {
            let info = u32_at(rest, 4)?;
            let (kind, count) = (info >> 24 & 31, (info & 0xffff) as usize);
            let len = 4 * (Type::once(kind) + count * Type::part(kind).0);
            types.push(Type {
                name: string_at(strings, u32_at(rest, 0)?)?,
                kind,
                count,
                size_or_type: u32_at(rest, 8)?,
                rest: rest.get(12..)?.get(..len)?,
            });
            rest = &rest[12 + len..];
        }
        Some(Self { strings, types })
    }

    fn get(&self, number: u32) -> Option<&Type<'a>> {
        self.types.get(number.checked_sub(1)? as usize)
    }

    /// The members of each variable in `.maps`: the value of a number, the name and size of a type.
    pub(super) fn maps<T>(&self, add: &mut impl FnMut(&str, String, String) -> T) -> Option<()> {
        let Some(maps) = self.types.iter().find(|t| t.kind == DATASEC && t.name == ".maps") else {
            return Some(());
        };
        for variable in maps.rest.chunks_exact(12) {
            let variable = self.get(u32_at(variable, 0)?)?;
            for member in self.get(variable.size_or_type)?.rest.chunks_exact(12) {
                let name = string_at(self.strings, u32_at(member, 0)?)?;
                let pointer = self.get(u32_at(member, 4)?)?;
                let Some(target) = self.get(pointer.size_or_type).filter(|_| pointer.kind == PTR) else {
                    continue;
                };
                let value = match target.kind {
                    // Its type, its index's type, its length.
                    ARRAY => u32_at(target.rest, 8)?.to_string(),
                    _ => format!("{} ({})", target.name, target.size_or_type),
                };
                add(".maps", format!("map {}: {name}", variable.name), value);
            }
        }
        Some(())
    }

    /// Every type, by its number.
    pub(super) fn types<T>(&self, add: &mut impl FnMut(&str, String, String) -> T) -> Option<()> {
        for (n, t) in self.types.iter().enumerate() {
            let mut words = vec![format!("{:?} kind {} of {}, {}", t.name, t.kind, t.size_or_type, t.count)];
            let (len, named) = Type::part(t.kind);
            for (i, word) in t.rest.chunks_exact(4).enumerate() {
                let word = u32_at(word, 0)?;
                let is_name = named && i % len == 0;
                words.push(if is_name { string_at(self.strings, word)? } else { word.to_string() });
            }
            add(".BTF", format!("type {:4}", n + 1), words.join(" "));
        }
        Some(())
    }

    /// What the loader is to put in for the running kernel (CO-RE): at which instruction, the offset of what.
    pub(super) fn offsets<T>(
        &self,
        ext: &[u8],
        add: &mut impl FnMut(&str, String, String) -> T,
    ) -> Option<()> {
        let header = u32_at(ext, 4)? as usize;
        if header < 32 {
            return Some(());
        }
        let (offset, len) = (u32_at(ext, 24)? as usize, u32_at(ext, 28)? as usize);
        let mut rest = ext.get(header + offset..)?.get(..len)?;
        if rest.is_empty() {
            return Some(());
        }
        let size = u32_at(rest, 0)? as usize;
        rest = &rest[4..];
        while !rest.is_empty() {
            let (section, count) = (string_at(self.strings, u32_at(rest, 0)?)?, u32_at(rest, 4)? as usize);
            rest = &rest[8..];
            for record in rest.get(..count * size)?.chunks_exact(size) {
                let root = self.get(u32_at(record, 4)?)?;
                let access = string_at(self.strings, u32_at(record, 8)?)?;
                let value = format!("{} {access} (kind {})", root.name, u32_at(record, 12)?);
                add(&section, format!("CO-RE at instruction {:4}", u32_at(record, 0)? / 8), value);
            }
            rest = &rest[count * size..];
        }
        Some(())
    }
}
