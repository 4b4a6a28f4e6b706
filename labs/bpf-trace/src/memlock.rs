//! Before Linux 5.11, the memory of maps and programs counted as locked: with the usual limit, EPERM even for root.

use crate::error::TraceError;
use kit::SysError;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Does `make`; if that is forbidden and there is a limit on locked memory, does it once more without.
pub fn raised<T, E: Forbidden>(mut make: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    match make() {
        Err(e) if e.is_forbidden() && raise() => make(),
        other => other,
    }
}

/// An error that may be one of EPERM.
pub trait Forbidden {
    /// Whether it is.
    fn is_forbidden(&self) -> bool;
}

impl Forbidden for SysError {
    fn is_forbidden(&self) -> bool {
        self.errno == libc::EPERM
    }
}

impl Forbidden for TraceError {
    fn is_forbidden(&self) -> bool {
        matches!(self, Self::Sys(e) if e.is_forbidden())
    }
}

/// Raises RLIMIT_MEMLOCK as far as this process may; whether that was any further.
fn raise() -> bool {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else { return false };
    // To lift the hard limit takes CAP_SYS_RESOURCE.
    let lifted = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok();
    let raised = lifted || setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).is_ok();
    raised && soft != if lifted { RLIM_INFINITY } else { hard }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_by_the_limit_is_done_without_it_and_only_once() {
        let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        if hard < 1 << 16 {
            kit::skip!("memlock", "no room to lower the limit and raise it again");
        }
        setrlimit(Resource::RLIMIT_MEMLOCK, 1 << 15, hard).unwrap();
        let mut attempts = 0;
        // A kernel before 5.11, as far as a map of 64 KiB goes.
        let made = raised(|| {
            attempts += 1;
            let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
            if soft < 1 << 16 { Err(SysError::new("bpf(BPF_MAP_CREATE)", libc::EPERM)) } else { Ok(soft) }
        });
        assert!(made.is_ok());
        assert_eq!(attempts, 2);
        // The limit is no more what forbids: it is not tried again.
        attempts = 0;
        let refused: Result<(), _> = raised(|| {
            attempts += 1;
            Err(SysError::new("bpf(BPF_MAP_CREATE)", libc::EPERM))
        });
        assert_eq!((refused.unwrap_err().errno, attempts), (libc::EPERM, 1));
        let other: Result<(), _> = raised(|| Err(SysError::new("bpf(BPF_MAP_CREATE)", libc::ENOMEM)));
        assert_eq!(other.unwrap_err().errno, libc::ENOMEM);
    }
}
