//! Stage 3, 32-bit paging: the same program, and every address now goes through two tables.
//!
//! One 4 MiB entry would do. Small pages are used instead, so that a walk has both its steps.

use kit::SysError;
use kvm_bindings::kvm_regs;

use crate::layout;
use crate::machine::Machine;
use crate::paging::{ACCESSED, DIRTY, Format, PRESENT, Tables, WRITE};
use crate::segments::{CR0_ET, CR0_PE, CR0_PG, Width, set_flat, write_gdt};

/// Where the processor is put into this mode.
pub const HERE: kit::Place = kit::here!();

/// Puts the processor into flat 32-bit mode with two-level paging.
///
/// # Errors
/// What the register calls say.
pub fn enter(machine: &mut Machine) -> Result<(), SysError> {
    let mut tables = Tables::new(machine.memory(), Format::TwoLevels);
    for page in (0..machine.memory().len() as u64).step_by(4096) {
        tables.map(page, page, PRESENT | WRITE | ACCESSED | DIRTY);
    }
    let mut sregs = machine.sregs()?;
    sregs.gdt = write_gdt(machine.memory(), Width::Bits32);
    sregs.cr3 = layout::TABLES;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    set_flat(&mut sregs, Width::Bits32, 0);
    machine.set_sregs(&sregs)?;
    machine.set_regs(&kvm_regs { rip: layout::CODE, rsp: layout::STACK, rflags: 2, ..Default::default() })
}
