//! Which CPUs we may use, and staying on one.

use kit::SysError;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread, for [`of`] and [`pin`].
pub const ME: Pid = Pid::from_raw(0);

/// The CPUs that this thread may use: less than all under taskset, a cpuset, or with CPUs offline.
///
/// # Errors
/// EINVAL from sched_getaffinity(2): more than 1024 CPUs.
pub fn allowed() -> Result<Vec<usize>, SysError> {
    of(ME)
}

/// The CPUs that a thread may use.
///
/// # Errors
/// See [`allowed`]; ESRCH.
pub fn of(thread: Pid) -> Result<Vec<usize>, SysError> {
    let set = sched_getaffinity(thread).map_err(SysError::nix("sched_getaffinity"))?;
    Ok((0..CpuSet::count()).filter(|&c| set.is_set(c).unwrap_or(false)).collect())
}

/// Confines a thread to one CPU; it is there on return, or will be when it runs next.
///
/// # Errors
/// EINVAL from sched_setaffinity(2): the CPU is offline, or the cpuset forbids it.
pub fn pin(thread: Pid, cpu: usize) -> Result<(), SysError> {
    let mut set = CpuSet::new();
    set.set(cpu).map_err(SysError::nix("CPU_SET"))?;
    sched_setaffinity(thread, &set)
        .map_err(SysError::nix("sched_setaffinity"))
        .map_err(|e| e.with_detail(format!("CPU {cpu}: offline, or not in this cpuset")))
}
