//! posix_spawn: the portable call. glibc does what `clone3` here does, but returns a bare PID.

use std::os::fd::{AsRawFd, RawFd};

use super::{Started, Way, create, in_child, open_own_child};
use crate::error::{SpawnError, Step};
use crate::plan::Plan;
use crate::sys::create::PosixSpawn;
use crate::sys::raw::own_dup_above;

/// What POSIX and glibc 2.36 have no attribute for.
fn refuse(plan: &Plan<'_>) -> Result<(), SpawnError> {
    let what = if plan.parent_death.is_some() {
        "set a parent-death signal"
    } else if plan.ids.is_some() {
        "change user and group"
    } else if plan.cgroup.is_some() {
        "start in a cgroup (glibc can since 2.39)"
    } else {
        return Ok(());
    };
    Err(SpawnError::Unsupported { way: Way::PosixSpawn, what })
}

/// Its file actions know only fixed numbers, so what must be put aside is put aside here.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<Started, SpawnError> {
    let way = Way::PosixSpawn;
    refuse(plan)?;
    let above = plan.above();
    let mut aside = Vec::new();
    for &(_, from) in &plan.moves {
        aside.push(own_dup_above(from, above).map_err(create(way, "fcntl"))?);
    }
    let started = (|| {
        let mut call = PosixSpawn::new()?;
        call.signals(plan.mask)?;
        if plan.session {
            call.session();
        }
        if let Some(group) = plan.group {
            call.group(group)?;
        }
        if let Some(cwd) = &plan.cwd {
            call.chdir(cwd)?;
        }
        for ((to, _), from) in plan.moves.iter().zip(&aside) {
            call.dup2(from.as_raw_fd(), *to)?;
        }
        for &(first, last) in &plan.gaps {
            if last == u32::MAX {
                call.close_from(first as RawFd)?;
            } else {
                (first..=last).try_for_each(|fd| call.close(fd as RawFd))?;
            }
        }
        let raw = plan.raw();
        let mut last = libc::ENOENT;
        for path in plan.paths.iter() {
            match call.spawn(path.as_ptr(), &raw) {
                // As execvp(3): "not allowed" is remembered, "not there" is not.
                Err(libc::EACCES) => last = libc::EACCES,
                Err(e @ (libc::ENOENT | libc::ENOTDIR)) => last = if last == libc::EACCES { last } else { e },
                done => return done,
            }
        }
        Err(last)
    })();
    match started {
        Ok(pid) => open_own_child(way, pid),
        Err(e @ (libc::EAGAIN | libc::ENOMEM | libc::ENOSYS)) => Err(create(way, "posix_spawn")(e)),
        Err(e) => Err(in_child(way, (Step::NotTold, e))),
    }
}
