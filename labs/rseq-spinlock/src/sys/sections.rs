//! The critical sections, in assembly.
//!
//! A restartable sequence is a stretch of instructions whose *last* one is a single store: the commit. If the
//! kernel preempts, migrates or signals the thread inside the stretch, it sends it to the abort handler
//! instead of back, so the commit is reached only by a thread that has had its CPU to itself since the first
//! instruction. No lock prefix, no fence.
//!
//! What the kernel needs to know stands in a descriptor, `struct rseq_cs`, one for each section:
//!
//! ```text
//! version, flags   0, 0
//! start_ip         label 2: the first instruction inside
//! post_commit      label 3 - label 2: the length; the commit is the last instruction before 3
//! abort_ip         label 5: the handler, and the four bytes before it must be the signature
//! ```
//!
//! The frame that all sections share, from top to bottom (`section!` below):
//!
//! ```text
//!     lea  t, [descriptor]
//!     mov  fs:[rseq_cs], t     armed: from label 2 on, the kernel looks at the descriptor
//! 2:  mov  i, fs:[cpu_id]      which slot is ours; must be read inside, or it may be stale
//!     cmp  i, slots            never trust an index, not even the kernel's
//!     jae  8f
//!     imul i, STRIDE
//!     lea  s, [base + i]       s: our slot
//!     …                        the section's own instructions; the last is the commit
//! 3:  xor  out, out            done. Outside already: an abort here is none
//! 4:                           the end, for early leavers too
//! ```
//!
//! and out of line:
//!
//! ```text
//!     ud1  ..., SIGNATURE      never executed: its last four bytes are the signature
//! 5:  mov  out, ABORTED
//!     jmp  4b
//! 8:  mov  out, NO_SLOT        the CPU number is beyond our slots
//!     jmp  4b
//! ```
//!
//! Nothing disarms: the kernel clears `rseq_cs` when it next finds the thread outside of the section.
//!
//! The sections take `ARMED`. With `false` they store 0 instead of the descriptor's address: the same
//! instructions, but the kernel does not know them for a section. That is the control group of the tests.
#![allow(unsafe_code, reason = "critical sections are assembly")]

use std::arch::global_asm;

use super::rseq::{CPU_ID, MM_CID};

/// What an attempt came to. The values are those that the assembly puts into `out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// Committed.
    Done,
    /// Interrupted before the commit: nothing has happened. Try again.
    Aborted,
    /// The index is beyond the slots. Nothing has happened.
    NoSlot,
    /// Left early: empty, full or held. Nothing has happened.
    Refused,
    /// The slot is closed: another thread is emptying it. Nothing has happened.
    Closed,
}

pub(super) const ABORTED: u32 = 1;
pub(super) const NO_SLOT: u32 = 2;
pub(super) const REFUSED: u32 = 3;
pub(super) const CLOSED: u32 = 4;

impl Try {
    pub(super) fn from_out(out: u32) -> Self {
        match out {
            0 => Self::Done,
            ABORTED => Self::Aborted,
            NO_SLOT => Self::NoSlot,
            REFUSED => Self::Refused,
            _ => Self::Closed,
        }
    }
}

/// What a section is indexed by: the offset of a field of `struct rseq`. Sealed, for the assembly loads from
/// there.
pub trait Index: Copy + Send + Sync + crate::raw::sealed::Sealed {
    /// Offset of the field, in bytes.
    const FIELD: usize;
}

/// By CPU number: one slot for each possible CPU.
#[derive(Debug, Clone, Copy)]
pub struct ByCpu;

impl crate::raw::sealed::Sealed for ByCpu {}

impl Index for ByCpu {
    const FIELD: usize = CPU_ID;
}

/// By concurrency id: one slot for each thread that can run at once. [`Thread::mm_cid`] must be there.
#[derive(Debug, Clone, Copy)]
pub struct ByCid;

impl crate::raw::sealed::Sealed for ByCid {}

impl Index for ByCid {
    const FIELD: usize = MM_CID;
}

/// Which section an entry of the table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// [`ops::counter_add`](super::ops::counter_add).
    CounterAdd = 0,
    /// [`ops::list_push`](super::ops::list_push).
    ListPush = 1,
    /// [`ops::list_pop`](super::ops::list_pop).
    ListPop = 2,
    /// [`ops::ring_push`](super::ops::ring_push).
    RingPush = 3,
    /// [`ops::ring_pop`](super::ops::ring_pop).
    RingPop = 4,
    /// [`ops::lock_take`](super::ops::lock_take).
    LockTake = 5,
}

/// All kinds, in the order of their numbers.
pub const KINDS: [Kind; 6] =
    [Kind::CounterAdd, Kind::ListPush, Kind::ListPop, Kind::RingPush, Kind::RingPop, Kind::LockTake];

/// A section in this program's text: a line of a table that the assembly leaves in a section of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// `Kind` as a number.
    kind: u32,
    /// 1 if the descriptor is armed.
    armed: u32,
    /// Address of the descriptor.
    pub descriptor: u64,
    /// First instruction of the frame, before the section.
    pub frame_ip: u64,
    /// First instruction inside.
    pub start_ip: u64,
    /// First instruction after the commit.
    pub post_commit_ip: u64,
    /// The abort handler.
    pub abort_ip: u64,
}

impl Entry {
    /// Which section.
    pub fn kind(&self) -> Kind {
        KINDS[self.kind as usize]
    }

    /// The code from the frame to the commit, and the abort handler's first bytes with the signature before
    /// them.
    pub fn code(&self) -> (&'static [u8], &'static [u8]) {
        (text(self.frame_ip, self.post_commit_ip), text(self.abort_ip - 4, self.abort_ip + 10))
    }

    /// Whether the kernel is told of it.
    pub fn armed(&self) -> bool {
        self.armed != 0
    }
}

/// Bytes of this program's code.
fn text(from: u64, to: u64) -> &'static [u8] {
    // SAFETY: both are addresses that `section!` left in the table, of labels in this program's text, which
    // is mapped readable, never written and never unmapped; `to` is at most the end of the abort handler: a
    // 5-byte mov and a 5-byte jmp to another section.
    unsafe { std::slice::from_raw_parts(from as *const u8, (to - from) as usize) }
}

// So that the table exists, and with it the two symbols that the linker makes, even if no section was linked.
global_asm!(".pushsection rseq_sections, \"awR\"", ".balign 8", ".popsection");

unsafe extern "C" {
    #[link_name = "__start_rseq_sections"]
    static TABLE_START: Entry;
    #[link_name = "__stop_rseq_sections"]
    static TABLE_STOP: Entry;
}

/// All sections in this program, armed and not. One function can be there more than once: it is inlined.
pub fn table() -> &'static [Entry] {
    let start = &raw const TABLE_START;
    let bytes = (&raw const TABLE_STOP).addr() - start.addr();
    // SAFETY: the linker puts both symbols around the section, which holds `Entry`s only (48 bytes,
    // 8-aligned, constant after relocation).
    unsafe { std::slice::from_raw_parts(start, bytes / size_of::<Entry>()) }
}

/// Assembles a section within the frame of the module doc.
macro_rules! section {
    (
        $kind:ident, $armed:ident, $index:ident, $thread:ident, $slots:ident: $slot:ty,
        [$($line:literal)*], $($operand:tt)*
    ) => {{
        let out: u32;
        if $armed {
            section!(@frame "lea {t}, [rip + 6b]", 1, $kind, $index, $thread, $slots: $slot, out, [$($line)*], $($operand)*);
        } else {
            section!(@frame "xor {t:e}, {t:e}", 0, $kind, $index, $thread, $slots: $slot, out, [$($line)*], $($operand)*);
        }
        Try::from_out(out)
    }};
    (
        @frame $load:literal, $is_armed:literal, $kind:ident, $index:ident, $thread:ident, $slots:ident: $slot:ty,
        $out:ident, [$($line:literal)*], $($operand:tt)*
    ) => {
        asm!(
            // The descriptor: struct rseq_cs, 32-byte aligned.
            ".pushsection __rseq_cs, \"aw\"",
            ".balign 32",
            "6:",
            ".long 0, 0",
            ".quad 2f, 3f - 2f, 5f",
            ".popsection",
            // The table of `table()`.
            ".pushsection rseq_sections, \"awR\"",
            concat!(".long {kind}, ", $is_armed),
            ".quad 6b, 7f, 2f, 3f, 5f",
            ".popsection",
            // The abort handler, behind its signature.
            ".pushsection .text.rseq_abort, \"ax\"",
            ".byte 0x0f, 0xb9, 0x3d",
            ".long {signature}",
            "5:",
            "mov {out:e}, {aborted}",
            "jmp 4f",
            "8:",
            "mov {out:e}, {no_slot}",
            "jmp 4f",
            ".popsection",
            // The section.
            "7:",
            $load,
            "mov qword ptr fs:[{rseq} + {cs}], {t}",
            "2:",
            "mov {s:e}, dword ptr fs:[{rseq} + {field}]",
            "cmp {s:e}, {slots:e}",
            "jae 8b",
            "imul {s}, {s}, {stride}",
            "add {s}, {base}",
            $($line,)*
            "3:",
            "xor {out:e}, {out:e}",
            "4:",
            out = out(reg) $out,
            t = out(reg) _,
            s = out(reg) _,
            rseq = in(reg) $thread.place().offset,
            slots = in(reg) $slots.len() as u32,
            base = in(reg) $slots.as_ptr(),
            cs = const RSEQ_CS,
            field = const $index::FIELD,
            stride = const size_of::<$slot>(),
            kind = const Kind::$kind as u32,
            signature = const SIGNATURE,
            aborted = const ABORTED,
            no_slot = const NO_SLOT,
            $($operand)*
            options(nostack),
        )
    };
}

pub(super) use section;
