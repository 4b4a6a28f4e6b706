//! Exercise 3: a timeout for each connection. The statement is in the lab's README; `cargo xtask homework check echo ex3`
//! says how far you are.
//!
//! The operations, and what each completes with, are in `tests/links/mod.rs`. The ring behind them is the spec's own, with
//! a clock of its own, and then that of this machine. `s5_oneshot.rs` is a server with completions; io_uring_enter(2) says
//! what a linked timeout is.

use super::links::Ring;

/// Serves until [`Ring::enter`] says that it is to stop. Whoever for `idle` milliseconds sends nothing, or takes nothing
/// of its echo, is closed.
pub fn serve(_ring: &mut impl Ring, _idle: u64) {
    // TODO(you): what has to be remembered between a submission and its completions, and how do you find it again?
    unimplemented!("TODO(you): accept; then for each completion: whose is it, and what is next?")
}
