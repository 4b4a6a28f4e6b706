//! The view `open`: files that are opened, with path, flags and result, read where the call returns.

use std::os::fd::{AsFd as _, BorrowedFd};

use crate::error::TraceError;
use crate::filter::Filter;
use crate::json::Lines;
use crate::names::{self, Memo};
use crate::ring::{Record, Ring};
use crate::tracer::{Means, Plan, Tracer};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/open.bpf.o");

/// What to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whose.
    pub filter: Filter,
    /// Only those that failed.
    pub failed: bool,
    /// Whether to time them, too: a second program, at their entry.
    pub timing: bool,
    /// Only those that took at least so many nanoseconds; implies `timing`.
    pub slower_than: u64,
    /// Attach by these means only.
    pub means: Option<Means>,
    /// Bytes of the ring buffer, a power of two; 0: the object's own size.
    pub ring: u32,
}

/// A call of open, creat, openat or openat2. The bytes lie in the ring: it is read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open<'a> {
    /// When it returned: ns, CLOCK_MONOTONIC.
    pub at: u64,
    /// ns that it took; 0 unless timed.
    pub ns: u64,
    /// open(2)'s; see [`names::open_flags`].
    pub flags: u64,
    /// openat2(2)'s.
    pub resolve: u64,
    /// Permissions of a file that is made.
    pub mode: u32,
    /// The system call's number.
    pub call: u32,
    /// The descriptor, or the errno, negative.
    pub result: i32,
    /// The descriptor of the folder that the path is relative to; [`libc::AT_FDCWD`]: the current one.
    pub dirfd: i32,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// Its user (real UID).
    pub uid: u32,
    /// The thread's name, up to 15 bytes.
    pub comm: &'a [u8],
    /// The path as it was given; `None`: it could not be read.
    pub path: Option<&'a [u8]>,
    /// Names from the folder that the path is relative to up to the root, each ended by a NUL.
    names: &'a [u8],
    /// There are more above them.
    names_cut: bool,
}

/// Words that were written last.
#[derive(Debug, Clone, Default)]
pub struct Words {
    flags: Memo,
    error: Memo,
}

/// A running view.
#[derive(Debug)]
pub struct Opens {
    tracer: Tracer,
    ring: Ring,
}

/// Where an open is caught.
pub const HERE: kit::Place = kit::here!();

impl Opens {
    /// Attaches; from the return on, nothing is missed.
    pub fn start(o: &Options) -> Result<Self, TraceError> {
        let timing = o.timing || o.slower_than > 0;
        let mut hooks = vec!["sys_exit"];
        if timing {
            hooks.push("sys_enter");
        }
        let mut tracer = Tracer::start(&Plan {
            object: OBJECT,
            hooks: &hooks,
            filter: o.filter.clone(),
            constants: vec![
                ("failures_only", u32::from(o.failed).to_ne_bytes().to_vec()),
                ("timing", u32::from(timing).to_ne_bytes().to_vec()),
                ("slower_than", o.slower_than.to_ne_bytes().to_vec()),
            ],
            entries: if o.ring == 0 { Vec::new() } else { vec![("events", o.ring)] },
            means: o.means,
        })?;
        let ring = tracer.ring("events")?;
        Ok(Self { tracer, ring })
    }

    /// What is attached.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Readable when there are many events; a few may wait unannounced.
    pub fn ring(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Hands over what has happened.
    pub fn take(&mut self, mut each: impl FnMut(Open<'_>)) {
        self.ring.drain(|record| each(Open::read(record)));
    }
}

impl<'a> Open<'a> {
    /// `struct event` of `bpf/open.bpf.c`.
    pub fn read(mut r: Record<'a>) -> Self {
        let (at, ns, flags, resolve) = (r.u64(), r.u64(), r.u64(), r.u64());
        let (mode, call, result, dirfd) = (r.u32(), r.u32(), r.u32() as i32, r.u32() as i32);
        let (pid, tid, uid, names_cut) = (r.u32(), r.u32(), r.u32(), r.u32() != 0);
        let comm = until_nul(r.bytes(16));
        let (path, names) = (r.u32() as usize, r.u32() as usize);
        let path = r.bytes(path);
        // With its NUL, it has a byte at least.
        let path = (!path.is_empty()).then(|| until_nul(path));
        let names = r.bytes(names);
        Self {
            at,
            ns,
            flags,
            resolve,
            mode,
            call,
            result,
            dirfd,
            pid,
            tid,
            uid,
            comm,
            path,
            names,
            names_cut,
        }
    }

    /// The folder that the path is relative to, as the process sees it; `None` for an absolute path, or where the
    /// descriptor leads nowhere. Begins with `…/` where it lies deeper than the program climbs.
    pub fn folder(&self) -> Option<Vec<u8>> {
        let names = self.names.strip_suffix(&[0])?;
        let mut folder = if self.names_cut { "\u{2026}".into() } else { Vec::new() };
        for name in names.rsplit(|b| *b == 0) {
            folder.push(b'/');
            folder.extend_from_slice(name);
        }
        Some(folder)
    }

    /// Whether the path is longer than what was kept of it: PATH_MAX, and the kernel refuses it as well.
    pub fn is_cut(&self) -> bool {
        self.path.is_some_and(|p| p.len() == 4095) && self.result == -libc::ENAMETOOLONG
    }

    /// The errno, of one that failed.
    pub fn errno(&self) -> Option<u32> {
        (self.result < 0).then(|| self.result.unsigned_abs())
    }

    /// Whether a file may be made, so that `mode` counts.
    pub fn makes(&self) -> bool {
        self.flags & (libc::O_CREAT as u64) != 0
            || self.flags & libc::O_TMPFILE as u64 == libc::O_TMPFILE as u64
    }

    /// As a line of JSON; times in ns, `at` from `origin` on.
    pub fn json(&self, origin: u64, words: &mut Words, lines: &mut Lines) {
        lines.begin();
        lines.number("at_ns", self.at.saturating_sub(origin));
        lines.number("pid", self.pid.into());
        lines.number("tid", self.tid.into());
        lines.number("uid", self.uid.into());
        lines.text("comm", self.comm);
        lines.word("call", names::open_call(self.call));
        match self.path {
            Some(path) => lines.text("path", path),
            None => lines.null("path"),
        }
        lines.flag("path_cut", self.is_cut());
        if let Some(folder) = self.folder() {
            lines.text("folder", &folder);
        }
        if self.dirfd != libc::AT_FDCWD {
            lines.signed("dirfd", self.dirfd.into());
        }
        lines.word("flags", words.flags.of(self.flags, names::open_flags));
        if self.makes() {
            lines.word("mode", &format!("{:#o}", self.mode));
        }
        if self.resolve != 0 {
            lines.word("resolve", &names::resolve_flags(self.resolve));
        }
        match self.errno() {
            None => lines.signed("fd", self.result.into()),
            Some(errno) => {
                lines.word("error", words.error.of(errno.into(), |e| names::errno(e as u32)));
            }
        }
        if self.ns > 0 {
            lines.number("took_ns", self.ns);
        }
        lines.end();
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(names: &[u8], names_cut: bool) -> Option<String> {
        let open = Open { names, names_cut, ..Open::read(Record(&[])) };
        open.folder().map(|f| String::from_utf8(f).unwrap())
    }

    #[test]
    fn a_folder_is_put_together_from_its_end() {
        assert_eq!(with(b"c\0b\0a\0", false).as_deref(), Some("/a/b/c"));
        assert_eq!(with(b"c\0b\0", true).as_deref(), Some("\u{2026}/b/c"));
        assert_eq!(with(b"\0", false).as_deref(), Some("/"));
        assert_eq!(with(b"", false), None);
    }

    #[test]
    fn a_mode_counts_where_a_file_is_made() {
        let makes = |flags: i32| Open { flags: flags as u64, ..Open::read(Record(&[])) }.makes();
        assert!(makes(libc::O_CREAT | libc::O_WRONLY) && makes(libc::O_TMPFILE | libc::O_RDWR));
        assert!(!makes(libc::O_DIRECTORY) && !makes(libc::O_RDWR));
    }
}
