//! What can go wrong: a call, or a guest that did something else than was due.

use std::time::Duration;

use kit::SysError;

use crate::exits::Exit;

/// An error of this lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The guest left for a reason that the experiment does not expect.
    #[error("{exit} at rip {rip:#x} in {doing}")]
    Unexpected {
        /// What the guest was to do.
        doing: &'static str,
        /// Why it left instead.
        exit: Box<Exit>,
        /// Where it was.
        rip: u64,
    },
    /// The guest was not done when its time was up.
    #[error("{doing} was not done after {} ms, and was taken back (--timeout)", after.as_millis())]
    TimeUp {
        /// What the guest was to do.
        doing: &'static str,
        /// The time it had.
        after: Duration,
    },
}

/// For `map_err` after a call of kvm-ioctls.
pub(crate) fn kvm(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> SysError {
    move |e| SysError::new(call, e.errno())
}
