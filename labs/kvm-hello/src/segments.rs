//! Segment descriptors and gates, as the processor wants them in memory and in `struct kvm_segment`.
//!
//! Intel SDM volume 3, sections 3.4.5 (descriptors), 6.14.1 (64-bit gates), 7.7 (64-bit TSS).

use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs};

use crate::layout;
use crate::sys::mem::Mapping;

/// Bit 0 of CR0: protected mode.
pub const CR0_PE: u64 = 1 << 0;
/// Bit 4 of CR0: fixed to 1 on every processor since the 486.
pub const CR0_ET: u64 = 1 << 4;
/// Bit 31 of CR0: paging.
pub const CR0_PG: u64 = 1 << 31;
/// Bit 4 of CR4: large pages with two-level paging.
pub const CR4_PSE: u64 = 1 << 4;
/// Bit 5 of CR4: 8-byte page-table entries, which long mode wants.
pub const CR4_PAE: u64 = 1 << 5;
/// Bit 8 of EFER: long mode wanted.
pub const EFER_LME: u64 = 1 << 8;
/// Bit 10 of EFER: long mode in force.
pub const EFER_LMA: u64 = 1 << 10;

/// Selectors of the descriptors that [`write_gdt`] writes.
pub mod selector {
    /// Ring-0 code.
    pub const CODE: u16 = 0x08;
    /// Ring-0 data and stack.
    pub const DATA: u16 = 0x10;
    /// Ring-3 code: index 3, privilege 3.
    pub const USER_CODE: u16 = 0x18 | 3;
    /// Ring-3 data and stack: index 4, privilege 3.
    pub const USER_DATA: u16 = 0x20 | 3;
    /// The task state segment.
    pub const TSS: u16 = 0x28;
}

/// How wide code in a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// D = 1, L = 0.
    Bits32,
    /// D = 0, L = 1.
    Bits64,
}

/// A flat code segment: base 0, limit 4 GiB (which 64-bit mode ignores).
pub fn code(width: Width, ring: u8) -> kvm_segment {
    let selector = if ring == 0 { selector::CODE } else { selector::USER_CODE };
    kvm_segment {
        // Execute, read, accessed.
        type_: 0xb,
        db: u8::from(width == Width::Bits32),
        l: u8::from(width == Width::Bits64),
        ..flat(selector, ring)
    }
}

/// A flat data segment.
pub fn data(ring: u8) -> kvm_segment {
    let selector = if ring == 0 { selector::DATA } else { selector::USER_DATA };
    // Read, write, accessed.
    kvm_segment { type_: 0x3, db: 1, ..flat(selector, ring) }
}

fn flat(selector: u16, ring: u8) -> kvm_segment {
    kvm_segment { limit: 0xffff_ffff, selector, present: 1, dpl: ring, s: 1, g: 1, ..Default::default() }
}

/// The task state segment at [`layout::TSS`], busy, as it is once loaded.
pub fn task() -> kvm_segment {
    kvm_segment {
        base: layout::TSS,
        limit: 103,
        selector: selector::TSS,
        type_: 0xb,
        present: 1,
        ..Default::default()
    }
}

/// Puts flat segments of a ring into all segment registers.
pub fn set_flat(sregs: &mut kvm_sregs, width: Width, ring: u8) {
    sregs.cs = code(width, ring);
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data(ring);
    }
}

/// The eight bytes of a descriptor: the fields are scattered for the sake of the 80286.
pub fn descriptor(segment: &kvm_segment) -> u64 {
    // With g set, the limit counts pages.
    let limit = u64::from(if segment.g == 1 { segment.limit >> 12 } else { segment.limit });
    let access = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let flags = u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | u64::from(segment.g) << 3;
    limit & 0xffff
        | (segment.base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (segment.base >> 24 & 0xff) << 56
}

/// Writes null, ring-0 code and data, ring-3 code and data, and the TSS; returns the register's value.
pub fn write_gdt(memory: &Mapping, width: Width) -> kvm_dtable {
    // In memory the TSS is "available" (9); loading makes it busy (11).
    let available = kvm_segment { type_: 0x9, ..task() };
    let table = [
        0,
        descriptor(&code(width, 0)),
        descriptor(&data(0)),
        descriptor(&code(width, 3)),
        descriptor(&data(3)),
        descriptor(&available),
        // In 64-bit mode a system descriptor takes two places: bits 63..32 of the base.
        layout::TSS >> 32,
    ];
    for (i, entry) in table.iter().enumerate() {
        memory.write(layout::GDT as usize + 8 * i, &entry.to_le_bytes());
    }
    kvm_dtable { base: layout::GDT, limit: (8 * table.len() - 1) as u16, ..Default::default() }
}

/// Writes a TSS that says only which stack ring 0 gets when ring 3 traps.
pub fn write_tss(memory: &Mapping) {
    memory.write(layout::TSS as usize, &[0; 104]);
    memory.write(layout::TSS as usize + 4, &layout::STACK.to_le_bytes());
}

/// Writes 64-bit interrupt gates for some vectors, the others absent; returns the register's value.
pub fn write_idt(memory: &Mapping, gates: &[(u8, u64)]) -> kvm_dtable {
    let len = 16 * layout::IDT_GATES;
    memory.write(layout::IDT as usize, &vec![0; len as usize]);
    for (vector, handler) in gates {
        // Present, ring 0, type 0xe: interrupt gate (interrupts off in the handler).
        let low = handler & 0xffff
            | u64::from(selector::CODE) << 16
            | 0x8e00 << 32
            | (handler >> 16 & 0xffff) << 48;
        let at = layout::IDT as usize + 16 * usize::from(*vector);
        memory.write(at, &low.to_le_bytes());
        memory.write(at + 8, &(handler >> 32).to_le_bytes());
    }
    kvm_dtable { base: layout::IDT, limit: (len - 1) as u16, ..Default::default() }
}
