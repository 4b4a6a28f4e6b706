//! The view `exec`: programs that begin, with all their arguments, and processes that end, and how.

use std::os::fd::{AsFd as _, BorrowedFd};

use crate::error::TraceError;
use crate::filter::Filter;
use crate::json::Lines;
use crate::names;
use crate::ring::{Record, Ring};
use crate::tracer::{Means, Plan, Tracer};

pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/exec.bpf.o");

/// What to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whose.
    pub filter: Filter,
    /// Only execs that failed, and processes that did not end with 0.
    pub failed: bool,
    /// Attach by these means only.
    pub means: Option<Means>,
    /// Bytes of the ring buffer, a power of two; 0: the object's own size.
    pub ring: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A program has begun.
    Exec {
        /// As it was asked for: relative to the process's folder, or absolute.
        path: Vec<u8>,
        /// Its arguments, the first by custom its name; see [`Event::cut`].
        args: Vec<Vec<u8>>,
    },
    /// A process has ended.
    Exit(Ending),
    /// An execve or execveat has failed.
    Failed {
        /// As it was asked for.
        path: Vec<u8>,
        /// Why.
        errno: u32,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal {
        /// Its number.
        signal: u8,
        /// Whether its memory was written to a core file.
        dumped: bool,
    },
}

/// Something that happened, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When: ns, CLOCK_MONOTONIC.
    pub at: u64,
    /// ns since the process began: at its end, how long it lived.
    pub age: u64,
    /// The process, as the outermost PID namespace knows it.
    pub pid: u32,
    /// The process, as its own PID namespace knows it.
    pub inside: u32,
    /// Its parent.
    pub parent: u32,
    /// Its user (real UID).
    pub uid: u32,
    /// Its name: the first 15 bytes of its program's, unless it chose another.
    pub comm: String,
    /// Its parent's name.
    pub parent_comm: String,
    /// Bytes of arguments that were not kept, of those that are longer than the buffer. 0: all is there.
    pub cut: u64,
    /// What happened.
    pub what: What,
}

/// A running view.
#[derive(Debug)]
pub struct Exec {
    tracer: Tracer,
    ring: Ring,
}

/// Where an exec is caught.
pub const HERE: kit::Place = kit::here!();

impl Exec {
    /// Attaches; from the return on, nothing is missed.
    pub fn start(o: &Options) -> Result<Self, TraceError> {
        let mut tracer = Tracer::start(&Plan {
            object: OBJECT,
            hooks: &["sched_process_exec", "sched_process_exit", "sched_process_fork", "sys_exit"],
            filter: o.filter.clone(),
            constants: vec![("failures_only", u32::from(o.failed).to_ne_bytes().to_vec())],
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
    pub fn take(&mut self, mut each: impl FnMut(Event)) {
        self.ring.drain(|record| each(Event::read(record)));
    }
}

impl Event {
    /// `struct event` of `bpf/exec.bpf.c`.
    fn read(mut r: Record<'_>) -> Self {
        let (at, age, all) = (r.u64(), r.u64(), r.u64());
        let (kind, result) = (r.u32(), r.u32());
        let (pid, inside, parent, uid) = (r.u32(), r.u32(), r.u32(), r.u32());
        let (comm, parent_comm) = (r.text(16), r.text(16));
        let (path, args) = (r.u32() as usize, r.u32() as usize);
        let path = r.bytes(path);
        let path = path.strip_suffix(&[0]).unwrap_or(path).to_vec();
        let bytes = r.bytes(args);
        let what = match kind {
            0 => What::Exec { path, args: arguments(bytes) },
            1 => What::Exit(Ending::read(result)),
            _ => What::Failed { path, errno: result },
        };
        let cut = all.saturating_sub(bytes.len() as u64);
        Self { at, age, pid, inside, parent, uid, comm, parent_comm, cut, what }
    }

    /// As a line of JSON; times in ns, `at` from `origin` on.
    pub fn json(&self, origin: u64, lines: &mut Lines) {
        lines.begin();
        lines.number("at_ns", self.at.saturating_sub(origin));
        let name: &[u8] = match &self.what {
            What::Exec { .. } => b"exec",
            What::Exit(_) => b"exit",
            What::Failed { .. } => b"exec failed",
        };
        lines.text("event", name);
        lines.number("pid", self.pid.into());
        if self.inside != self.pid {
            lines.number("pid_inside", self.inside.into());
        }
        lines.text("comm", self.comm.as_bytes());
        lines.number("parent", self.parent.into());
        lines.text("parent_comm", self.parent_comm.as_bytes());
        lines.number("uid", self.uid.into());
        lines.number("age_ns", self.age);
        match &self.what {
            What::Exec { path, args } => {
                lines.text("path", path);
                lines.texts("args", args.iter().map(Vec::as_slice));
                if self.cut > 0 {
                    lines.number("cut_bytes", self.cut);
                }
            }
            What::Exit(Ending::Code(code)) => lines.number("code", (*code).into()),
            What::Exit(ending @ Ending::Signal { dumped, .. }) => {
                lines.text("signal", ending.to_string().as_bytes());
                lines.flag("core_dumped", *dumped);
            }
            What::Failed { path, errno } => {
                lines.text("path", path);
                lines.text("error", names::errno(*errno).as_bytes());
            }
        }
        lines.end();
    }
}

impl Ending {
    /// From what wait(2) gives: WIFEXITED and the rest of them.
    fn read(status: u32) -> Self {
        match status as u8 & 0x7f {
            0 => Self::Code((status >> 8) as u8),
            signal => Self::Signal { signal, dumped: status & 0x80 != 0 },
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "{code}"),
            Self::Signal { signal, .. } => match nix::sys::signal::Signal::try_from(i32::from(*signal)) {
                Ok(signal) => signal.as_str().fmt(f),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

/// Arguments as they lie in memory, each ended by a NUL; the last may be cut off.
fn arguments(bytes: &[u8]) -> Vec<Vec<u8>> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|b| *b == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_end_with_a_nul_each() {
        let words = |bytes: &[u8]| -> Vec<String> {
            arguments(bytes).iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect()
        };
        assert_eq!(words(b"a\0bc\0"), ["a", "bc"]);
        assert_eq!(words(b"a\0\0\0"), ["a", "", ""]);
        assert_eq!(words(b"\0"), [""]);
        assert_eq!(words(b"a\0cut"), ["a", "cut"]);
        assert_eq!(words(b""), Vec::<String>::new());
    }

    #[test]
    fn endings_are_what_wait_says() {
        assert_eq!(Ending::read(0x0300), Ending::Code(3));
        assert_eq!(Ending::read(9), Ending::Signal { signal: 9, dumped: false });
        assert_eq!(Ending::read(0x8b), Ending::Signal { signal: 11, dumped: true });
        assert_eq!(Ending::read(0x8b).to_string(), "SIGSEGV");
        assert_eq!(Ending::read(34).to_string(), "signal 34");
    }
}
