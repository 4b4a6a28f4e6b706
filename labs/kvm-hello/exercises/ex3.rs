//! Exercise 3: a guest moves while it runs. The statement, with the format of the stream, is in the lab's README;
//! `cargo xtask homework check kvm-hello ex3` says how far you are.
//!
//! The two ends are in [`super::moving`], in `tests/moving/mod.rs`: read what a [`Guest`] may do between two calls.
//! `kvm_hello::dirty::pages_of` lists the bits of a log.

use std::io::{self, Read, Write};

use super::moving::{Guest, Limits, Place};

/// Sends a guest that runs: its memory while it runs, again and again what it has written meanwhile, and the rest and its
/// registers once it is stopped. It then stays stopped, its log switched off.
///
/// # Errors
/// The stream's. Then the guest runs on here, as if nothing had been: without a log.
pub fn send(_guest: &mut impl Guest, _stream: &mut impl Write, _limits: Limits) -> io::Result<()> {
    // TODO(you): in which order are a page's log and its bytes to be read?
    unimplemented!("TODO(you): rounds, the stop, the rest, the end")
}

/// Receives a guest: its memory goes to `place`, its registers are returned. Reads up to the end of the guest, no further.
///
/// # Errors
/// The stream's; `UnexpectedEof` if it ends too early; `InvalidData` for a record without a meaning, a page that is not
/// there, or more registers than [`super::moving::REGISTERS`].
pub fn receive(_stream: &mut impl Read, _place: &mut impl Place) -> io::Result<Vec<u8>> {
    unimplemented!("TODO(you): record by record")
}
