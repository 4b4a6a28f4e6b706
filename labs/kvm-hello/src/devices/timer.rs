//! The timer: an 8254 PIT, which KVM has inside (`KVM_CREATE_PIT2`), wired to line 0 of its PICs.
//!
//! The guest programs it by ports 0x40–0x43 and never leaves the kernel for that: we see no exit, and
//! would not know that it ticks, did the guest not write to a port of ours at each tick.

use std::time::{Duration, Instant};

/// Where the timer is described.
pub const HERE: kit::Place = kit::here!();

/// The crystal of the IBM PC: 14.31818 MHz / 12.
pub const HERTZ: u32 = 1_193_182;
/// What `guest/devices.s` loads into channel 0.
pub const DIVISOR: u32 = 1193;

/// The time between two ticks for a divisor.
pub fn period(divisor: u32) -> Duration {
    Duration::from_nanos(1_000_000_000 * u64::from(divisor) / u64::from(HERTZ))
}

/// The gaps between moments.
pub fn intervals(ticks: &[Instant]) -> Vec<Duration> {
    ticks.windows(2).map(|pair| pair[1] - pair[0]).collect()
}
