//! Descriptor mapping: which `dup` in which order, also for swaps and cycles.
//!
//! "3 becomes the child's 4, and 4 its 3" cannot be done by two `dup2`: the first destroys what the
//! second needs. The moves form chains and cycles; chains are done from their free end, and a cycle is
//! opened by putting one descriptor aside.

use std::collections::BTreeSet;
use std::os::fd::RawFd;

/// One step in the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdStep {
    /// `fcntl(F_SETFD, 0)`: it already has its number and only must survive exec.
    Keep(RawFd),
    /// `dup3(from, to, 0)`.
    Copy {
        /// The number now.
        from: RawFd,
        /// The number in the new program.
        to: RawFd,
    },
    /// `fcntl(F_DUPFD_CLOEXEC)` to a number above all targets; one at a time.
    Stash(RawFd),
    /// `dup3` of what was put aside.
    Place(RawFd),
}

/// One wish: the child's `to` is our `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The number in the new program.
    pub to: RawFd,
    /// The number here.
    pub from: RawFd,
}

/// Orders `moves`; the later of two with the same target wins.
pub fn steps(moves: &[Move]) -> Vec<FdStep> {
    let mut seen = BTreeSet::new();
    let mut pending: Vec<Move> = moves.iter().rev().filter(|m| seen.insert(m.to)).copied().collect();
    let mut out = Vec::new();
    pending.retain(|m| {
        let there = m.to == m.from;
        if there {
            out.push(FdStep::Keep(m.to));
        }
        !there
    });
    let mut aside: Option<RawFd> = None; // the target that waits for the stash
    while !pending.is_empty() {
        // Free: nothing pending still reads the number that this move overwrites.
        let needed = |fd: RawFd, all: &[Move]| all.iter().any(|m| m.from == fd && Some(m.to) != aside);
        match pending.iter().position(|m| !needed(m.to, &pending)) {
            Some(i) => {
                let m = pending.swap_remove(i);
                if aside == Some(m.to) {
                    aside = None;
                    out.push(FdStep::Place(m.to));
                } else {
                    out.push(FdStep::Copy { from: m.from, to: m.to });
                }
            }
            // Only cycles are left. Put one source aside; its number is then free.
            None => {
                out.push(FdStep::Stash(pending[0].from));
                aside = Some(pending[0].to);
            }
        }
    }
    out
}

/// The ranges of numbers, from 3 up, that are no target: what must not reach the new program.
pub fn gaps(moves: &[Move]) -> Vec<(u32, u32)> {
    let targets: BTreeSet<u32> = moves.iter().map(|m| m.to as u32).filter(|&t| t >= 3).collect();
    let mut out = Vec::new();
    let mut from = 3;
    for t in targets {
        if t > from {
            out.push((from, t - 1));
        }
        from = t + 1;
    }
    out.push((from, u32::MAX));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Oracle: a descriptor table where every number starts as itself.
    fn run(steps: &[FdStep], above: RawFd) -> BTreeMap<RawFd, RawFd> {
        let mut table: BTreeMap<RawFd, RawFd> = (0..64).map(|fd| (fd, fd)).collect();
        let mut stash = None;
        for s in steps {
            match *s {
                FdStep::Keep(_) => {}
                FdStep::Copy { from, to } => {
                    table.insert(to, table[&from]);
                }
                FdStep::Stash(fd) => {
                    assert!(stash.is_none(), "one at a time");
                    stash = Some(table[&fd]);
                }
                FdStep::Place(to) => {
                    assert!(to < above);
                    table.insert(to, stash.take().expect("something was put aside"));
                }
            }
        }
        table
    }

    #[test]
    fn a_swap_needs_three_dups() {
        let s = steps(&[Move { to: 3, from: 4 }, Move { to: 4, from: 3 }]);
        assert_eq!(s.len(), 3, "{s:?}");
        assert!(matches!(s[0], FdStep::Stash(_)), "{s:?}");
    }

    proptest! {
        #[test]
        fn every_target_gets_its_source(raw in prop::collection::vec((0..12, 0..12), 0..14)) {
            let moves: Vec<Move> = raw.iter().map(|&(to, from)| Move { to, from }).collect();
            let table = run(&steps(&moves), 12);
            let mut wish = BTreeMap::new();
            for m in &moves {
                wish.insert(m.to, m.from);
            }
            for (to, from) in wish {
                prop_assert_eq!(table[&to], from);
            }
        }

        #[test]
        fn gaps_are_what_is_no_target(raw in prop::collection::vec(0..40, 0..14)) {
            let moves: Vec<Move> = raw.iter().map(|&to| Move { to, from: 0 }).collect();
            let g = gaps(&moves);
            for fd in 3u32..60 {
                let in_gap = g.iter().any(|&(a, b)| (a..=b).contains(&fd));
                prop_assert_eq!(in_gap, !raw.contains(&(fd as RawFd)));
            }
        }
    }
}
