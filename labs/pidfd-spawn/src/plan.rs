//! A spawn request with everything allocated and decided before there is a child.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{SpawnError, Step};
use crate::fds::{self, FdStep, Move};
use crate::sys::child::RawPlan;

/// Strings for exec: NUL-terminated each, and an array of pointers ending with NULL.
#[derive(Debug)]
pub(crate) struct Strings {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        // A CString's bytes are on the heap: moving the struct does not move them.
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { strings, pointers }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.strings.iter().map(CString::as_c_str)
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// A C string of anything path- or argument-like.
pub(crate) fn c_string(what: &str, s: impl AsRef<OsStr>) -> Result<CString, SpawnError> {
    CString::new(s.as_ref().as_bytes())
        .map_err(|_| SpawnError::Invalid(format!("{what} {:?} contains a NUL byte", s.as_ref())))
}

/// The request, ready to be used by any way of creating a process.
#[derive(Debug)]
pub(crate) struct Plan<'fd> {
    pub paths: Strings,
    pub argv: Strings,
    pub envp: Strings,
    pub cwd: Option<CString>,
    pub moves: Vec<(RawFd, BorrowedFd<'fd>)>,
    pub steps: Vec<FdStep>,
    pub gaps: Vec<(u32, u32)>,
    pub session: bool,
    pub group: Option<i32>,
    pub cgroup: Option<BorrowedFd<'fd>>,
    pub ids: Option<(u32, u32)>,
    pub parent_death: Option<i32>,
    pub mask: u64,
    outcome: AtomicU64,
}

impl<'fd> Plan<'fd> {
    pub(crate) fn new(
        paths: Vec<CString>,
        argv: Vec<CString>,
        envp: Vec<CString>,
        cwd: Option<CString>,
        moves: Vec<(RawFd, BorrowedFd<'fd>)>,
    ) -> Self {
        let raw: Vec<Move> = moves.iter().map(|&(to, from)| Move { to, from: from.as_raw_fd() }).collect();
        Self {
            paths: Strings::new(paths),
            argv: Strings::new(argv),
            envp: Strings::new(envp),
            cwd,
            steps: fds::steps(&raw),
            gaps: fds::gaps(&raw),
            moves,
            session: false,
            group: None,
            cgroup: None,
            ids: None,
            parent_death: None,
            mask: 0,
            outcome: AtomicU64::new(0),
        }
    }

    /// No target of the mapping is this high, nor is 0, 1 or 2.
    pub(crate) fn above(&self) -> RawFd {
        self.moves.iter().map(|m| m.0).max().unwrap_or(0).max(2) + 1
    }

    /// The plan as the child reads it; valid while `self` is borrowed.
    pub(crate) fn raw(&self) -> RawPlan {
        self.outcome.store(0, Relaxed);
        RawPlan {
            paths: self.paths.as_ptr(),
            argv: self.argv.as_ptr(),
            envp: self.envp.as_ptr(),
            cwd: self.cwd.as_ref().map_or(ptr::null(), |c| c.as_ptr()),
            fds: self.steps.as_ptr(),
            fd_count: self.steps.len(),
            gaps: self.gaps.as_ptr(),
            gap_count: self.gaps.len(),
            above: self.above(),
            session: self.session,
            group: self.group,
            cgroup_procs: -1,
            ids: self.ids,
            parent_death: self.parent_death.map(|signal| (signal, std::process::id() as i32)),
            mask: self.mask,
            reset_handlers: true,
            error_pipe: -1,
            outcome: &raw const self.outcome,
        }
    }

    /// What a child that shared our memory left behind.
    pub(crate) fn failure(&self) -> Option<(Step, i32)> {
        Step::unpack(self.outcome.load(Relaxed))
    }
}
