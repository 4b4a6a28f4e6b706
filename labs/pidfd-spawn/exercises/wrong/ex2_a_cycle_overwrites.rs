//! Fails `cycles_are_opened`: where no move is free the first one is done all the same: it destroys what the last of
//! its cycle reads.

use super::table::{Errno, Table};

/// One wish: the new program's `to` is what is open as `from` now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub from: i32,
    pub to: i32,
}

/// Gives every `to` what was open as its `from` when we were called, without FD_CLOEXEC.
pub fn remap(table: &mut dyn Table, moves: &[Move]) -> Result<(), Errno> {
    let (mut left, stay): (Vec<Move>, Vec<Move>) = moves.iter().partition(|m| m.from != m.to);
    for m in stay {
        // dup2 of a number onto itself does nothing, and leaves the flag.
        table.clear_cloexec(m.to)?;
    }
    let result = all(table, &mut left);
    result
}

/// Does all moves.
fn all(table: &mut dyn Table, left: &mut Vec<Move>) -> Result<(), Errno> {
    while !left.is_empty() {
        // Free: nobody still reads the number that this move overwrites.
        let free = left.iter().position(|m| left.iter().all(|other| other.from != m.to));
        let m = left.swap_remove(free.unwrap_or(0));
        table.dup2(m.from, m.to)?;
    }
    Ok(())
}
