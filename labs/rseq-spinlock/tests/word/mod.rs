//! A model checker's atomic whose stores and read-modify-writes have one order.
//!
//! In loom 0.7 a swap may read what was there before another thread's plain store, and yet come after it, which no machine
//! allows. Between read-modify-writes that does not happen, so here a store is one.

pub use loom::sync::atomic::Ordering;

/// A word of 32 bits; its methods are those of std's `AtomicU32`.
#[derive(Debug)]
pub struct Word(loom::sync::atomic::AtomicU32);

impl Word {
    pub fn new(value: u32) -> Self {
        Self(loom::sync::atomic::AtomicU32::new(value))
    }

    pub fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    pub fn store(&self, value: u32, order: Ordering) {
        self.0.swap(value, order);
    }

    pub fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.0.swap(value, order)
    }

    pub fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        done: Ordering,
        not: Ordering,
    ) -> Result<u32, u32> {
        self.0.compare_exchange(current, new, done, not)
    }

    pub fn compare_exchange_weak(
        &self,
        current: u32,
        new: u32,
        done: Ordering,
        not: Ordering,
    ) -> Result<u32, u32> {
        self.0.compare_exchange(current, new, done, not)
    }

    pub fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_add(value, order)
    }

    pub fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_sub(value, order)
    }

    pub fn fetch_or(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_or(value, order)
    }

    pub fn fetch_and(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_and(value, order)
    }
}
