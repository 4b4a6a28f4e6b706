//! Real-time throttling: how long a thread with real-time priority may keep all others from running.
//!
//! A real-time thread that computes without end would lock everyone else out. So the kernel lets them have
//! `sched_rt_runtime_us` of each `sched_rt_period_us`, 950 of 1000 ms where nobody has changed it, and then
//! takes them off their CPU; since Linux 6.12 by a server with a deadline of its own, which gives ordinary
//! threads the rest. See sched(7), `Documentation/scheduler/sched-rt-group.rst`.

use std::time::Duration;

/// What real-time threads may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttle {
    /// All of it: the runtime is -1.
    Unlimited,
    /// `runtime` of each `period`.
    Share {
        /// At most so much.
        runtime: Duration,
        /// Of each.
        period: Duration,
    },
    /// The limit is not known: no /proc, or nothing that we understand.
    Unknown,
}

impl Throttle {
    /// What holds here.
    pub fn read() -> Self {
        let file = |name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        Self::of(&file("sched_rt_runtime_us"), &file("sched_rt_period_us"))
    }

    /// From the texts of the two files.
    fn of(runtime: &str, period: &str) -> Self {
        match (runtime.trim().parse::<i64>(), period.trim().parse::<u64>()) {
            (Ok(-1), _) => Self::Unlimited,
            (Ok(runtime @ 0..), Ok(period)) if period > 0 => Self::Share {
                runtime: Duration::from_micros(runtime.unsigned_abs()),
                period: Duration::from_micros(period),
            },
            _ => Self::Unknown,
        }
    }

    /// `burst`, or the longest that is not throttled: half a runtime, for there may be other real-time threads.
    pub fn within(self, burst: Duration) -> Duration {
        match self {
            Self::Share { runtime, .. } => burst.min(runtime / 2),
            Self::Unlimited | Self::Unknown => burst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_burst_is_cut_to_what_is_not_throttled() {
        let usual = Throttle::of("950000\n", "1000000\n");
        assert_eq!(usual, Throttle::Share { runtime: MS(950), period: MS(1000) });
        assert_eq!(usual.within(MS(6)), MS(6));
        assert_eq!(Throttle::of("4000", "100000").within(MS(6)), MS(2));
        assert_eq!(Throttle::of("0", "1000000").within(MS(6)), MS(0));
        assert_eq!(Throttle::of("-1", "1000000").within(MS(6)), MS(6));
    }

    #[test]
    fn what_makes_no_sense_limits_nothing() {
        for (runtime, period) in [("", ""), ("950000", ""), ("950000", "0"), ("-7", "1000000"), ("x", "1")] {
            let unknown = Throttle::of(runtime, period);
            assert_eq!((unknown, unknown.within(MS(6))), (Throttle::Unknown, MS(6)), "{runtime} {period}");
        }
    }
}
