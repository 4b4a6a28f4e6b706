//! What can go wrong, and in which process it went wrong.

use kit::SysError;

use crate::ways::Way;

/// What a child does between its creation and the new program, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Setting signals to their default actions.
    Signals = 1,
    /// `setsid`.
    Session,
    /// `setpgid`.
    Group,
    /// Joining the cgroup by writing to cgroup.procs.
    Cgroup,
    /// `setgroups`, `setresgid`, `setresuid`.
    Ids,
    /// `prctl(PR_SET_PDEATHSIG)`; ESRCH: the parent was already gone.
    ParentDeath,
    /// `chdir`.
    Cwd,
    /// `dup3` and `close_range`.
    Descriptors,
    /// `rt_sigprocmask`.
    Mask,
    /// `execve`.
    Exec,
    /// One of them: `posix_spawn` returns an errno and does not say whose.
    NotTold,
}

impl Step {
    const ALL: [Step; 11] = [
        Step::Signals,
        Step::Session,
        Step::Group,
        Step::Cgroup,
        Step::Ids,
        Step::ParentDeath,
        Step::Cwd,
        Step::Descriptors,
        Step::Mask,
        Step::Exec,
        Step::NotTold,
    ];

    /// The step and the errno in the word that a child leaves; `None` for 0, success.
    pub(crate) fn unpack(word: u64) -> Option<(Step, i32)> {
        let step = Self::ALL.into_iter().find(|&s| s as u64 == word >> 32)?;
        Some((step, word as u32 as i32))
    }

    /// The call as one looks it up.
    pub fn call(self) -> &'static str {
        match self {
            Step::Signals => "rt_sigaction",
            Step::Session => "setsid",
            Step::Group => "setpgid",
            Step::Cgroup => "write to cgroup.procs",
            Step::Ids => "setresuid, setresgid or setgroups",
            Step::ParentDeath => "prctl(PR_SET_PDEATHSIG)",
            Step::Cwd => "chdir",
            Step::Descriptors => "dup3 or close_range",
            Step::Mask => "rt_sigprocmask",
            Step::Exec => "execve",
            Step::NotTold => "posix_spawn (which does not say whether chdir, dup2 or execve)",
        }
    }
}

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

/// Why no program was started. In every case no child, no pidfd and no zombie is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// The request itself cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The way chosen cannot do this; others can.
    #[error("{way} cannot {what}")]
    Unsupported {
        /// The way chosen.
        way: Way,
        /// What it cannot do.
        what: &'static str,
    },
    /// No process was created.
    #[error("{way}: no process was created: {source}{}", hint_create(source))]
    Create {
        /// The way tried.
        way: Way,
        /// The call that failed, in the parent.
        source: SysError,
    },
    /// A process was created, failed before the new program ran, and has been reaped.
    #[error("{way}: in the child, {source}{}", hint_child(*step, source))]
    Child {
        /// The way tried.
        way: Way,
        /// Which step failed.
        step: Step,
        /// Its call and errno, as the child saw it.
        source: SysError,
    },
}

fn hint_create(e: &SysError) -> &'static str {
    match e.errno {
        libc::EAGAIN => {
            "\n  a limit on processes is reached: RLIMIT_NPROC, pids.max of a cgroup, or kernel.pid_max"
        }
        libc::ENOMEM => "\n  no memory for the process, or its PID namespace has lost its init",
        libc::EMFILE => "\n  a pidfd needs a descriptor, and this process has none left: ulimit -n",
        libc::EPERM => "\n  a seccomp filter (older container runtimes) or a missing capability",
        libc::ENOSYS => "\n  the kernel is older than Linux 5.3, or a seccomp filter pretends so",
        libc::EACCES => "\n  the cgroup's cgroup.procs is not writable for you",
        libc::EBUSY => "\n  the cgroup has controllers enabled for its children, so it takes no processes",
        _ => "",
    }
}

fn hint_child(step: Step, e: &SysError) -> &'static str {
    match (step, e.errno) {
        (Step::Exec, libc::ENOENT) => "\n  no such program, or the interpreter named after #! is not there",
        (Step::Exec, libc::EACCES) => "\n  not executable, a directory, or on a noexec mount",
        (Step::Exec, libc::ENOEXEC) => {
            "\n  no ELF file and no #! line; execve, unlike a shell, does not guess /bin/sh"
        }
        (Step::Exec, libc::E2BIG) => {
            "\n  arguments and environment are too long: a quarter of the stack limit in all, 128 KiB each"
        }
        (Step::Exec, libc::ETXTBSY) => "\n  some process still has the program open for writing",
        (Step::Descriptors, libc::EMFILE) => "\n  no descriptor free to put one aside while swapping",
        (Step::Descriptors, libc::EBADF) => "\n  a target number is at or above the limit: ulimit -n",
        (Step::Cgroup, libc::EACCES | libc::EPERM) => "\n  the cgroup is not writable for you",
        (Step::Ids, libc::EPERM) => "\n  changing ids needs CAP_SETUID and CAP_SETGID",
        _ => "",
    }
}
