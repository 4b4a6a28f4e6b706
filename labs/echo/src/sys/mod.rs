//! The `unsafe` part of the lab: descriptors that come as numbers, and a ring that is safe to use.

mod bundle;
mod ops;
mod pool;
mod ring;

pub use bundle::ENTRIES as BUNDLE;
pub use pool::Piece;
pub use ring::{Done, Ring, Sock};

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Takes over a descriptor that a system call has just returned.
#[allow(unsafe_code, reason = "nix returns accept4's descriptor as a number")]
pub(crate) fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass what accept4(2) returned this moment, so the descriptor is open,
    // and nobody else has been told its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
