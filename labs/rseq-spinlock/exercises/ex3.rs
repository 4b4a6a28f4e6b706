//! Exercise 3: a critical section by hand. The statement is in the lab's README; `cargo xtask homework check rseq-spinlock
//! ex3` says how far you are.
//!
//! A free list for each CPU, with a limit. The first node and the count are in one word, so that one store changes both. Put a
//! node on the list of the CPU that you run on, by a restartable sequence: no lock, no locked instruction, and whatever
//! interrupts you before the last instruction, nothing has happened.
//!
//! The head of `src/sys/sections.rs` has the frame that the lab's sections share, `src/sys/ops.rs` what stands in it. You write
//! both, in one `asm!`: descriptor, abort handler with its signature, and the section. Graded are the list, the descriptor and
//! the instructions themselves, as the spec decodes them, and what comes of an interruption at each of them.

use super::section::{Link, List};

/// It is on the list.
pub const DONE: u32 = 0;
/// Interrupted before the commit: nothing has happened. Try again.
pub const ABORTED: u32 = 1;
/// There is no list for this CPU. Nothing has happened.
pub const NO_LIST: u32 = 2;
/// The list has `limit` nodes. Nothing has happened.
pub const FULL: u32 = 3;

/// One attempt to put `node`, which is on no list, on the list of this CPU.
///
/// `area` is where the calling thread's `struct rseq` is, counted from the base of `fs`: at `area + 4` is the number of the
/// CPU (32 bits), at `area + 8` the address of the descriptor that is armed (64 bits). The signature is `super::section::
/// SIGNATURE`. A list is 128 bytes long and starts with its `head`: the low 32 bits are 1 + the first node, or 0, the high 32
/// bits the count. What comes after a node is in its link: 1 + a node, or 0.
pub fn try_push(_area: isize, _lists: &[List], links: &[Link], node: u32, _limit: u32) -> u32 {
    let _link: *mut u32 = links[node as usize].0.as_ptr();
    // arm | 2: cpu_id, compare, our list | head; full? | link = first | head = commit | 3:
    unimplemented!("TODO(you): std::arch::asm!, with a SAFETY comment")
}
