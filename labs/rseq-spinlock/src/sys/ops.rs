//! What the sections do between the frame and the commit; the frame is in [`sections`](super::sections).
//!
//! All take the calling thread, the slots, and say what came of the *one* attempt; the loops around them are
//! in [`percpu`](crate::percpu). Names of operands: `s` points to our slot, `t` is scratch, `out` is the
//! answer.
#![allow(unsafe_code, reason = "critical sections are assembly")]

use std::arch::asm;
use std::mem::offset_of;

use super::rseq::{RSEQ_CS, SIGNATURE, Thread};
use super::sections::{ABORTED, CLOSED, Index, Kind, NO_SLOT, REFUSED, Try, section};
use crate::percpu::{Count, Held, Link, List, RING, Ring};

/// Adds 1 to our slot.
///
/// ```text
/// mov  t, [s]              the count
/// inc  t
/// mov  [s], t              commit
/// ```
#[inline(always)]
pub fn counter_add<I: Index, const ARMED: bool>(thread: Thread, slots: &[Count]) -> Try {
    // SAFETY: fs:[rseq] is the calling thread's area (`Thread` proves it). s points to one of `slots`: the
    // bounds check sees to that. What is there is atomic, so others may read it meanwhile. An abort changes
    // no register but `out`, and all are declared.
    unsafe {
        section!(CounterAdd, ARMED, I, thread, slots: Count, [
            "mov {t}, qword ptr [{s}]"
            "inc {t}"
            "mov qword ptr [{s}], {t}"
        ],)
    }
}

/// Puts `node`, which must be on no list, on ours. Heads and links hold index + 1; 0 is the end.
///
/// ```text
/// mov  out, CLOSED
/// cmp  [s + closed], 0     is someone emptying the slot?
/// jne  4f
/// mov  t, [s]              the first node
/// mov  [link], t           comes after ours; ours is not yet to be seen, so this is no commit
/// mov  [s], node1          commit: ours is the first
/// ```
#[inline(always)]
pub fn list_push<I: Index, const ARMED: bool>(
    thread: Thread,
    slots: &[List],
    links: &[Link],
    node: u32,
) -> Try {
    let link = links[node as usize].0.as_ptr();
    // SAFETY: as in `counter_add`; `link` points to an atomic inside `links`.
    unsafe {
        section!(ListPush, ARMED, I, thread, slots: List, [
            "mov {out:e}, {is_closed}"
            "cmp dword ptr [{s} + {closed}], 0"
            "jne 4f"
            "mov {t:e}, dword ptr [{s}]"
            "mov dword ptr [{link}], {t:e}"
            "mov dword ptr [{s}], {node1:e}"
        ],
            link = in(reg) link,
            node1 = in(reg) node + 1,
            closed = const offset_of!(List, closed),
            is_closed = const CLOSED,
        )
    }
}

/// Takes the first node off our list. Refused: the list is empty.
///
/// ```text
/// mov  out, CLOSED
/// cmp  [s + closed], 0
/// jne  4f
/// mov  out, REFUSED
/// mov  node1, [s]          the first node
/// test node1, node1        none?
/// jz   4f
/// mov  t, [links + node1*4 - 4]     the one after it
/// mov  [s], t              commit: that is the first now
/// ```
///
/// With compare-and-swap instead, this pop has the ABA problem: the first node may have gone and come back,
/// with another after it. Here, whoever could have done that on this CPU would have aborted us.
#[inline(always)]
pub fn list_pop<I: Index, const ARMED: bool>(thread: Thread, slots: &[List], links: &[Link]) -> (Try, u32) {
    let node1: u32;
    // SAFETY: as in `counter_add`; node1 is 0 or 1 + an index into `links`, for only `list_push` writes
    // heads, and it has checked.
    let tried = unsafe {
        section!(ListPop, ARMED, I, thread, slots: List, [
            "mov {out:e}, {is_closed}"
            "cmp dword ptr [{s} + {closed}], 0"
            "jne 4f"
            "mov {out:e}, {refused}"
            "mov {node1:e}, dword ptr [{s}]"
            "test {node1:e}, {node1:e}"
            "jz 4f"
            "mov {t:e}, dword ptr [{links} + {node1:r} * 4 - 4]"
            "mov dword ptr [{s}], {t:e}"
        ],
            node1 = out(reg) node1,
            links = in(reg) links.as_ptr(),
            closed = const offset_of!(List, closed),
            is_closed = const CLOSED,
            refused = const REFUSED,
        )
    };
    (tried, node1.wrapping_sub(1))
}

/// Appends to our ring. Refused: it is full.
///
/// ```text
/// mov  out, REFUSED
/// mov  t, [s + tail]       how many have been put in, ever
/// mov  i, t
/// sub  i, [s + head]       how many are in it
/// cmp  i, RING
/// jae  4f
/// mov  i, t
/// and  i, RING - 1
/// mov  [s + items + i*8], value     beyond the tail: not yet to be seen
/// inc  t
/// mov  [s + tail], t       commit
/// ```
#[inline(always)]
pub fn ring_push<I: Index, const ARMED: bool>(thread: Thread, slots: &[Ring], value: u64) -> Try {
    // SAFETY: as in `counter_add`; i is below RING, so the item is inside the slot.
    unsafe {
        section!(RingPush, ARMED, I, thread, slots: Ring, [
            "mov {out:e}, {refused}"
            "mov {t}, qword ptr [{s} + {tail}]"
            "mov {i}, {t}"
            "sub {i}, qword ptr [{s} + {head}]"
            "cmp {i}, {ring}"
            "jae 4f"
            "mov {i}, {t}"
            "and {i}, {ring} - 1"
            "mov qword ptr [{s} + {items} + {i} * 8], {value}"
            "inc {t}"
            "mov qword ptr [{s} + {tail}], {t}"
        ],
            i = out(reg) _,
            value = in(reg) value,
            head = const offset_of!(Ring, head),
            tail = const offset_of!(Ring, tail),
            items = const offset_of!(Ring, items),
            ring = const RING,
            refused = const REFUSED,
        )
    }
}

/// Takes the oldest from our ring. Refused: it is empty.
///
/// ```text
/// mov  out, REFUSED
/// mov  t, [s + head]       how many have been taken out, ever
/// cmp  t, [s + tail]
/// je   4f
/// mov  i, t
/// and  i, RING - 1
/// mov  value, [s + items + i*8]
/// inc  t
/// mov  [s + head], t       commit
/// ```
#[inline(always)]
pub fn ring_pop<I: Index, const ARMED: bool>(thread: Thread, slots: &[Ring]) -> (Try, u64) {
    let value: u64;
    // SAFETY: as in `ring_push`.
    let tried = unsafe {
        section!(RingPop, ARMED, I, thread, slots: Ring, [
            "mov {out:e}, {refused}"
            "mov {t}, qword ptr [{s} + {head}]"
            "cmp {t}, qword ptr [{s} + {tail}]"
            "je 4f"
            "mov {value}, {t}"
            "and {value}, {ring} - 1"
            "mov {value}, qword ptr [{s} + {items} + {value} * 8]"
            "inc {t}"
            "mov qword ptr [{s} + {head}], {t}"
        ],
            value = out(reg) value,
            head = const offset_of!(Ring, head),
            tail = const offset_of!(Ring, tail),
            items = const offset_of!(Ring, items),
            ring = const RING,
            refused = const REFUSED,
        )
    };
    (tried, value)
}

/// Takes the lock of the CPU that we are on, and says which that is. Refused: held, by a thread that was
/// moved off or preempted.
///
/// ```text
/// mov  out, REFUSED
/// cmp  [s], 0              held?
/// jne  4f
/// mov  slot, fs:[cpu_id]   for the unlock, which may happen elsewhere
/// mov  [s], 1              commit: a plain store, where other locks need a locked instruction
/// ```
#[inline(always)]
pub fn lock_take<I: Index, const ARMED: bool>(thread: Thread, slots: &[Held]) -> (Try, u32) {
    let slot: u32;
    // SAFETY: as in `counter_add`.
    let tried = unsafe {
        section!(LockTake, ARMED, I, thread, slots: Held, [
            "mov {out:e}, {refused}"
            "cmp dword ptr [{s}], 0"
            "jne 4f"
            "mov {slot:e}, dword ptr fs:[{rseq} + {field}]"
            "mov dword ptr [{s}], 1"
        ],
            slot = out(reg) slot,
            refused = const REFUSED,
        )
    };
    (tried, slot)
}
