//! What a new child does before exec, the same for every way of creating it.
//!
//! It may share memory with its suspended parent (vfork, clone3) or hold a copy of a parent whose
//! other threads held locks (fork). So: system calls of [`raw`](super::raw) only, no allocation, no
//! lock, no panic, no return.
#![allow(
    unsafe_code,
    reason = "reads the plan through pointers, for it may lie in memory shared with a zygote"
)]

use std::ffi::{c_char, c_void};
use std::os::fd::RawFd;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::raw;
use crate::error::Step;
use crate::fds::FdStep;

/// All that a child needs, as plain data and pointers.
///
/// Made by `Plan::raw` or in a zygote's shared memory; both keep what it points to alive and
/// unchanged until the child has exec'ed or ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawPlan {
    /// Programs to try in turn; a NULL-terminated array.
    pub paths: *const *const c_char,
    /// NULL-terminated.
    pub argv: *const *const c_char,
    /// NULL-terminated.
    pub envp: *const *const c_char,
    /// NULL: stay.
    pub cwd: *const c_char,
    /// `fd_count` steps.
    pub fds: *const FdStep,
    pub fd_count: usize,
    /// `gap_count` ranges of descriptors that must not survive exec.
    pub gaps: *const (u32, u32),
    pub gap_count: usize,
    /// No target of the mapping is this high.
    pub above: RawFd,
    pub session: bool,
    pub group: Option<i32>,
    /// An open cgroup.procs to join by writing; -1: none.
    pub cgroup_procs: RawFd,
    pub ids: Option<(u32, u32)>,
    /// The signal, and who must still be our parent.
    pub parent_death: Option<(i32, i32)>,
    /// Bit n-1 is signal n.
    pub mask: u64,
    /// Whether handlers are still there; CLONE_CLEAR_SIGHAND has the kernel do it.
    pub reset_handlers: bool,
    /// Where to tell of a failure: a pipe, or -1 for `outcome`.
    pub error_pipe: RawFd,
    pub outcome: *const AtomicU64,
}

/// A failure in one word: `step << 32 | errno`; 0 is success.
pub(crate) fn pack(step: Step, errno: i32) -> u64 {
    (step as u64) << 32 | u64::from(errno as u32)
}

/// The child's first function: all steps, then exec. On failure it tells which step, and ends with 127.
///
/// # Safety
/// `plan` points to a [`RawPlan`] whose pointers are as described there, and this is a new process.
pub(crate) unsafe extern "C" fn main(plan: *mut c_void) -> ! {
    // SAFETY: the caller promises a RawPlan.
    let plan = unsafe { &*plan.cast::<RawPlan>() };
    // SAFETY: the same promise.
    let (step, errno) = unsafe { steps(plan) };
    let word = pack(step, errno);
    if plan.error_pipe >= 0 {
        let _ = raw::write(plan.error_pipe, &word.to_ne_bytes());
    } else {
        // SAFETY: without a pipe, `outcome` points to an AtomicU64 shared with the parent.
        let outcome = unsafe { &*plan.outcome };
        // Relaxed: the parent sleeps in the kernel until we end, which orders it.
        outcome.store(word, Relaxed);
    }
    raw::exit(127)
}

/// Runs all steps; returns the one that failed, for exec returns only when it does.
///
/// # Safety
/// The pointers of `plan` are as described there.
unsafe fn steps(plan: &RawPlan) -> (Step, i32) {
    // SAFETY: passed on.
    match unsafe { before_exec(plan) } {
        Err(failed) => failed,
        // SAFETY: passed on.
        Ok(()) => (Step::Exec, unsafe { exec(plan) }),
    }
}

unsafe fn before_exec(plan: &RawPlan) -> Result<(), (Step, i32)> {
    // A handler of the parent's must not run here, on its memory: drop them while all is blocked.
    if plan.reset_handlers {
        for signal in 1..=64 {
            // 9 and 19 cannot be asked about on all kernels; they have no handler anyway.
            let _ = raw::default_action(signal, false);
        }
    }
    // Rust programs ignore SIGPIPE, and "ignored" survives exec.
    raw::default_action(libc::SIGPIPE, true).map_err(|e| (Step::Signals, e))?;
    if plan.session {
        raw::setsid().map_err(|e| (Step::Session, e))?;
    }
    if let Some(group) = plan.group {
        raw::setpgid(group).map_err(|e| (Step::Group, e))?;
    }
    if plan.cgroup_procs >= 0 {
        raw::write(plan.cgroup_procs, b"0").map_err(|e| (Step::Cgroup, e))?;
    }
    if let Some((uid, gid)) = plan.ids {
        raw::clear_groups().map_err(|e| (Step::Ids, e))?;
        raw::set_gid(gid).map_err(|e| (Step::Ids, e))?;
        raw::set_uid(uid).map_err(|e| (Step::Ids, e))?;
    }
    // After the ids: changing them clears it. Then look whether the parent went in between.
    if let Some((signal, parent)) = plan.parent_death {
        raw::set_parent_death(signal).map_err(|e| (Step::ParentDeath, e))?;
        if raw::parent() != parent {
            return Err((Step::ParentDeath, libc::ESRCH));
        }
    }
    if !plan.cwd.is_null() {
        // SAFETY: `cwd`, where not NULL, is a NUL-terminated string.
        unsafe { raw::chdir(plan.cwd) }.map_err(|e| (Step::Cwd, e))?;
    }
    // SAFETY: `fds` has `fd_count` elements.
    let fds = unsafe { slice::from_raw_parts(plan.fds, plan.fd_count) };
    map_descriptors(fds, plan.above).map_err(|e| (Step::Descriptors, e))?;
    // SAFETY: `gaps` has `gap_count` elements.
    let gaps = unsafe { slice::from_raw_parts(plan.gaps, plan.gap_count) };
    for &(first, last) in gaps {
        // Not closed but marked: the error pipe must live until exec.
        raw::close_range(first, last, libc::CLOSE_RANGE_CLOEXEC).map_err(|e| (Step::Descriptors, e))?;
    }
    raw::set_mask(plan.mask).map_err(|e| (Step::Mask, e))?;
    Ok(())
}

fn map_descriptors(steps: &[FdStep], above: RawFd) -> Result<(), i32> {
    let mut stash = -1;
    for step in steps {
        match *step {
            FdStep::Keep(fd) => raw::keep_on_exec(fd)?,
            FdStep::Copy { from, to } => raw::dup3(from, to, 0)?,
            FdStep::Stash(fd) => stash = raw::dup_above(fd, above)?,
            FdStep::Place(to) => raw::dup3(stash, to, 0)?,
        }
    }
    Ok(())
}

/// Tries each path; like execvp(3), "not there" and "not allowed" let the next one have a try.
unsafe fn exec(plan: &RawPlan) -> i32 {
    let mut at = plan.paths;
    let (mut last, mut denied) = (libc::ENOENT, false);
    loop {
        // SAFETY: `paths` ends with NULL, at which we stop.
        let path = unsafe { *at };
        if path.is_null() {
            return if denied { libc::EACCES } else { last };
        }
        // SAFETY: a NUL-terminated string and two NULL-terminated arrays, by the plan.
        last = unsafe { raw::execve(path, plan.argv, plan.envp) };
        match last {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR => {}
            _ => return last,
        }
        // SAFETY: the element was not the NULL, so there is another.
        at = unsafe { at.add(1) };
    }
}
