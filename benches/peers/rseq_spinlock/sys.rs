//! glibc's locks, behind the interface of the lab's.
#![allow(unsafe_code, reason = "pthread locks are C")]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

use rseq_spinlock::contend::Section;

/// `PTHREAD_MUTEX_ADAPTIVE_NP` of glibc's `pthread.h`; libc has it under another name on some targets.
const ADAPTIVE: libc::c_int = 3;

/// A `pthread_mutex_t` and a count. Boxed: neither may move.
pub struct Mutex {
    raw: Box<UnsafeCell<libc::pthread_mutex_t>>,
    count: UnsafeCell<u64>,
}

// SAFETY: `count` is reached in `with` only, with the mutex held; pthread locks may be used from all threads.
unsafe impl Sync for Mutex {}

impl Mutex {
    /// Of the default kind, or adaptive.
    pub fn new(adaptive: bool) -> Self {
        let raw = Box::new(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        let mut attr = MaybeUninit::uninit();
        let kind = if adaptive { ADAPTIVE } else { libc::PTHREAD_MUTEX_NORMAL };
        // SAFETY: `attr` is memory for one attribute, which this initialises.
        unsafe { libc::pthread_mutexattr_init(attr.as_mut_ptr()) };
        // SAFETY: `attr` is initialised.
        unsafe { libc::pthread_mutexattr_settype(attr.as_mut_ptr(), kind) };
        // SAFETY: nobody else knows the mutex yet, and its address stays.
        unsafe { libc::pthread_mutex_init(raw.get(), attr.as_ptr()) };
        Self { raw, count: UnsafeCell::new(0) }
    }
}

impl Drop for Mutex {
    fn drop(&mut self) {
        // SAFETY: we have the only reference, so nobody holds or awaits it.
        unsafe { libc::pthread_mutex_destroy(self.raw.get()) };
    }
}

impl Section for Mutex {
    #[inline]
    fn with(&self, f: impl FnOnce(&mut u64)) {
        // SAFETY: initialised in `new`, and alive for as long as `self`.
        unsafe { libc::pthread_mutex_lock(self.raw.get()) };
        // SAFETY: the mutex is held: no other reference to the count exists. The closures here do not panic.
        f(unsafe { &mut *self.count.get() });
        // SAFETY: we hold it.
        unsafe { libc::pthread_mutex_unlock(self.raw.get()) };
    }
}

/// A `pthread_spinlock_t` and a count.
pub struct Spin {
    raw: Box<UnsafeCell<libc::pthread_spinlock_t>>,
    count: UnsafeCell<u64>,
}

// SAFETY: as for `Mutex`.
unsafe impl Sync for Spin {}

impl Spin {
    /// Unlocked.
    pub fn new() -> Self {
        let raw = Box::new(UnsafeCell::new(0));
        // SAFETY: nobody else knows the lock yet.
        unsafe { libc::pthread_spin_init(raw.get(), libc::PTHREAD_PROCESS_PRIVATE) };
        Self { raw, count: UnsafeCell::new(0) }
    }
}

impl Section for Spin {
    #[inline]
    fn with(&self, f: impl FnOnce(&mut u64)) {
        // SAFETY: initialised in `new`, and alive for as long as `self`.
        unsafe { libc::pthread_spin_lock(self.raw.get()) };
        // SAFETY: the lock is held: no other reference to the count exists. The closures here do not panic.
        f(unsafe { &mut *self.count.get() });
        // SAFETY: we hold it.
        unsafe { libc::pthread_spin_unlock(self.raw.get()) };
    }
}
