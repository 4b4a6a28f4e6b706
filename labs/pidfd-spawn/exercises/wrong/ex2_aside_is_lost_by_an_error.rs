//! Fails `an_error_leaves_no_number_open`: an error leaves by `?`, and what was put aside stays open.

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
    let mut aside = None;
    all(table, &mut left, &mut aside)
}

/// Does all moves. `aside` is what is open for a while.
fn all(table: &mut dyn Table, left: &mut Vec<Move>, aside: &mut Option<i32>) -> Result<(), Errno> {
    while !left.is_empty() {
        // Free: nobody still reads the number that this move overwrites.
        let free = left.iter().position(|m| left.iter().all(|other| other.from != m.to));
        if let Some(i) = free {
            let m = left.swap_remove(i);
            table.dup2(m.from, m.to)?;
            if let Some(fd) = aside.take_if(|fd| *fd == m.from) {
                table.close(fd)?;
            }
        } else {
            // Only cycles are left, in which each number is read once. The first reads a copy: its number is free then.
            // The copy is in nobody's way: it gets a number that is not open, and all that are still to be written are.
            let copy = table.dup_above(left[0].from, 0)?;
            *aside = Some(copy);
            left[0].from = copy;
        }
    }
    Ok(())
}
