//! For tests: visible skips, and watchdogs for tests that enter the kernel.

use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Leave a test early, with the reason in plain sight.
///
/// `skip!("kvm", "{error}")` writes the reason to standard error past the test runner's capture and
/// returns; where `BENCHTOP_REQUIRE` names the feature, it panics instead: there, a skip is a failure.
#[macro_export]
macro_rules! skip {
    ($feature:expr, $($reason:tt)+) => {{
        $crate::testing::skip($feature, &format!($($reason)+));
        return;
    }};
}

/// What [`skip!`](crate::skip) does before it returns.
///
/// # Panics
/// If `BENCHTOP_REQUIRE` (a comma-separated list) names `feature`, or is `all`.
pub fn skip(feature: &str, reason: &str) {
    let required = std::env::var("BENCHTOP_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|r| r.trim() == feature || r.trim() == "all"),
        "BENCHTOP_REQUIRE names {feature}, but: {reason}"
    );
    let test = thread::current().name().unwrap_or("test").to_owned();
    // Not eprintln!: libtest captures that, and a skip that nobody sees looks like a pass.
    let _ = writeln!(std::io::stderr(), "SKIP {test}: no {feature}: {reason}");
    crate::spec::skipped(feature, reason);
}

/// Ends the test process if it is still alive after a time; disarmed on drop.
///
/// A test that hangs in the kernel cannot be unwound, so the whole process aborts, saying which test.
#[derive(Debug)]
pub struct Watchdog {
    _disarm: Sender<()>,
}

/// Arms a [`Watchdog`] for the calling test: many times what it takes on a busy machine, as only a hang is to end it.
#[must_use = "the watchdog is disarmed when dropped"]
pub fn watchdog(seconds: u64) -> Watchdog {
    watchdog_that_says(seconds, |_| ())
}

/// A [`watchdog`] that says more before it ends the process.
pub(crate) fn watchdog_that_says(seconds: u64, say: impl FnOnce(u64) + Send + 'static) -> Watchdog {
    let (disarm, armed) = mpsc::channel::<()>();
    let test = thread::current().name().unwrap_or("test").to_owned();
    thread::spawn(move || {
        if armed.recv_timeout(Duration::from_secs(seconds)) == Err(RecvTimeoutError::Timeout) {
            let _ = writeln!(std::io::stderr(), "WATCHDOG {test}: still running after {seconds} s");
            say(seconds);
            std::process::abort();
        }
    });
    Watchdog { _disarm: disarm }
}
