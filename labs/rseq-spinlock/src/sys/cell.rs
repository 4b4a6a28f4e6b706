//! [`Lock`]: a [`RawLock`] and the data that it guards.
#![allow(unsafe_code, reason = "a guard gives out references to what the lock protects")]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::raw::RawLock;

/// Data that is reached through a guard only.
///
/// A small lock and small data share a cache line: whoever gets the lock gets the data with it. Apart from
/// others' lines, as [`Line`](crate::raw::Line).
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Lock<R, T> {
    raw: R,
    data: UnsafeCell<T>,
}

// SAFETY: a `&Lock` gives access to the data only through a guard. Guards exclude each other (what `RawLock`
// promises; the trait is sealed, its implementations are model-checked), so sharing the lock only ever moves
// the data from thread to thread: T: Send.
unsafe impl<R: RawLock, T: Send> Sync for Lock<R, T> {}

impl<R: RawLock, T> Lock<R, T> {
    /// An unlocked lock.
    pub fn new(data: T) -> Self {
        Self { raw: R::new(), data: UnsafeCell::new(data) }
    }

    /// Waits for the lock. Holding the guard proves that nobody else does; dropping it, also in a panic,
    /// unlocks.
    #[inline]
    pub fn lock(&self) -> Guard<'_, R, T> {
        let token = self.raw.acquire();
        Guard { lock: self, token, _stays: PhantomData }
    }

    /// The data, when nobody can hold the lock any more.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

/// Proof that the lock is held; stays on its thread, because queue nodes belong to threads.
#[derive(Debug)]
pub struct Guard<'a, R: RawLock, T> {
    lock: &'a Lock<R, T>,
    token: R::Token,
    _stays: PhantomData<*const ()>,
}

impl<R: RawLock, T> Deref for Guard<'_, R, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held while this guard lives, and the reference cannot outlive the borrow of the
        // guard, so no `&mut T` exists: those come from `deref_mut`, which borrows the one guard mutably.
        unsafe { &*self.lock.data.get() }
    }
}

impl<R: RawLock, T> DerefMut for Guard<'_, R, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard is borrowed mutably: no other reference to the data exists.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<R: RawLock, T> Drop for Guard<'_, R, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.raw.release(self.token);
    }
}
