//! What every lock of the zoo is: two functions, and nothing between them but one thread.
//!
//! `tests/loom.rs` compiles this file and `locks/` a second time, against loom's atomics.

/// A lock without data. Only this crate implements it, and only [`Lock`](crate::Lock) relies on it.
///
/// An implementation promises that between the return of `acquire` and the call of `release` with the
/// token it gave, no other `acquire` of the same lock returns, and that everything written before
/// `release` is seen after the next `acquire`. The loom models in `tests/loom.rs` hold each to that.
pub trait RawLock: Sync + sealed::Sealed {
    /// What `release` must be given: the queue node for MCS and CLH, nothing for the others.
    type Token: Copy;

    /// The name in tables and metrics: lower_snake_case.
    const NAME: &'static str;

    /// An unlocked lock.
    fn new() -> Self;

    /// Returns when the lock is ours.
    fn acquire(&self) -> Self::Token;

    /// Gives the lock back.
    fn release(&self, token: Self::Token);
}

/// Keeps the trait in this crate: [`Lock`](crate::Lock) hands out `&mut T` on its word.
pub(crate) mod sealed {
    /// See the module.
    pub trait Sealed {}
}

/// A value with two cache lines of its own: one for it, one for the adjacent-line prefetcher.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Line<T>(pub T);
