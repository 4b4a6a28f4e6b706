//! clone3: vfork's speed on a stack of its own, and the pidfd comes with the child.

use std::cell::RefCell;
use std::os::fd::AsRawFd;

use super::{Started, Way, create, in_child, reap};
use crate::error::SpawnError;
use crate::plan::Plan;
use crate::sys::create::{CLONE_CLEAR_SIGHAND, SignalsBlocked, Stack, clone3};

thread_local! {
    /// Kept between spawns: mapping 64 KiB and faulting it in costs as much as the clone.
    static STACK: RefCell<Option<Stack>> = const { RefCell::new(None) };
}

/// The heart of it.
pub(crate) const HERE: kit::Place = kit::here!();

/// One call gives process, pidfd and cgroup: there is no moment in which the child has only a number.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<Started, SpawnError> {
    let failed = || create(Way::Clone3, "clone3");
    let mut raw = plan.raw();
    raw.reset_handlers = false; // CLONE_CLEAR_SIGHAND does, without 64 system calls
    let cgroup = plan.cgroup.map(|fd| fd.as_raw_fd());

    let stack = match STACK.take() {
        Some(stack) => stack,
        None => Stack::new().map_err(create(Way::Clone3, "mmap"))?,
    };
    let started = {
        let _blocked = SignalsBlocked::new();
        clone3(&raw, &stack, CLONE_CLEAR_SIGHAND, cgroup)
    };
    STACK.set(Some(stack));
    let (pid, pidfd) = started.map_err(failed())?;
    match plan.failure() {
        None => Ok(Started { pid, pidfd }),
        Some(failure) => {
            reap(pid);
            Err(in_child(Way::Clone3, failure))
        }
    }
}
