//! Where things are in the guest's physical memory.
//!
//! ```text
//! 0x0000  nothing (a null pointer should not hit anything)
//! 0x0400  result         where every guest leaves its 42
//! 0x0500  GDT            segment descriptors
//! 0x0600  TSS            the stack that ring 3 falls back to ring 0 with
//! 0x0800  IDT            48 gates of 16 bytes
//! 0x1000  code           the program; ring-3 code from 0x2000
//! 0x8000  stack top of ring 0
//! 0xb000  stack top of ring 3
//! 0x10000 page tables, one page each, as many as needed
//! ```

/// Where every guest leaves its result.
pub const RESULT: u64 = 0x400;
/// Segment descriptors.
pub const GDT: u64 = 0x500;
/// Task state segment.
pub const TSS: u64 = 0x600;
/// Interrupt descriptors.
pub const IDT: u64 = 0x800;
/// Gates in the IDT: exceptions 0–31 and the 16 lines of the two PICs.
pub const IDT_GATES: u64 = 48;
/// The program.
pub const CODE: u64 = 0x1000;
/// Code for ring 3.
pub const USER_CODE: u64 = 0x2000;
/// Stack top of ring 0.
pub const STACK: u64 = 0x8000;
/// Stack top of ring 3.
pub const USER_STACK: u64 = 0xb000;
/// The root of the page tables; more follow.
pub const TABLES: u64 = 0x1_0000;
/// A PC's memory for the small guests: 2 MiB.
pub const SMALL: usize = 2 << 20;
/// No memory here, ever: what the guest does at this address, the host sees.
pub const MMIO: u64 = 0x1000_0000;
/// The result every guest computes: six times seven.
pub const ANSWER: u64 = 42;
