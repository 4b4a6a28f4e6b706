//! The five stages of the x86 boot path, each a file: what the processor has to be told.

use kit::SysError;

use crate::layout;
use crate::machine::{Machine, Plan};
use crate::paging::Format;
use crate::sys::guest::{self, Assembled};
use crate::{s1_real, s2_protected, s3_paging32, s4_long, s5_user};

/// A mode of the processor, in the order in which a PC's start passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// 16 bits: segments are addresses divided by 16, and everything is allowed.
    Real,
    /// 32 bits: segments are descriptors in a table.
    Protected,
    /// 32 bits, and addresses go through two levels of page tables.
    Paging32,
    /// 64 bits, four levels of page tables.
    Long,
    /// 64 bits, ring 3: exceptions lead back to ring 0.
    User,
}

impl Mode {
    /// All, in order.
    pub const ALL: [Mode; 5] = [Mode::Real, Mode::Protected, Mode::Paging32, Mode::Long, Mode::User];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Real => "real",
            Mode::Protected => "protected",
            Mode::Paging32 => "paging32",
            Mode::Long => "long",
            Mode::User => "user",
        }
    }

    /// How wide the code is: 16, 32 or 64.
    pub fn bits(self) -> u32 {
        match self {
            Mode::Real => 16,
            Mode::Protected | Mode::Paging32 => 32,
            Mode::Long | Mode::User => 64,
        }
    }

    /// The page tables, if addresses go through any.
    pub fn paging(self) -> Option<Format> {
        match self {
            Mode::Real | Mode::Protected => None,
            Mode::Paging32 => Some(Format::TwoLevels),
            Mode::Long | Mode::User => Some(Format::FourLevels),
        }
    }

    /// The guest's program.
    pub fn program(self) -> Assembled {
        match self {
            Mode::Real => guest::real(),
            Mode::Protected | Mode::Paging32 => guest::protected(),
            Mode::Long => guest::long(),
            Mode::User => guest::user(),
        }
    }

    /// What the guest says when all goes well.
    pub fn hello(self) -> &'static str {
        match self {
            Mode::Real => "Hello from real mode\n",
            Mode::Protected | Mode::Paging32 => "Hello from 32 bits\n",
            Mode::Long => "Hello from 64 bits\n",
            Mode::User => "Hello from ring 3\n",
        }
    }

    /// The virtual address through which the guest stores its result.
    pub fn result_address(self) -> u64 {
        match self {
            Mode::Real | Mode::Protected | Mode::Paging32 => layout::RESULT,
            Mode::Long => s4_long::WINDOW + layout::RESULT,
            Mode::User => s5_user::LAZY_PAGE + layout::RESULT,
        }
    }

    /// Where the mode is entered.
    pub fn here(self) -> kit::Place {
        match self {
            Mode::Real => s1_real::HERE,
            Mode::Protected => s2_protected::HERE,
            Mode::Paging32 => s3_paging32::HERE,
            Mode::Long => s4_long::HERE,
            Mode::User => s5_user::HERE,
        }
    }

    /// Where a program is put into a machine's memory.
    pub const LOADING: kit::Place = kit::here!();

    /// A machine with the program loaded and the processor in this mode, not yet run.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn machine(self) -> Result<Machine, SysError> {
        let mut machine = Machine::build(&Plan { cpuid: self.bits() == 64, ..Plan::default() })?;
        machine.memory().write(layout::CODE as usize, self.program().bytes);
        match self {
            Mode::Real => s1_real::enter(&mut machine)?,
            Mode::Protected => s2_protected::enter(&mut machine)?,
            Mode::Paging32 => s3_paging32::enter(&mut machine)?,
            Mode::Long => s4_long::enter(&mut machine)?,
            Mode::User => s5_user::enter(&mut machine)?,
        }
        Ok(machine)
    }
}
