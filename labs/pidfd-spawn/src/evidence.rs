//! What this machine does, found by looking: io_uring's operations, std's `Command`, refused calls.

use std::process::Command;

use io_uring::{IoUring, Probe, opcode};
use kit::SysError;

use crate::sys;

/// What io_uring says it can do about processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSupport {
    /// IORING_OP_WAITID: wait for a child. Linux 6.7.
    pub waitid: bool,
    /// How many operations this kernel knows.
    pub known: u8,
    /// The number after the last one it knows is where a spawn or exec operation would be: refused.
    pub next: u8,
}

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

/// Asks with IORING_REGISTER_PROBE.
///
/// # Errors
/// ENOSYS, EPERM: no io_uring here.
pub fn ring_support() -> Result<RingSupport, SysError> {
    let ring = IoUring::new(4).map_err(SysError::io("io_uring_setup"))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(SysError::io("IORING_REGISTER_PROBE"))?;
    let known = (0..=u8::MAX).filter(|&op| probe.is_supported(op)).count() as u8;
    let next = (0..=u8::MAX).rev().find(|&op| probe.is_supported(op)).map_or(0, |op| op + 1);
    Ok(RingSupport { waitid: probe.is_supported(opcode::WaitId::CODE), known, next })
}

/// The argument with which [`trace_std`] runs this program again, to do [`std_once`].
pub const STD_ONCE: &str = "--std-once";

/// Starts and waits for `true` by std's `Command`; `plain`, or with a `pre_exec` closure.
///
/// # Errors
/// Those of `Command`.
pub fn std_once(pre_exec: bool) -> std::io::Result<()> {
    let mut command = Command::new("true");
    if pre_exec {
        sys::create::empty_pre_exec(&mut command);
    }
    command.status().map(drop)
}

/// What `strace` saw std do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdTrace {
    /// Its calls that create, watch and reap the process, in order.
    pub calls: Vec<String>,
    /// Whether a pidfd was used.
    pub pidfd: bool,
}

/// Runs `program --std-once NAME` under strace.
///
/// # Errors
/// ENOENT: no strace; else what strace said.
pub fn trace_std(program: &std::path::Path, pre_exec: bool) -> Result<StdTrace, SysError> {
    const WANTED: &str = "trace=clone,clone3,fork,vfork,execve,pidfd_open,pidfd_send_signal,waitid,wait4";
    let out = Command::new("strace")
        .args(["-f", "-q", "-e", WANTED, "-e", "signal=none"])
        .arg(program)
        .arg(STD_ONCE)
        .arg(if pre_exec { "pre_exec" } else { "plain" })
        .output()
        .map_err(SysError::io("strace"))?;
    let text = String::from_utf8_lossy(&out.stderr);
    let calls: Vec<String> = text
        .lines()
        .filter(|l| !l.contains("resumed>") && !l.contains("ENOENT") && l.contains('('))
        .map(|l| l.split_once("] ").map_or(l, |(pid, rest)| if pid.starts_with("[pid") { rest } else { l }))
        .map(|l| l.trim_end_matches(" <unfinished ...>").to_owned())
        .skip(1) // the execve of the program itself
        .collect();
    if calls.is_empty() {
        return Err(SysError::new("strace", 0).with_detail(text.trim().to_owned()));
    }
    let pidfd = calls.iter().any(|c| c.contains("PIDFD") || c.starts_with("pidfd_"));
    Ok(StdTrace { calls, pidfd })
}

/// From now on, `clone3` of the calling *thread* and its children fails with `errno`, by seccomp(2).
///
/// # Errors
/// EINVAL, EPERM: no filters here.
pub fn refuse_clone3(errno: i32) -> Result<(), SysError> {
    sys::create::filter_clone3(errno).map_err(|e| SysError::new("seccomp(SET_MODE_FILTER)", e))
}
