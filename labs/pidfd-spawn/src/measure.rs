//! What each way costs, by the size of the parent: rounds in turn, so that noise hits all alike.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kit::SysError;
use memmap2::{Advice, MmapMut};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::process::Child;
use crate::spawn::Spawn;
use crate::sys;
use crate::ways::Way;
use crate::ways::zygote::Zygote;

/// Who starts the program.
#[derive(Debug, Clone)]
pub enum Contender {
    /// One of our ways.
    Ours(Way),
    /// Through this zygote.
    Zygote(Arc<Zygote>),
    /// `std::process::Command`.
    Std,
    /// The same with a `pre_exec` closure, for which it must fork.
    StdPreExec,
}

impl Contender {
    /// All, best known last; `None` leaves the zygote out.
    pub fn all(zygote: Option<&Arc<Zygote>>) -> Vec<Self> {
        let ours = [Way::Fork, Way::Vfork, Way::PosixSpawn, Way::Clone3].map(Contender::Ours);
        let std = [Contender::StdPreExec, Contender::Std];
        std.into_iter().chain(ours).chain(zygote.map(|z| Contender::Zygote(Arc::clone(z)))).collect()
    }

    /// In metrics: lower_snake_case.
    pub fn key(&self) -> &'static str {
        match self {
            Contender::Ours(way) => way.name(),
            Contender::Zygote(_) => "zygote",
            Contender::Std => "std",
            Contender::StdPreExec => "std_pre_exec",
        }
    }

    /// As shown.
    pub fn name(&self) -> &'static str {
        match self {
            Contender::Std => "std",
            Contender::StdPreExec => "std + pre_exec",
            other => other.key(),
        }
    }

    /// A function that starts `program` and waits for its end, and tells how long it took until the call
    /// returned, and until the end. What can be prepared is prepared before, for std too.
    ///
    /// # Errors
    /// As text.
    pub fn runner(&self, program: &str) -> Result<Runner, String> {
        if matches!(self, Contender::Std | Contender::StdPreExec) {
            let mut command = Command::new(program);
            if matches!(self, Contender::StdPreExec) {
                sys::create::empty_pre_exec(&mut command);
            }
            return Ok(Box::new(move || {
                let begin = Instant::now();
                let mut child = command.spawn().map_err(|e| e.to_string())?;
                let returned = begin.elapsed();
                child.wait().map_err(|e| e.to_string())?;
                Ok((returned, begin.elapsed()))
            }));
        }
        let spawn = Spawn::new(program);
        let spawn = match self {
            Contender::Ours(way) => spawn.way(*way),
            Contender::Zygote(zygote) => spawn.zygote(zygote),
            _ => spawn,
        };
        let ready = spawn.prepare().map_err(|e| e.to_string())?;
        Ok(Box::new(move || {
            let begin = Instant::now();
            let mut child = ready.spawn().map_err(|e| e.to_string())?;
            let returned = begin.elapsed();
            child.wait().map_err(|e| e.to_string())?;
            Ok((returned, begin.elapsed()))
        }))
    }
}

/// Starts a program once; times until the call returned, and until the child was reaped.
pub type Runner = Box<dyn FnMut() -> Result<(Duration, Duration), String>>;

/// What one contender took, in microseconds, a value a round.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Who.
    pub who: Contender,
    /// Until the call returned: the program has begun.
    pub returned_us: Vec<f64>,
    /// Until it has ended and was reaped.
    pub ended_us: Vec<f64>,
}

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

/// Measures all in turn, `rounds` times after one of warm-up; the order rotates.
///
/// # Errors
/// As text: a spawn failed.
pub fn in_turn(who: Vec<Contender>, program: &str, rounds: usize) -> Result<Vec<Cost>, String> {
    let cost = |who| Cost { who, returned_us: Vec::new(), ended_us: Vec::new() };
    let mut costs: Vec<Cost> = who.into_iter().map(cost).collect();
    let count = costs.len();
    let mut runners = costs.iter().map(|c| c.who.runner(program)).collect::<Result<Vec<_>, _>>()?;
    for round in 0..=rounds {
        for i in 0..count {
            let turn = (i + round) % count;
            let (returned, ended) = runners[turn]()?;
            let cost = &mut costs[turn];
            if round > 0 {
                cost.returned_us.push(returned.as_secs_f64() * 1e6);
                cost.ended_us.push(ended.as_secs_f64() * 1e6);
            }
        }
    }
    Ok(costs)
}

/// Starts `total` children, at most `parallel` at a time, and reaps them all by one epoll loop.
///
/// # Errors
/// As text.
pub fn batch(spawn: &Spawn<'_>, total: usize, parallel: usize) -> Result<(), String> {
    let ready = spawn.prepare().map_err(|e| e.to_string())?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| e.to_string())?;
    let mut running = BTreeMap::new();
    let mut events = [EpollEvent::empty(); 64];
    for next in 0.. {
        while running.len() >= parallel || (next >= total && !running.is_empty()) {
            let n = match epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => 0,
                done => done.map_err(|e| e.to_string())?,
            };
            for event in &events[..n] {
                // Its end of the pidfd closes with it, which takes it out of the set.
                if let Some(mut child) = running.remove(&event.data()) {
                    Child::wait(&mut child).map_err(|e| e.to_string())?;
                }
            }
        }
        if next >= total {
            break;
        }
        let child = ready.spawn().map_err(|e| e.to_string())?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, next as u64);
        epoll.add(&child, event).map_err(|e| e.to_string())?;
        running.insert(next as u64, child);
    }
    Ok(())
}

/// Touched memory that the parent carries: pages of 4 KiB, as a heap has them.
#[derive(Debug)]
pub struct Ballast(MmapMut);

impl Ballast {
    /// Maps and touches `bytes`.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(bytes: usize) -> Result<Self, SysError> {
        let mut map = MmapMut::map_anon(bytes).map_err(SysError::io("mmap"))?;
        // Huge pages would make fork's copy of the page table 512 times smaller. A kernel without them says EINVAL.
        let _ = map.advise(Advice::NoHugePage);
        map.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        Ok(Self(map))
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}
