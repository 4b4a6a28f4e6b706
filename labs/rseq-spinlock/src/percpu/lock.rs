//! A lock for each CPU: taken with a plain store, given back with another.
//!
//! For sections too long for rseq. It is free almost always: only a holder that was preempted or moved away
//! leaves it held for the next thread on its CPU, which then yields.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use super::slots;
use crate::sys::ops::lock_take;
use crate::sys::rseq::Thread;
use crate::sys::sections::{ByCpu, Try};

/// One CPU's lock: 0 or 1. Taken by sections on that CPU only; given back from anywhere.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Held(AtomicU32);

/// See the module.
#[derive(Debug)]
pub struct CpuLock<const ARMED: bool = true> {
    slots: Box<[Held]>,
}

impl<const ARMED: bool> CpuLock<ARMED> {
    /// Free locks for `n` CPUs.
    pub fn new(n: usize) -> Self {
        Self { slots: slots(n, Held::default) }
    }

    /// One attempt to take the lock of this CPU.
    #[inline(always)]
    pub fn try_take(&self, thread: Thread) -> (Try, u32) {
        lock_take::<ByCpu, ARMED>(thread, &self.slots)
    }

    /// Takes the lock of the CPU we are on. None: this CPU has no lock here.
    pub fn lock(&self, thread: Thread) -> Option<CpuGuard<'_>> {
        loop {
            match self.try_take(thread) {
                (Try::Done, cpu) => {
                    return Some(CpuGuard { held: &self.slots[cpu as usize].0, cpu, _stays: PhantomData });
                }
                (Try::NoSlot, _) => return None,
                (Try::Refused, _) => std::thread::yield_now(),
                _ => {}
            }
        }
    }
}

impl<const ARMED: bool> CpuLock<ARMED> {
    /// How many are held now.
    pub fn held(&self) -> u32 {
        self.slots.iter().map(|s| s.0.load(Ordering::Relaxed)).sum()
    }

    /// Frees all; for when nobody holds one.
    pub fn clear(&self) {
        self.slots.iter().for_each(|s| s.0.store(0, Ordering::Relaxed));
    }
}

/// Proof that we hold the lock of [`cpu`](Self::cpu), on which we may no longer be.
#[derive(Debug)]
pub struct CpuGuard<'a> {
    held: &'a AtomicU32,
    /// Whose lock it is.
    pub cpu: u32,
    _stays: PhantomData<*const ()>,
}

impl Drop for CpuGuard<'_> {
    fn drop(&mut self) {
        // Release: pairs with the load in the next `lock_take`, possibly on another CPU (x86-64 loads
        // acquire).
        self.held.store(0, Ordering::Release);
    }
}
