//! Exercise 1: an edge-triggered loop. The statement is in the lab's README; `cargo xtask homework check echo ex1` says
//! how far you are.
//!
//! The system calls are those of [`Kernel`], in `tests/edge/mod.rs`: the spec's own kernel, whose clients do what clients
//! do, and then that of this machine. `s4_epoll_edge.rs` is a server of the kind, with other duties.

use super::edge::Kernel;

/// Serves until [`Kernel::wait`] says that it is to stop; then everything that was accepted is closed.
pub fn serve(_kernel: &mut impl Kernel) {
    // TODO(you): who tells you that a socket has something for you, how often, and who has to remember it?
    unimplemented!("TODO(you): wait, accept, and give each one that has something its turn")
}
