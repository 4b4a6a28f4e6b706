//! The time-stamp counter: a clock that costs a few nanoseconds.
#![allow(unsafe_code, reason = "reading the counter is an intrinsic")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The counter now. Constant rate and the same on all CPUs where `/proc/cpuinfo` says `constant_tsc
/// nonstop_tsc`.
#[doc(alias = "rdtsc")]
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: rdtsc reads a register that every x86-64 has; prctl(PR_SET_TSC) would turn it into SIGSEGV, and
    // nobody here does that.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds a tick, measured once against `CLOCK_MONOTONIC` over 10 ms.
pub fn ns_per_tick() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (t0, i0) = (ticks(), Instant::now());
        std::thread::sleep(Duration::from_millis(10));
        let (ns, t1) = (i0.elapsed().as_nanos(), ticks());
        ns as f64 / (t1 - t0) as f64
    })
}
