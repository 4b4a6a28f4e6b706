//! Writing a core: the inverse of the first two stages, for our own `gcore` and for the tests' torture set.

use crate::s1_header::Segment;

/// A piece of memory to be written.
#[derive(Debug, Clone)]
pub struct Load {
    /// First address.
    pub vaddr: u64,
    /// Bytes in memory.
    pub memsz: u64,
    /// Bytes that will be in the file.
    pub filesz: u64,
    /// 4 read, 2 write, 1 execute.
    pub flags: u32,
}

/// A core's headers and notes, before it is written.
#[derive(Debug, Clone)]
pub struct Layout {
    /// `e_machine`; 62 is x86-64.
    pub machine: u16,
    /// The notes' bytes; see [`note`].
    pub notes: Vec<u8>,
    /// Memory, by address.
    pub loads: Vec<Load>,
}

/// Appends a note to `notes`, padded to 4 bytes as the kernel does.
pub fn note(notes: &mut Vec<u8>, owner: &str, kind: u32, desc: &[u8]) {
    for word in [owner.len() as u32 + 1, desc.len() as u32, kind] {
        notes.extend(word.to_le_bytes());
    }
    for bytes in [
        owner.as_bytes(),
        &[0][..],
        &vec![0; 3 - owner.len() % 4],
        desc,
        &vec![0; desc.len().wrapping_neg() % 4],
    ] {
        notes.extend(bytes);
    }
}

impl Layout {
    /// Everything before the memory: header, program headers, notes, and zeros up to a page; and where each load's bytes go.
    pub fn head(&self) -> (Vec<u8>, Vec<Segment>) {
        let count = self.loads.len() as u64 + 1;
        let extended = count >= 0xffff;
        // Section header 0, which holds the count where 16 bits do not, follows the program headers.
        let sections = 64 + 56 * count;
        let notes = sections + if extended { 64 } else { 0 };
        let mut next = (notes + self.notes.len() as u64).next_multiple_of(4096);
        let note = Segment {
            kind: 4,
            flags: 0,
            offset: notes,
            vaddr: 0,
            filesz: self.notes.len() as u64,
            memsz: 0,
            align: 4,
        };
        let mut segments = vec![note];
        for l in &self.loads {
            segments.push(Segment {
                kind: 1,
                flags: l.flags,
                offset: next,
                vaddr: l.vaddr,
                filesz: l.filesz,
                memsz: l.memsz,
                align: 4096,
            });
            next += l.filesz.next_multiple_of(4096);
        }
        let mut out = Vec::with_capacity(notes as usize + self.notes.len() + 4096);
        out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bit, least significant byte first, version 1
        for half in [4, self.machine] {
            out.extend(half.to_le_bytes()); // ET_CORE
        }
        out.extend(1_u32.to_le_bytes());
        for word in [0, 64, if extended { sections } else { 0 }] {
            out.extend(word.to_le_bytes()); // entry, phoff, shoff
        }
        out.extend(0_u32.to_le_bytes());
        let (phnum, shnum) = if extended { (0xffff, 1) } else { (count as u16, 0) };
        for half in [64, 56, phnum, if extended { 64 } else { 0 }, shnum, 0] {
            out.extend(half.to_le_bytes());
        }
        for s in &segments {
            out.extend(s.kind.to_le_bytes());
            out.extend(s.flags.to_le_bytes());
            for word in [s.offset, s.vaddr, 0, s.filesz, s.memsz, s.align] {
                out.extend(word.to_le_bytes());
            }
        }
        if extended {
            let mut section = [0; 64];
            section[32..40].copy_from_slice(&1_u64.to_le_bytes()); // sh_size: e_shnum
            section[44..48].copy_from_slice(&(count as u32).to_le_bytes()); // sh_info: e_phnum
            out.extend(section);
        }
        out.extend(&self.notes);
        out.resize(out.len().next_multiple_of(4096), 0);
        (out, segments.split_off(1))
    }
}

/// The desc of `NT_PRSTATUS`, x86-64: `ids` are pid, parent, group, session; `registers` are `user_regs_struct`'s 216 bytes.
pub fn prstatus(signal: u16, ids: [i32; 4], registers: &[u8]) -> Vec<u8> {
    let mut d = vec![0; 336];
    d[0..4].copy_from_slice(&u32::from(signal).to_le_bytes());
    d[12..14].copy_from_slice(&signal.to_le_bytes());
    for (i, id) in ids.iter().enumerate() {
        d[32 + 4 * i..36 + 4 * i].copy_from_slice(&id.to_le_bytes());
    }
    let n = registers.len().min(216);
    d[112..112 + n].copy_from_slice(&registers[..n]);
    d[328..332].copy_from_slice(&1_u32.to_le_bytes()); // pr_fpvalid
    d
}

/// The desc of `NT_PRPSINFO`, 64-bit.
pub fn prpsinfo(state: u8, uid_gid: [u32; 2], ids: [i32; 4], name: &[u8], args: &[u8]) -> Vec<u8> {
    let mut d = vec![0; 136];
    d[1] = state; // pr_sname
    for (i, id) in uid_gid.iter().enumerate() {
        d[16 + 4 * i..20 + 4 * i].copy_from_slice(&id.to_le_bytes());
    }
    for (i, id) in ids.iter().enumerate() {
        d[24 + 4 * i..28 + 4 * i].copy_from_slice(&id.to_le_bytes());
    }
    let (n, a) = (name.len().min(15), args.len().min(79));
    d[40..40 + n].copy_from_slice(&name[..n]);
    d[56..56 + a].copy_from_slice(&args[..a]);
    d
}

/// The desc of `NT_FILE`: start, end, offset in bytes (a multiple of 4096), path.
pub fn files(maps: &[(u64, u64, u64, Vec<u8>)]) -> Vec<u8> {
    let mut d = Vec::new();
    for word in [maps.len() as u64, 4096] {
        d.extend(word.to_le_bytes());
    }
    for (start, end, offset, _) in maps {
        for word in [*start, *end, offset / 4096] {
            d.extend(word.to_le_bytes());
        }
    }
    for (.., path) in maps {
        d.extend(path);
        d.push(0);
    }
    d
}
