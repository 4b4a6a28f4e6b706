//! Everything a lock asks of the machine, in one place.
//!
//! The locks say `use crate::sync::…`. Here that is std's atomics, futex(2), rseq and membarrier(2);
//! in `tests/loom.rs` it is loom's atomics and models of the other three. So the model checker runs the very
//! source that the lab runs.

use std::cell::Cell;
use std::ops::Deref;

pub use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::sys;

/// Tells the core that we spin: `pause` on x86.
#[inline]
pub fn spin() {
    core::hint::spin_loop();
}

/// [`spin`], `n` times.
pub fn spin_for(n: u32) {
    for _ in 0..n {
        spin();
    }
}

/// How often to look before sleeping, when a look is a blind bet: a few microseconds, about what sleeping
/// costs.
pub const LOOKS: u32 = 100;

/// A 32-bit word that a thread can sleep on; see futex(2).
#[derive(Debug)]
pub struct Futex(AtomicU32);

impl Futex {
    /// A word with a value.
    pub const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    /// Sleeps while the word is `expected`; may return early.
    pub fn wait(&self, expected: u32) {
        sys::futex::wait(&self.0, expected);
    }

    /// Wakes up to `n` sleepers.
    pub fn wake(&self, n: i32) {
        sys::futex::wake(&self.0, n);
    }
}

impl Deref for Futex {
    type Target = AtomicU32;
    fn deref(&self) -> &AtomicU32 {
        &self.0
    }
}

/// The CPU we were on a moment ago, if rseq tells: one load.
#[inline]
pub fn cpu() -> Option<u32> {
    sys::rseq::cpu_hint()
}

/// Asks for a longer time slice, where this thread may: see [`sys::slice`]. One load where it may not.
#[inline]
pub fn ask_for_time() {
    sys::slice::ask();
}

/// Takes that back, and gives the CPU back if it was granted.
#[inline]
pub fn no_more_time() {
    sys::slice::withdraw();
}

/// Lets other threads of this CPU run: sched_yield(2).
pub fn yield_cpu() {
    std::thread::yield_now();
}

/// The cheap half of an asymmetric pair of fences: holds back only the compiler.
///
/// Pairs with [`heavy_barrier`]: of two threads that each write, pass their half and read what the other
/// wrote, at least one sees the other's write. What the cheap side saves, the other pays with an interrupt to
/// each CPU.
#[inline]
pub fn light_barrier() {
    if sys::membarrier::expedited() {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    } else {
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Makes the cheap half cheap: registers the process with membarrier(2). Before, it is a full fence.
pub fn prepare_barriers() {
    sys::membarrier::register_expedited();
}

/// The dear half: membarrier(2) `PRIVATE_EXPEDITED`, or a full fence where that is missing.
pub fn heavy_barrier() {
    if !sys::membarrier::all() {
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Looks while spinning, in the last two locks: with 2, 4 and 8 pauses between, some hundred nanoseconds.
pub const SPINS: u32 = 3;

/// Then so many looks with a yield between, before sleeping.
pub const YIELDS: u32 = 7;

/// In a crowd, each n-th release looks at the clock.
pub const GLANCE: u32 = 16;

/// The time-stamp counter in steps of 1024: 0.25 to 0.5 µs on CPUs of 4 to 2 GHz. Wraps, after half an hour
/// or so.
pub fn now() -> u32 {
    (sys::clock::ticks() >> 10) as u32
}

/// Whether a turn that began at `since` is over: 2^19 ticks, 0.13 to 0.26 ms. That is some ten times what it
/// costs to go round the run queue, and a twentieth of a time slice.
pub fn turn_over(since: u32) -> bool {
    now().wrapping_sub(since) > 1 << 9
}

/// The most threads that may use queue locks at a time: each has a node in each queue lock.
pub const SLOTS: usize = 256;

/// Bit i of word i/64 is set while a living thread has slot i.
static TAKEN: [std::sync::atomic::AtomicU64; SLOTS / 64] =
    [const { std::sync::atomic::AtomicU64::new(0) }; SLOTS / 64];

const NONE: u32 = u32::MAX;

thread_local! {
    static SLOT: Cell<u32> = const { Cell::new(NONE) };
    static RETURN: Return = const { Return };
}

/// Gives the thread's slot back when it ends.
struct Return;

impl Drop for Return {
    fn drop(&mut self) {
        let slot = SLOT.replace(NONE) as usize;
        if slot < SLOTS {
            // Release: pairs with the Acquire in `new_slot`, so that the next owner finds our last queue node
            // at rest.
            TAKEN[slot / 64].fetch_and(!(1 << (slot % 64)), Ordering::Release);
        }
    }
}

/// A small number that no other living thread has: the index of our node in queue locks.
///
/// # Panics
/// If more than [`SLOTS`] threads use queue locks at once.
pub fn slot() -> usize {
    match SLOT.get() {
        NONE => new_slot(),
        slot => slot as usize,
    }
}

#[cold]
fn new_slot() -> usize {
    for (i, word) in TAKEN.iter().enumerate() {
        let mut bits = word.load(Ordering::Relaxed);
        while bits != u64::MAX {
            let free = bits.trailing_ones() as usize;
            // Acquire: pairs with the Release in `Return`.
            match word.compare_exchange(bits, bits | 1 << free, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    let slot = i * 64 + free;
                    SLOT.set(slot as u32);
                    // Touch it, so that its drop runs when the thread ends.
                    RETURN.with(|_| ());
                    return slot;
                }
                Err(now) => bits = now,
            }
        }
    }
    panic!("more than {SLOTS} threads use queue locks at once");
}
