//! Page tables: built for the guest, and walked by hand as the processor walks them.
//!
//! Intel SDM volume 3, chapter 5 ("Paging"). A virtual address is cut into indices, one a level:
//!
//! ```text
//! 4 levels   | 47..39 PML4 | 38..30 PDPT | 29..21 PD | 20..12 PT | 11..0 offset |   8-byte entries
//! 2 levels                       | 31..22 PD | 21..12 PT | 11..0 offset |           4-byte entries
//! ```

use crate::layout;
use crate::sys::mem::Mapping;

/// The entry is valid.
pub const PRESENT: u64 = 1 << 0;
/// Writes are allowed.
pub const WRITE: u64 = 1 << 1;
/// Ring 3 may use it.
pub const USER: u64 = 1 << 2;
/// The processor used it; set beforehand, so that it need not write the table.
pub const ACCESSED: u64 = 1 << 5;
/// The processor wrote through it; set beforehand, as above.
pub const DIRTY: u64 = 1 << 6;
/// The entry maps a large page instead of pointing to a table.
pub const LARGE: u64 = 1 << 7;

/// Bits 51..12 of an entry: the address of the next table or of the page.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The shape of a page table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 32-bit paging without PAE: two levels of 1024 entries.
    TwoLevels,
    /// 64-bit paging: four levels of 512 entries.
    FourLevels,
}

impl Format {
    fn levels(self) -> u32 {
        match self {
            Format::TwoLevels => 2,
            Format::FourLevels => 4,
        }
    }

    fn index_bits(self) -> u32 {
        match self {
            Format::TwoLevels => 10,
            Format::FourLevels => 9,
        }
    }

    /// Bytes of an entry: 8, or 4 with two levels.
    pub fn entry_size(self) -> u64 {
        4096 >> self.index_bits()
    }

    /// The lowest bit of the index of a level; level 1 is the last one, the PT.
    fn shift(self, level: u32) -> u32 {
        12 + (level - 1) * self.index_bits()
    }

    fn index(self, virt: u64, level: u32) -> u64 {
        virt >> self.shift(level) & ((1 << self.index_bits()) - 1)
    }

    /// What the manual calls the table of a level.
    pub fn table_name(level: u32) -> &'static str {
        ["", "PT", "PD", "PDPT", "PML4"][level as usize]
    }
}

/// One step of a walk: the entry that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// 4 is the root of four levels, 1 is the PT.
    pub level: u32,
    /// Guest-physical address of the table.
    pub table: u64,
    /// Which entry of it.
    pub index: u64,
    /// What the entry says.
    pub entry: u64,
}

/// Where a walk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// The entries read, root first.
    pub steps: Vec<Step>,
    /// The guest-physical address; none where an entry was not present.
    pub physical: Option<u64>,
    /// The size of the page in bytes.
    pub page: u64,
}

/// Page tables in a guest's memory.
#[derive(Debug)]
pub struct Tables<'m> {
    memory: &'m Mapping,
    format: Format,
    /// The next free page for a table.
    next: u64,
}

impl<'m> Tables<'m> {
    /// An empty root at [`layout::TABLES`].
    pub fn new(memory: &'m Mapping, format: Format) -> Self {
        memory.write(layout::TABLES as usize, &[0; 4096]);
        Self { memory, format, next: layout::TABLES + 4096 }
    }

    /// Tables that are already in the memory, for walking.
    pub fn existing(memory: &'m Mapping, format: Format) -> Self {
        Self { memory, format, next: 0 }
    }

    /// Maps one page of 4 KiB.
    pub fn map(&mut self, virt: u64, physical: u64, flags: u64) {
        self.map_at(1, virt, physical, flags);
    }

    /// Maps one page of 2 MiB (of 4 MiB with two levels).
    pub fn map_large(&mut self, virt: u64, physical: u64, flags: u64) {
        self.map_at(2, virt, physical, flags | LARGE);
    }

    fn map_at(&mut self, leaf: u32, virt: u64, physical: u64, flags: u64) {
        let mut table = layout::TABLES;
        for level in (leaf + 1..=self.format.levels()).rev() {
            let entry = self.entry(table, self.format.index(virt, level));
            table = if entry & PRESENT != 0 {
                entry & ADDRESS
            } else {
                let new = self.next;
                self.next += 4096;
                self.memory.write(new as usize, &[0; 4096]);
                // The last entry decides what is allowed; those above allow everything.
                self.set_entry(
                    table,
                    self.format.index(virt, level),
                    new | PRESENT | WRITE | USER | ACCESSED,
                );
                new
            };
        }
        self.set_entry(table, self.format.index(virt, leaf), physical | flags);
    }

    /// Where a walk is done by hand.
    pub const HERE: kit::Place = kit::here!();

    /// Does what the processor does at a TLB miss: one load a level.
    pub fn walk(&self, virt: u64) -> Walk {
        let mut table = layout::TABLES;
        let mut steps = Vec::new();
        for level in (1..=self.format.levels()).rev() {
            let index = self.format.index(virt, level);
            let entry = self.entry(table, index);
            steps.push(Step { level, table, index, entry });
            let page = 1 << self.format.shift(level);
            if entry & PRESENT == 0 {
                return Walk { steps, physical: None, page };
            }
            if level == 1 || entry & LARGE != 0 {
                let physical = (entry & ADDRESS & !(page - 1)) | (virt & (page - 1));
                return Walk { steps, physical: Some(physical), page };
            }
            table = entry & ADDRESS;
        }
        unreachable!("level 1 always returns")
    }

    fn entry(&self, table: u64, index: u64) -> u64 {
        let mut bytes = [0; 8];
        let size = self.format.entry_size();
        self.memory.read((table + index * size) as usize, &mut bytes[..size as usize]);
        u64::from_le_bytes(bytes)
    }

    fn set_entry(&self, table: u64, index: u64, entry: u64) {
        let size = self.format.entry_size();
        self.memory.write((table + index * size) as usize, &entry.to_le_bytes()[..size as usize]);
    }
}

/// Memory loads of one nested walk: each of the guest's entries is at a guest-physical address, which
/// the host's tables translate first, and so is the final address.
///
/// `(guest + 1) * (host + 1) - 1`: 24 for four levels on four.
pub fn nested_loads(guest_levels: u32, host_levels: u32) -> u32 {
    (guest_levels + 1) * (host_levels + 1) - 1
}
