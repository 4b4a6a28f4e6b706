//! Which CPUs we may use, and staying on one.

use std::time::Duration;

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

/// [`pin`]s a thread to `cpu`, or, if that has been taken away since it was [`allowed`], to one that is allowed
/// now. Which it is.
///
/// A CPU goes when a cpuset is changed or a CPU switched off; the kernel moves threads elsewhere and says
/// nothing. The set changes first and its threads' masks one by one after it: in between, the mask that
/// sched_getaffinity(2) tells is refused, for as long as whoever changes the set is kept from running.
///
/// # Errors
/// See [`pin`]: no CPU that we are told of could be had within a second.
pub fn settle(thread: Pid, cpu: usize) -> Result<usize, SysError> {
    settle_by(cpu, |cpu| pin(thread, cpu), || of(thread), std::thread::sleep)
}

fn settle_by(
    mut cpu: usize,
    mut pin: impl FnMut(usize) -> Result<(), SysError>,
    mut allowed: impl FnMut() -> Result<Vec<usize>, SysError>,
    mut sleep: impl FnMut(Duration),
) -> Result<usize, SysError> {
    const TRIES: u32 = 1000;
    let mut tries = 1;
    loop {
        match pin(cpu) {
            Ok(()) => return Ok(cpu),
            Err(e) if e.errno != libc::EINVAL || tries == TRIES => return Err(e),
            Err(_) if tries > 1 => sleep(Duration::from_millis(1)),
            Err(_) => {}
        }
        cpu = allowed()?.first().copied().unwrap_or(cpu);
        tries += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn offline() -> SysError {
        SysError::new("sched_setaffinity", libc::EINVAL)
    }

    #[test]
    fn who_loses_its_cpu_settles_on_another() {
        // CPU 3 has gone offline since we asked; 1 and 2 are there.
        let online = [1, 2];
        let pin = |cpu| if online.contains(&cpu) { Ok(()) } else { Err(offline()) };
        let at_once = |_| panic!("nothing to wait for");
        assert_eq!(settle_by(3, pin, || Ok(online.to_vec()), at_once), Ok(1));
        assert_eq!(settle_by(2, pin, || panic!("not asked again"), at_once), Ok(2));
    }

    #[test]
    fn a_mask_that_lags_behind_its_cpuset_is_waited_for() {
        // We are told of CPU 0 until 50 ms have passed; the cpuset has only CPU 1 already.
        let waited = Cell::new(Duration::ZERO);
        let told = || Ok(vec![usize::from(waited.get() >= Duration::from_millis(50))]);
        let pin = |cpu| if cpu == 1 { Ok(()) } else { Err(offline()) };
        assert_eq!(settle_by(0, pin, told, |time| waited.set(waited.get() + time)), Ok(1));
    }

    #[test]
    fn it_gives_up_in_the_end_and_on_any_other_error() {
        let mut waited = Duration::ZERO;
        let never = settle_by(0, |_| Err(offline()), || Ok(vec![0]), |time| waited += time);
        assert_eq!(never, Err(offline()));
        assert!((900..=1000).contains(&waited.as_millis()), "{waited:?}");
        let forbidden = SysError::new("sched_setaffinity", libc::EPERM);
        let no_wait = |_| panic!("nothing to wait for");
        assert_eq!(settle_by(0, |_| Err(forbidden.clone()), || Ok(vec![1]), no_wait), Err(forbidden));
    }
}
