//! Stage 4, long mode: 64 bits. Paging is not optional here, and tables have four levels.
//!
//! Low memory is mapped where it is with 2 MiB pages; one 4 KiB page of it appears a second time at
//! [`WINDOW`], an address with a different index on each level, so that a walk is worth drawing.

use kit::SysError;
use kvm_bindings::{kvm_regs, kvm_sregs};

use crate::layout;
use crate::machine::Machine;
use crate::paging::{ACCESSED, DIRTY, Format, PRESENT, Tables, USER, WRITE};
use crate::segments::{CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, Width, set_flat, write_gdt};

/// A virtual page that leads to physical page 0: PML4 entry 36, PDPT 209, PD 179, PT 393.
pub const WINDOW: u64 = 0x1234_5678_9000;

/// Flags of a page that ring 0 may read and write, its tables never to be written by the processor.
pub(crate) const KERNEL: u64 = PRESENT | WRITE | ACCESSED | DIRTY;

/// Where the processor is put into this mode.
pub const HERE: kit::Place = kit::here!();

/// Puts the processor into 64-bit mode, ring 0.
///
/// # Errors
/// What the register calls say.
pub fn enter(machine: &mut Machine) -> Result<(), SysError> {
    let mut tables = map_low_memory(machine, 0);
    tables.map(WINDOW, 0, KERNEL);
    let sregs = long_mode(machine, 0)?;
    machine.set_sregs(&sregs)?;
    machine.set_regs(&kvm_regs { rip: layout::CODE, rsp: layout::STACK, rflags: 2, ..Default::default() })
}

/// Maps all memory, and 2 MiB of nothing at [`layout::MMIO`], where they are; `extra` may be [`USER`].
pub(crate) fn map_low_memory(machine: &Machine, extra: u64) -> Tables<'_> {
    let mut tables = Tables::new(machine.memory(), Format::FourLevels);
    for page in (0..machine.memory().len() as u64).step_by(2 << 20) {
        tables.map_large(page, page, KERNEL | extra);
    }
    tables.map_large(layout::MMIO, layout::MMIO, KERNEL | extra);
    tables
}

/// The system registers of 64-bit mode, in ring 0 or 3.
pub(crate) fn long_mode(machine: &mut Machine, ring: u8) -> Result<kvm_sregs, SysError> {
    let mut sregs = machine.sregs()?;
    sregs.gdt = write_gdt(machine.memory(), Width::Bits64);
    sregs.cr3 = layout::TABLES;
    sregs.cr4 |= CR4_PAE;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    // On a real machine, LME is set by hand and the processor sets LMA as paging goes on.
    sregs.efer = EFER_LME | EFER_LMA;
    set_flat(&mut sregs, Width::Bits64, ring);
    Ok(sregs)
}

/// Puts the processor into 64-bit mode in ring 3 at once, all memory open to it and I/O allowed.
///
/// For guests that only compute: ring 3 runs at full speed even where KVM emulates ring 0.
///
/// # Errors
/// What the register calls say.
pub fn enter_ring3(machine: &mut Machine, regs: kvm_regs) -> Result<(), SysError> {
    map_low_memory(machine, USER);
    let sregs = long_mode(machine, 3)?;
    machine.set_sregs(&sregs)?;
    // IOPL 3: ring 3 may use ports.
    machine.set_regs(&kvm_regs { rsp: layout::USER_STACK, rflags: 2 | 3 << 12, ..regs })
}
