//! vfork, then exec: no copy; the child borrows our memory and stack while we sleep.

use std::os::fd::AsRawFd;

use super::{Started, Way, cgroup_procs, create, in_child, open_own_child, reap};
use crate::error::SpawnError;
use crate::plan::Plan;
use crate::sys::create::{SignalsBlocked, vfork};

/// When `vfork` returns here, the child has exec'ed or ended, and left its error in shared memory.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<Started, SpawnError> {
    let join = cgroup_procs(Way::Vfork, plan)?;
    let mut raw = plan.raw();
    raw.cgroup_procs = join.as_ref().map_or(-1, |f| f.as_raw_fd());
    let pid = {
        let _blocked = SignalsBlocked::new();
        vfork(&raw).map_err(create(Way::Vfork, "vfork"))?
    };
    match plan.failure() {
        None => open_own_child(Way::Vfork, pid),
        Some(failure) => {
            reap(pid);
            Err(in_child(Way::Vfork, failure))
        }
    }
}
