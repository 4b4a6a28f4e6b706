//! For the specs of exercises: tests of code that somebody else writes, and may get wrong in any way.
//!
//! A spec is an ordinary file of tests. Each test hands its body to [`run`], names what must hold with [`property`],
//! and draws what is random from [`seed`]:
//!
//! ```
//! # fn answer() -> u32 { 42 }
//! // #[test]
//! // #[ignore = "exercise: edit labs/a-lab/exercises/ex1.rs"]
//! fn it_knows_the_answer() {
//!     kit::spec::run(|| {
//!         let seen: u32 = answer();
//!         kit::spec::property("the answer is 42", "read the question again").same(42, seen);
//!     });
//! }
//! # it_knows_the_answer();
//! ```
//!
//! `cargo xtask homework` runs one test a process and does not believe what that process prints or how it exits: a test
//! has passed if, at its end, it gives back a secret that it was given before any of the student's code ran. It comes
//! and goes by standard input, which is a socket then, and `/dev/null` for all that follows.

use std::fmt::{Debug, Display};
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::stats::SplitMix;
use crate::testing;

/// Set, to the test's time limit in seconds, where a runner is at the other end of standard input.
pub const RUNNER: &str = "BENCHTOP_SPEC";
/// What [`seed`] returns, in decimal.
pub const SEED: &str = "BENCHTOP_SEED";
/// Set where tests take looking into processes: by ptrace, by pidfd_getfd, by what /proc has of them.
pub const OPEN: &str = "BENCHTOP_SPEC_OPEN";
/// Bytes of the secret.
pub const SECRET: usize = 32;

/// The time limit without a runner: seconds.
const LIMIT: u64 = 60;

/// The way to the runner; `None` without one.
static RUNNER_END: OnceLock<Option<UnixStream>> = OnceLock::new();
/// What the secret is hidden by, for as long as the student's code runs.
static MASK: Mutex<[u8; SECRET]> = Mutex::new([0; SECRET]);
/// The property that was named last, and what to try where it does not hold.
static CURRENT: Mutex<(String, String)> = Mutex::new((String::new(), String::new()));
/// Why the test was left early: feature, reason.
static SKIPPED: Mutex<Option<(String, String)>> = Mutex::new(None);

/// Runs the body of one test of a spec: with a time limit, and with the runner told when its end is reached.
///
/// # Panics
/// As `body` does.
pub fn run(body: impl FnOnce()) {
    let mut secret = Box::new([0; SECRET]);
    let limit = open(&mut secret);
    let dog = testing::watchdog_that_says(limit, |seconds| {
        let (property, next) = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !property.is_empty() {
            let seen = format!("still running after {seconds} s");
            let _ = std::io::stderr().write_all(failure(&property, "it ends", &seen, &next).as_bytes());
        }
    });
    body();
    drop(dog);
    match &*SKIPPED.lock().unwrap_or_else(PoisonError::into_inner) {
        Some((feature, reason)) => tell(format!("skip {feature}: {reason}\n").as_bytes()),
        None => {
            let mut end = *b"end ________________________________";
            end[4..].copy_from_slice(&*secret);
            masked(&mut end[4..]);
            tell(&end);
            end.fill(0);
            std::hint::black_box(&end);
        }
    }
}

/// Draws [`MASK`]: std's hashers begin with random keys.
fn draw_mask() {
    for eight in MASK.lock().unwrap_or_else(PoisonError::into_inner).chunks_mut(8) {
        eight.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
}

/// XORs with [`MASK`]: that hides the secret, or shows it.
fn masked(secret: &mut [u8]) {
    let mask = MASK.lock().unwrap_or_else(PoisonError::into_inner);
    secret.iter_mut().zip(*mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// Takes the secret, and standard input out of everybody's reach. Returns the time limit.
///
/// The secret is in memory then, which is a file, `/proc/self/mem`: of a process that is not dumpable, root's. Nor does it
/// lie there as it is, for whoever reads memory in another way: one half is on the heap, the other is [`MASK`]. That is no
/// boundary, as both are in the reach of code that has got past the compiler.
fn open(secret: &mut [u8; SECRET]) -> u64 {
    let limit = std::env::var(RUNNER).ok().and_then(|s| s.parse().ok());
    let opened = limit.and_then(|_| {
        if std::env::var_os(OPEN).is_none() {
            nix::sys::prctl::set_dumpable(false).ok()?;
        }
        let mut runner = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
        runner.read_exact(secret).ok()?;
        draw_mask();
        masked(secret);
        nix::unistd::dup2_stdin(File::open("/dev/null").ok()?).ok()?;
        Some(runner)
    });
    let _ = RUNNER_END.set(opened);
    limit.unwrap_or(LIMIT)
}

/// Tells the runner.
fn tell(words: &[u8]) {
    if let Some(Some(runner)) = RUNNER_END.get() {
        let _ = (&*runner).write_all(words);
    }
}

/// For [`skip`](crate::testing::skip): the test did not reach its end, and says why.
pub(crate) fn skipped(feature: &str, reason: &str) {
    *SKIPPED.lock().unwrap_or_else(PoisonError::into_inner) = Some((feature.to_owned(), reason.to_owned()));
}

/// Something that must hold, and what to try where it does not.
#[derive(Debug, Clone)]
#[must_use = "a property that is not checked always holds"]
pub struct Property {
    name: String,
    next: String,
}

/// Names what the code that follows must keep. Until the next one is named, a crash or an endless loop breaks this one.
pub fn property(name: impl Into<String>, next: impl Into<String>) -> Property {
    let property = Property { name: name.into(), next: next.into() };
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if current.0 != property.name {
        *current = (property.name.clone(), property.next.clone());
        tell(format!("at {}\nnext {}\n", one_line(&property.name), one_line(&property.next)).as_bytes());
    }
    property
}

impl Property {
    /// Holds if what was seen is what was expected.
    ///
    /// Both have one type: pin it (`let seen: u32 = …`), or an exercise's own type decides what is equal.
    ///
    /// # Panics
    /// If it does not hold.
    #[track_caller]
    pub fn same<T: PartialEq + Debug>(&self, expected: T, seen: T) {
        if expected != seen {
            self.broken(&format!("{expected:?}"), &format!("{seen:?}"));
        }
    }

    /// Holds if `ok`; `expected` and `seen` say in words what that is about.
    ///
    /// # Panics
    /// If it does not hold.
    #[track_caller]
    pub fn holds(&self, ok: bool, expected: impl Display, seen: impl Display) {
        if !ok {
            self.broken(&expected.to_string(), &seen.to_string());
        }
    }

    #[track_caller]
    fn broken(&self, expected: &str, seen: &str) -> ! {
        panic!("{}", failure(&self.name, expected, seen, &self.next).trim_end());
    }
}

/// The words of a failure, one a line; longer ones go on below.
fn failure(property: &str, expected: &str, seen: &str, next: &str) -> String {
    let one = |name: &str, text: &str| format!("{name:9} {}\n", text.replace('\n', "\n          "));
    one("property:", property) + &one("expected:", expected) + &one("seen:", seen) + &one("try next:", next)
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// Where a spec's random inputs begin. With the same seed a test does the same again.
///
/// The runner chooses it (`--seed`, or a student's own by `--student` and `--secret`). Without a runner it is another
/// one each time, written to standard error.
pub fn seed() -> u64 {
    static SEEDED: OnceLock<u64> = OnceLock::new();
    *SEEDED.get_or_init(|| {
        if let Some(given) = std::env::var(SEED).ok().and_then(|s| s.parse().ok()) {
            return given;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let drawn = SplitMix(now ^ u64::from(std::process::id())).next_u64();
        let _ = writeln!(std::io::stderr(), "{SEED}={drawn}");
        drawn
    })
}

/// [`seed`] as 32 bytes: what `proptest::test_runner::TestRng::from_seed` wants.
pub fn seed_bytes() -> [u8; 32] {
    let mut random = SplitMix(seed());
    let mut bytes = [0; 32];
    for eight in bytes.chunks_mut(8) {
        eight.copy_from_slice(&random.next_u64().to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_all_four() {
        let broken = || property("it is one", "count again").same(1, 2);
        let caught = std::panic::catch_unwind(broken).unwrap_err();
        assert_eq!(
            caught.downcast_ref::<String>().map(String::as_str),
            Some("property: it is one\nexpected: 1\nseen:     2\ntry next: count again")
        );
        property("it is one", "count again").same(1, 1);
    }

    #[test]
    fn the_secret_is_not_kept_as_it_is() {
        let mut kept = [7; SECRET];
        draw_mask();
        masked(&mut kept);
        assert_ne!(kept, [7; SECRET]);
        assert_ne!(kept[..8], kept[8..16]);
        masked(&mut kept);
        assert_eq!(kept, [7; SECRET]);
    }

    #[test]
    fn the_seed_stays_the_same() {
        assert_eq!(seed(), seed());
        assert_eq!(seed_bytes(), seed_bytes());
        assert_ne!(seed_bytes()[..8], seed_bytes()[8..16]);
    }
}
