//! Core dumps: where they go and how large they may be. Reads only: a real dump would leave a file.

use std::os::fd::AsFd as _;

use nix::sys::resource::{Resource, getrlimit, rlim_t};

use super::machine::Who;
use super::{Answer, Finding, Fix};
use crate::SysError;
use crate::sys::pidfd;

pub(super) const NAMES: [&str; 3] = ["core_pattern", "rlimit_core", "coredump_socket"];

#[derive(Debug)]
pub(super) struct Core {
    /// /proc/sys/kernel/core_pattern.
    pub(super) pattern: Answer<String>,
    /// Whether we could write it.
    pub(super) pattern_writable: bool,
    /// RLIMIT_CORE, soft and hard.
    pub(super) limit: Answer<(rlim_t, rlim_t)>,
    /// The mask that PIDFD_GET_INFO returns for PIDFD_INFO_COREDUMP, which came with the socket.
    pub(super) coredump_info: Answer<u64>,
}

const PATTERN: &str = "/proc/sys/kernel/core_pattern";
const PIDFD_INFO_COREDUMP: u64 = 1 << 4;

impl Core {
    pub(super) fn collect() -> Self {
        let read = std::fs::read_to_string(PATTERN).map(|s| s.trim_end().to_owned());
        let pid = std::process::id() as libc::pid_t;
        Self {
            pattern: read.map_err(SysError::io("open(\"/proc/sys/kernel/core_pattern\")")),
            // Opening for writing changes nothing; a write would.
            pattern_writable: std::fs::File::options().write(true).open(PATTERN).is_ok(),
            limit: getrlimit(Resource::RLIMIT_CORE).map_err(SysError::nix("getrlimit(RLIMIT_CORE)")),
            coredump_info: pidfd::open(pid)
                .and_then(|fd| Ok(pidfd::info(fd.as_fd(), PIDFD_INFO_COREDUMP)?.0)),
        }
    }

    pub(super) fn judge(&self, _who: &Who) -> Vec<Finding> {
        vec![self.judge_pattern(), self.judge_limit(), self.judge_socket()]
    }

    fn judge_pattern(&self) -> Finding {
        let name = NAMES[0];
        let to_file = Fix::root(
            "sudo sysctl kernel.core_pattern=core",
            "crashes write memory to files in the current folder; the crash collector gets none",
        );
        match self.pattern.as_deref() {
            Err(e) => Finding::no(name, e, PATTERN),
            Ok("") => Finding::no(name, &SysError::new("core_pattern is empty", 0), "no core files")
                .with_fix(to_file),
            Ok(p) if p.starts_with(['|', '@']) => Finding::no(
                name,
                &SysError::new("cores do not become files", 0),
                format!("core_pattern is {p:?}: a collector takes them"),
            )
            .with_fix(to_file),
            Ok(p) => Finding::ok(name, "cores become files", format!("core_pattern {p:?}")),
        }
    }

    fn judge_limit(&self) -> Finding {
        let name = NAMES[1];
        let size =
            |n: rlim_t| if n == libc::RLIM_INFINITY { "unlimited".to_owned() } else { format!("{n} bytes") };
        match &self.limit {
            Err(e) => Finding::no(name, e, ""),
            Ok((_, 0)) => {
                Finding::no(name, &SysError::new("RLIMIT_CORE is 0 for good", 0), "hard limit 0").with_fix(
                    Fix::root("ulimit -H -c unlimited (as root), or a line in /etc/security/limits.conf", ""),
                )
            }
            Ok((soft, hard)) => Finding::ok(
                name,
                if soft == hard { "cores may be written" } else { "a lab can raise it for its victim" },
                format!("soft {}, hard {}", size(*soft), size(*hard)),
            ),
        }
    }

    fn judge_socket(&self) -> Finding {
        let name = NAMES[2];
        match &self.coredump_info {
            Err(e) => Finding::old(name, e, "6.16"),
            Ok(mask) if mask & PIDFD_INFO_COREDUMP == 0 => {
                Finding::old(name, &SysError::new("PIDFD_GET_INFO knows no core dumps", 0), "6.16")
            }
            Ok(_) if !self.pattern_writable => Finding::no(
                name,
                &SysError::new("core_pattern is not ours to set", 0),
                "the kernel has the socket",
            )
            .with_fix(Fix::elevate("the lab sets core_pattern, and sets it back")),
            Ok(mask) => {
                Finding::ok(name, "the kernel has it, core_pattern is ours to set", format!("mask {mask:#x}"))
            }
        }
    }
}
