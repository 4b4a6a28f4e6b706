//! Stage 1, real mode: the state in which every x86 processor wakes up, almost.
//!
//! After reset the code segment's base is 0xffff0000, where a PC has its firmware. We have none, so
//! the base becomes 0 and the instruction pointer the address of our program.

use kit::SysError;
use kvm_bindings::kvm_regs;

use crate::layout;
use crate::machine::Machine;

/// Where the processor is put into this mode.
pub const HERE: kit::Place = kit::here!();

/// Puts the processor at the first instruction of the program.
///
/// # Errors
/// What the register calls say.
pub fn enter(machine: &mut Machine) -> Result<(), SysError> {
    let mut sregs = machine.sregs()?;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    machine.set_sregs(&sregs)?;
    // Bit 1 of RFLAGS is always 1; nothing else is set, so interrupts are off.
    machine.set_regs(&kvm_regs { rip: layout::CODE, rsp: layout::STACK, rflags: 2, ..Default::default() })
}
