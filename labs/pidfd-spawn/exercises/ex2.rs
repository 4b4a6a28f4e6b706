//! Exercise 2: descriptors for a new program. The statement is in the lab's README; `cargo xtask homework check pidfd-spawn
//! ex2` says how far you are.
//!
//! Between fork and exec a child gives its descriptors the numbers that the new program expects. "3 becomes 4, and 4 becomes
//! 3" cannot be done by two dup2: the first destroys what the second needs. And the flag that closes a descriptor at exec,
//! FD_CLOEXEC, belongs to the number, not to what is open: dup2 makes a copy without it, except of a number onto itself,
//! where it does nothing at all.
//!
//! The calls that you have are those of `Table`, in `tests/table/mod.rs`. Graded are the numbers, the flags, the count of
//! calls, and what is left after a call that failed. There are few descriptors: a number that you do not close is missing.

use super::table::{Errno, Table};

/// One wish: the new program's `to` is what is open as `from` now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub from: i32,
    pub to: i32,
}

/// Gives every `to` what was open as its `from` when we were called, without FD_CLOEXEC.
///
/// - No two moves have the same `to`. Several may have the same `from`. Every `from` is open.
/// - Numbers that are no target are left as they are, FD_CLOEXEC and all: a source, too, and what was there before.
/// - What you open for a while is closed again, or has FD_CLOEXEC; at most one such at a time is needed.
/// - At most one `dup2` for each move whose numbers differ, and one `dup_above` for each cycle. Nothing for a move onto
///   itself but to clear the flag.
///
/// If a call fails, its error is returned, and nothing that was opened for a while stays open.
pub fn remap(_table: &mut dyn Table, _moves: &[Move]) -> Result<(), Errno> {
    unimplemented!("TODO(you): which move can be done first, and what if none can?")
}
