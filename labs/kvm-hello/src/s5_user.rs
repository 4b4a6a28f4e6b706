//! Stage 5, two rings: the guest's ring 0 steps down to ring 3 and handles what comes back.
//!
//! Ring 3 tries `out`, which it may not: #GP, and ring 0 does it in its place. It stores to a page
//! that is not there: #PF, and ring 0 maps the page. Both handlers return to the very instruction.
//! That is what KVM does to a guest, done by a guest.

use kit::SysError;
use kvm_bindings::kvm_regs;

use crate::layout;
use crate::machine::Machine;
use crate::paging::{Format, Tables, USER};
use crate::s4_long::{KERNEL, long_mode};
use crate::segments::{task, write_idt, write_tss};

/// The page that the guest maps when ring 3 first touches it.
pub const LAZY_PAGE: u64 = 0xc000;

/// The handlers in `guest/user.s`, which puts them there with `.org`.
const GENERAL_PROTECTION: u64 = layout::CODE + 0x100;
const PAGE_FAULT: u64 = layout::CODE + 0x200;

/// Where ring 0 notes the address of the page fault (CR2).
pub const NOTED_ADDRESS: u64 = 0x408;
/// Where ring 0 notes its error code: bit 1 a write, bit 2 from ring 3.
pub const NOTED_CODE: u64 = 0x410;

/// Where the processor is put into this mode.
pub const HERE: kit::Place = kit::here!();

/// Puts the processor into 64-bit mode, ring 0, with an IDT, a TSS and a user half of memory.
///
/// # Errors
/// What the register calls say.
pub fn enter(machine: &mut Machine) -> Result<(), SysError> {
    let mut tables = Tables::new(machine.memory(), Format::FourLevels);
    for page in (0..machine.memory().len() as u64).step_by(4096) {
        let user = page == layout::USER_CODE || (layout::STACK..layout::USER_STACK).contains(&page);
        tables.map(page, page, KERNEL | if user { USER } else { 0 });
    }
    // Physical page 0 waits behind it, without the bit that makes it present.
    tables.map(LAZY_PAGE, 0, 0);

    let mut sregs = long_mode(machine, 0)?;
    write_tss(machine.memory());
    sregs.tr = task();
    sregs.idt = write_idt(machine.memory(), &[(13, GENERAL_PROTECTION), (14, PAGE_FAULT)]);
    machine.set_sregs(&sregs)?;
    machine.set_regs(&kvm_regs { rip: layout::CODE, rsp: layout::STACK, rflags: 2, ..Default::default() })
}
