//! The experiment: the same question, asked many times.

use std::hint::black_box;
use std::time::Instant;

use crate::sys;

/// Calls in a round: enough that reading the clock twice does not count.
const CALLS: u32 = 10_000;

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// The kernel's answer.
    pub parent: u32,
    /// Nanoseconds of one system call, a value for each round.
    pub call_ns: Vec<f64>,
    /// Nanoseconds of reading a variable instead, a value for each round.
    pub load_ns: Vec<f64>,
}

/// Measures `rounds` rounds, the two ways in turn, so that what disturbs one disturbs the other.
pub fn measure(rounds: usize) -> Cost {
    let parent = sys::getppid();
    let mut cost = Cost { parent, call_ns: Vec::new(), load_ns: Vec::new() };
    for _ in 0..rounds {
        cost.call_ns.push(round(sys::getppid));
        cost.load_ns.push(round(|| *black_box(&parent)));
    }
    cost
}

/// Nanoseconds of one `ask`, from many.
fn round(ask: impl Fn() -> u32) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        black_box(ask());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}
