//! Something happens at *every* instruction of a critical section, one after the other, and we count.
//!
//! Single-stepping cannot do this: each stop is a preemption, which aborts the section, so the second
//! instruction is never reached. Instead a traced child runs the operation at full speed into a breakpoint,
//! one round for each instruction:
//!
//! ```text
//! parent                                  child
//! write int3 at instruction k, let go
//!                                         … runs into it: SIGTRAP
//! put the byte back, ip = k
//! do the thing to it: wait, move it to
//! another CPU, or send it a signal whose
//! handler works on the *same* structure
//! let go                                  the kernel sees ip inside the section: abort handler; retry
//!                                         stops: round done
//! read how often it aborted, and what is
//! in the structure
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use iced_x86::{Decoder, DecoderOptions};
use kit::SysError;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::cpus;
use crate::subject::{Subject, prepare, run};
use crate::sys::child::{Traced, stop_here};
use crate::sys::rseq::RseqError;
use crate::sys::sections::{Entry, table};
use crate::sys::signal::SIGNAL;

/// What happens to the thread at the instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is off its CPU for a millisecond.
    Preemption,
    /// It handles a signal, and the handler works on the same structure.
    Signal,
    /// It goes on, on another CPU.
    Migration,
}

/// All of them.
pub const EVENTS: [Event; 3] = [Event::Preemption, Event::Signal, Event::Migration];

/// Where an instruction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Before the section.
    Before,
    /// In the section, up to and including the commit.
    Inside,
    /// The instruction after the commit.
    After,
}

/// One round.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Which instruction from the start of the frame, and its address.
    pub instruction: usize,
    /// See [`instruction`](Self::instruction).
    pub ip: u64,
    /// Where it stands.
    pub part: Part,
    /// How often the operation was aborted.
    pub aborts: u32,
    /// Times the child was preempted by something else meanwhile: those may abort as well.
    pub disturbed: u32,
    /// Whether the structure was right afterwards.
    pub right: bool,
}

/// Why there are no rounds.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// There is no rseq.
    #[error(transparent)]
    Rseq(#[from] RseqError),
    /// Migration needs a second CPU that we may use.
    #[error("only one CPU to run on: nowhere to migrate to")]
    OneCpu,
    /// The child did something else than expected.
    #[error("the traced child is at an unexpected point: {0}")]
    Astray(String),
    /// The operation does not pass the section.
    #[error("no such section in this program")]
    NoSection,
}

/// What the child tells. Lives in the parent's memory and, after fork, at the same address in the child's.
#[derive(Debug, Default)]
struct Report {
    aborts: AtomicU32,
    preempted: AtomicU32,
    right: AtomicU32,
}

/// Runs `subject` once for each instruction of its section, with `event` there. `armed`: whether the kernel
/// is told of the section.
///
/// # Errors
/// ptrace is forbidden (EPERM), or see [`InjectError`].
pub fn inject(subject: Subject, armed: bool, event: Event) -> Result<Vec<Round>, InjectError> {
    prepare()?;
    let entries: Vec<&Entry> =
        table().iter().filter(|e| e.kind() == subject.kind() && e.armed() == armed).collect();
    let points = instructions(entries.first().ok_or(InjectError::NoSection)?);
    let report = Box::new(Report::default());
    let there = &*report;
    let child = Traced::fork(|| {
        loop {
            let done = run(subject, armed);
            there.aborts.store(done.aborts, Ordering::Relaxed);
            there.preempted.store(done.preempted, Ordering::Relaxed);
            there.right.store(u32::from(done.right), Ordering::Relaxed);
            stop_here();
        }
    })?;
    if event == Event::Migration {
        cpus::settle(child.0, cpus::allowed()?[0])?;
    }
    (0..points.len()).map(|i| round(&child, &entries, &points, i, event, there)).collect()
}

/// Offsets of the instructions from the frame to the one after the commit.
fn instructions(entry: &Entry) -> Vec<u64> {
    let (code, _) = entry.code();
    let mut offsets: Vec<u64> = Decoder::with_ip(64, code, entry.frame_ip, DecoderOptions::NONE)
        .iter()
        .map(|i| i.ip() - entry.frame_ip)
        .collect();
    offsets.push(entry.post_commit_ip - entry.frame_ip);
    offsets
}

fn round(
    child: &Traced,
    entries: &[&Entry],
    points: &[u64],
    i: usize,
    event: Event,
    report: &Report,
) -> Result<Round, InjectError> {
    let pid = child.0;
    // The section is inlined in more than one place; the child passes one of them first. Early exits may pass
    // none of the later instructions, so a round can also end without a breakpoint.
    let mut saved = Vec::new();
    for entry in entries {
        saved.push((entry.frame_ip + points[i], poke(pid, entry.frame_ip + points[i], 0xcc)?));
    }
    go_on(pid, None)?;
    let stop = child.wait()?;
    for &(at, byte) in &saved {
        poke(pid, at, byte)?;
    }
    let WaitStatus::Stopped(_, Signal::SIGTRAP) = stop else {
        return Err(InjectError::Astray(format!("{stop:?} instead of a breakpoint")));
    };
    let mut regs = ptrace::getregs(pid).map_err(SysError::nix("PTRACE_GETREGS"))?;
    regs.rip -= 1;
    let entry = entries
        .iter()
        .find(|e| e.frame_ip + points[i] == regs.rip)
        .ok_or_else(|| InjectError::Astray(format!("breakpoint at {:#x}", regs.rip)))?;
    ptrace::setregs(pid, regs).map_err(SysError::nix("PTRACE_SETREGS"))?;
    match event {
        Event::Preemption => {
            std::thread::sleep(Duration::from_millis(1));
            go_on(pid, None)?;
        }
        Event::Signal => go_on(pid, Some(SIGNAL))?,
        Event::Migration => {
            migrate(pid)?;
            go_on(pid, None)?;
        }
    }
    match child.wait()? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        other => return Err(InjectError::Astray(format!("{other:?} instead of the end of a round"))),
    }
    let part = match regs.rip {
        ip if ip < entry.start_ip => Part::Before,
        ip if ip < entry.post_commit_ip => Part::Inside,
        _ => Part::After,
    };
    Ok(Round {
        instruction: i,
        ip: regs.rip,
        part,
        aborts: peek(pid, &report.aborts)?,
        disturbed: peek(pid, &report.preempted)?,
        right: peek(pid, &report.right)? != 0,
    })
}

fn go_on(pid: Pid, signal: Option<Signal>) -> Result<(), SysError> {
    ptrace::cont(pid, signal).map_err(SysError::nix("PTRACE_CONT"))
}

/// Writes one byte of the child's code; the one that was there.
fn poke(pid: Pid, at: u64, byte: u8) -> Result<u8, SysError> {
    let word = ptrace::read(pid, at as ptrace::AddressType).map_err(SysError::nix("PTRACE_PEEKTEXT"))?;
    let new = (word & !0xff) | i64::from(byte);
    ptrace::write(pid, at as ptrace::AddressType, new).map_err(SysError::nix("PTRACE_POKETEXT"))?;
    Ok(word as u8)
}

/// The child's value of a word of ours.
fn peek(pid: Pid, word: &AtomicU32) -> Result<u32, SysError> {
    let at = word.as_ptr() as ptrace::AddressType;
    Ok(ptrace::read(pid, at).map_err(SysError::nix("PTRACE_PEEKDATA"))? as u32)
}

/// From the CPU that the child is pinned to, to another.
fn migrate(pid: Pid) -> Result<(), InjectError> {
    let now = cpus::of(pid)?.first().copied();
    for other in cpus::allowed()?.into_iter().filter(|&cpu| Some(cpu) != now) {
        match cpus::pin(pid, other) {
            // A cpuset that has changed meanwhile forbids it.
            Err(e) if e.errno == libc::EINVAL => {}
            done => return Ok(done?),
        }
    }
    Err(InjectError::OneCpu)
}
