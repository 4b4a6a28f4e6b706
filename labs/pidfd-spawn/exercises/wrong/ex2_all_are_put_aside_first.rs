//! Fails `few_calls_and_few_numbers`: every source is copied out of the way first: right, but it takes more calls
//! than needed and as many free numbers as there are moves.

use super::table::{Errno, Table};

/// One wish: the new program's `to` is what is open as `from` now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub from: i32,
    pub to: i32,
}

/// Gives every `to` what was open as its `from` when we were called, without FD_CLOEXEC.
pub fn remap(table: &mut dyn Table, moves: &[Move]) -> Result<(), Errno> {
    let (left, stay): (Vec<Move>, Vec<Move>) = moves.iter().partition(|m| m.from != m.to);
    for m in stay {
        // dup2 of a number onto itself does nothing, and leaves the flag.
        table.clear_cloexec(m.to)?;
    }
    let above = moves.iter().map(|m| m.to + 1).max().unwrap_or(0);
    let mut copies = Vec::new();
    let result = all(table, &left, above, &mut copies);
    for copy in copies {
        let _ = table.close(copy);
    }
    result
}

fn all(table: &mut dyn Table, left: &[Move], above: i32, copies: &mut Vec<i32>) -> Result<(), Errno> {
    for m in left {
        copies.push(table.dup_above(m.from, above)?);
    }
    for (m, copy) in left.iter().zip(copies) {
        table.dup2(*copy, m.to)?;
    }
    Ok(())
}
