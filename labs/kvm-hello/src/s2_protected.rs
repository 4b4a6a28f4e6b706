//! Stage 2, protected mode: one bit of CR0, and segments become descriptors.
//!
//! A guest does this itself with `lgdt`, `mov cr0` and a far jump that loads CS. KVM lets us set the
//! outcome: the hidden part of each segment register, which the jump would have filled from the table.

use kit::SysError;
use kvm_bindings::kvm_regs;

use crate::layout;
use crate::machine::Machine;
use crate::segments::{CR0_ET, CR0_PE, Width, set_flat, write_gdt};

/// Where the processor is put into this mode.
pub const HERE: kit::Place = kit::here!();

/// Puts the processor into flat 32-bit mode without paging.
///
/// # Errors
/// What the register calls say.
pub fn enter(machine: &mut Machine) -> Result<(), SysError> {
    let mut sregs = machine.sregs()?;
    sregs.gdt = write_gdt(machine.memory(), Width::Bits32);
    sregs.cr0 = CR0_PE | CR0_ET;
    set_flat(&mut sregs, Width::Bits32, 0);
    machine.set_sregs(&sregs)?;
    machine.set_regs(&kvm_regs { rip: layout::CODE, rsp: layout::STACK, rflags: 2, ..Default::default() })
}
