//! fork, then exec: the classic. The child is a copy, so the parent's page tables are copied first.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::fcntl::OFlag;

use super::{Started, Way, cgroup_procs, create, in_child, open_own_child, reap};
use crate::error::{SpawnError, Step};
use crate::plan::Plan;
use crate::sys::create::{SignalsBlocked, fork};
use crate::sys::raw::own_dup_above;

/// The child's errors come through a pipe that closes at exec: end of file means success.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<Started, SpawnError> {
    let way = Way::Fork;
    let (from_child, to_parent) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| create(way, "pipe2")(e as i32))?;
    // Where no target of the mapping overwrites it.
    let above = own_dup_above(to_parent.as_fd(), plan.above()).map_err(create(way, "fcntl"))?;
    drop(to_parent);
    let join = cgroup_procs(way, plan)?;

    let mut raw = plan.raw();
    raw.error_pipe = above.as_raw_fd();
    raw.cgroup_procs = join.as_ref().map_or(-1, |f| f.as_raw_fd());
    let pid = {
        let _blocked = SignalsBlocked::new();
        fork(&raw).map_err(create(way, "fork"))?
    };
    drop(above);

    let mut word = Vec::new();
    let _ = File::from(from_child).read_to_end(&mut word);
    match word.try_into().ok().and_then(|w| Step::unpack(u64::from_ne_bytes(w))) {
        None => open_own_child(way, pid),
        Some(failure) => {
            reap(pid);
            Err(in_child(way, failure))
        }
    }
}
