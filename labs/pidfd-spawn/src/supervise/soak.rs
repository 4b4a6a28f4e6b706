//! A thousand random kills, and an account of every process that does not trust the supervisor.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kit::SysError;
use nix::sys::signal::Signal;

use super::event::What;
use super::guard::Guard;
use crate::pidfd::PidFd;

/// The account. All of `lost`, `doubled` and `left` must be 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Soak {
    /// Processes killed.
    pub kills: usize,
    /// Processes that began.
    pub started: usize,
    /// Processes whose end was told.
    pub ended: usize,
    /// Services that had no process at the end, though nobody killed it.
    pub lost: usize,
    /// Times a service had two processes.
    pub doubled: usize,
    /// Processes still running after the supervisor stopped.
    pub left: usize,
    /// Orphans adopted and reaped by the supervisor.
    pub adopted: usize,
    /// How long the kills took.
    pub took: Duration,
}

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

/// Kills `kills` random processes of `services` services under `guard`, then stops it.
///
/// Each process is known by the pidfd that came with its start: a kill cannot hit anything else.
///
/// # Errors
/// The socket failed; or the supervisor fell silent for 20 s.
pub fn run(
    guard: Guard,
    services: usize,
    kills: usize,
    seed: u64,
    mut tick: impl FnMut(),
) -> Result<Soak, SysError> {
    let mut soak = Soak::default();
    let mut live: BTreeMap<String, PidFd> = BTreeMap::new();
    let mut last: BTreeMap<String, PidFd> = BTreeMap::new();
    let mut random = seed | 1;
    let begun = Instant::now();
    loop {
        // Kill as soon as anybody lives; wait for the next event when all are dead or dying, or at the end.
        let done = soak.kills >= kills;
        if done && live.len() == services {
            break;
        }
        if !done && !live.is_empty() {
            random = xorshift(random);
            let pick = random as usize % live.len();
            let name = live.keys().nth(pick).cloned().unwrap_or_default();
            if let Some(victim) = live.remove(&name) {
                match victim.signal(Signal::SIGKILL) {
                    Ok(()) => {
                        soak.kills += 1;
                        tick();
                    }
                    Err(e) if e.errno == libc::ESRCH => {} // it went by itself
                    Err(e) => return Err(e),
                }
            }
        }
        let wait = if live.is_empty() || done { Duration::from_secs(20) } else { Duration::ZERO };
        match guard.next(Some(Instant::now() + wait))? {
            Some((event, pidfd)) => note(&mut soak, &mut live, &mut last, event, pidfd),
            None if wait.is_zero() => {}
            None => return Err(SysError::new("the supervisor is silent", libc::ETIMEDOUT)),
        }
    }
    soak.took = begun.elapsed();
    soak.lost = live.values().filter(|p| !p.exists()).count();
    guard.stop()?;
    while let Some((event, pidfd)) = guard.next(Some(Instant::now() + Duration::from_secs(20)))? {
        note(&mut soak, &mut live, &mut last, event, pidfd);
    }
    soak.left = guard.finish()? + last.values().filter(|p| p.exists()).count();
    Ok(soak)
}

fn note(
    soak: &mut Soak,
    live: &mut BTreeMap<String, PidFd>,
    last: &mut BTreeMap<String, PidFd>,
    event: super::event::Event,
    pidfd: Option<PidFd>,
) {
    match (event.what, pidfd) {
        (What::Started { .. }, Some(pidfd)) => {
            soak.started += 1;
            let clone = pidfd.try_clone().ok();
            let before = clone.and_then(|p| last.insert(event.service.clone(), p));
            // A zombie still exists: so this also says that the one before was reaped.
            soak.doubled += usize::from(before.is_some_and(|p| p.exists()));
            live.insert(event.service, pidfd);
        }
        (What::Ended(_), _) => {
            soak.ended += 1;
            live.remove(&event.service);
        }
        (What::Adopted(_), _) => soak.adopted += 1,
        _ => {}
    }
}

fn xorshift(mut x: u64) -> u64 {
    x ^= x << 13;
    x ^= x >> 7;
    x ^ x << 17
}

/// A file for [`run`]: `count` services that live for good, every second with a child of its own, which
/// is orphaned when the service is killed.
pub fn services(count: usize) -> String {
    let service = |i| {
        let run = if i % 2 == 0 { "exec sleep 1000" } else { "sleep 1000 & wait" };
        format!("[[service]]\nname = \"s{i}\"\nrun = [\"sh\", \"-c\", \"{run}\"]\nbackoff_ms = 0\n\n")
    };
    (0..count).map(service).collect()
}
