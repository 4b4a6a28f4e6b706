//! A failed system call, with what a reader needs to act on it.

use std::borrow::Cow;

use nix::errno::Errno;

/// A system call that failed: which one, and with what errno.
///
/// The message names the call, the errno's symbol and its text, as `strace` and the man pages do.
/// Kernel diagnostics (a verifier log, KVM's exit data) travel in `detail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    /// The call as a reader would look it up: `open("/dev/kvm")`, `KVM_CREATE_VM`.
    pub call: Cow<'static, str>,
    /// The raw errno; see errno(3).
    pub errno: i32,
    /// What else the kernel said; empty where it said nothing.
    pub detail: String,
}

impl SysError {
    /// An error of `call` with a raw errno.
    pub fn new(call: impl Into<Cow<'static, str>>, errno: i32) -> Self {
        Self { call: call.into(), errno, detail: String::new() }
    }

    /// An error of `call` with the calling thread's errno.
    pub fn last(call: impl Into<Cow<'static, str>>) -> Self {
        Self::new(call, Errno::last_raw())
    }

    /// The same error, with what the kernel said besides.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// For `map_err`: `File::open(p).map_err(SysError::io("open"))`.
    pub fn io(call: impl Into<Cow<'static, str>>) -> impl FnOnce(std::io::Error) -> Self {
        let call = call.into();
        move |e| Self {
            errno: e.raw_os_error().unwrap_or(0),
            detail: if e.raw_os_error().is_none() { e.to_string() } else { String::new() },
            call,
        }
    }

    /// For `map_err` after a call of nix: `nix::unistd::pipe().map_err(SysError::nix("pipe2"))`.
    pub fn nix(call: impl Into<Cow<'static, str>>) -> impl FnOnce(Errno) -> Self {
        let call = call.into();
        move |e| Self::new(call, e as i32)
    }

    /// The errno's symbol: `EPERM`.
    pub fn symbol(&self) -> String {
        match Errno::from_raw(self.errno) {
            Errno::UnknownErrno => format!("errno {}", self.errno),
            e => format!("{e:?}"),
        }
    }

    /// What kind of obstacle the errno means for a probe of a kernel feature.
    pub fn kind(&self) -> Obstacle {
        match Errno::from_raw(self.errno) {
            Errno::ENOSYS | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOTTY => Obstacle::Lacks,
            Errno::EPERM | Errno::EACCES => Obstacle::Forbidden,
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => Obstacle::Absent,
            _ => Obstacle::Other,
        }
    }

    /// Whether the machine may be the cause: it lacks something, or forbids it. A file or a command that somebody
    /// named is not the machine's; those below /dev, /proc and /sys are.
    pub fn may_be_the_machines(&self) -> bool {
        let path = self.call.split_once("(\"").map(|(_, path)| path);
        let its_own = |path: &str| ["/dev/", "/proc/", "/sys/"].iter().any(|folder| path.starts_with(folder));
        self.kind() != Obstacle::Other && path.is_none_or(its_own)
    }
}

impl std::fmt::Display for SysError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.errno == 0 {
            write!(f, "{}", self.call)?;
        } else {
            write!(f, "{}: {} ({})", self.call, self.symbol(), Errno::from_raw(self.errno).desc())?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for SysError {}

/// Why a kernel feature could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The kernel does not know it: ENOSYS, EINVAL, EOPNOTSUPP, ENOTTY.
    Lacks,
    /// It is there and we may not: EPERM, EACCES (sysctl, capability, seccomp, lockdown).
    Forbidden,
    /// A device or file is not there: ENOENT, ENODEV, ENXIO.
    Absent,
    /// Anything else: a limit, a race, a bug.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_named_is_not_the_machines() {
        let cases = [
            ("KVM_CREATE_VM", libc::EPERM, true),
            ("bpf(BPF_PROG_LOAD)", libc::EINVAL, true),
            ("open(\"/dev/kvm\")", libc::ENOENT, true),
            ("open(\"/proc/1/mem\")", libc::EACCES, true),
            ("exec(\"no-such-program\")", libc::ENOENT, false),
            ("open(\"core\")", libc::EACCES, false),
            ("read(pipe)", libc::EPIPE, false),
            ("it is no core file", 0, false),
        ];
        for (call, errno, expected) in cases {
            assert_eq!(SysError::new(call, errno).may_be_the_machines(), expected, "{call}");
        }
    }
}
