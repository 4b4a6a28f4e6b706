//! A `gcore` of our own: the core of a process that lives on.
//!
//! ```text
//!   PTRACE_SEIZE each thread  ->  PTRACE_INTERRUPT  ->  all stand still  ->  read  ->  PTRACE_DETACH
//! ```
//!
//! SEIZE (Linux 3.4) sends no SIGSTOP, so nothing is left pending if we die midway: the kernel detaches a dead tracer's
//! threads and they go on. What is written follows `/proc/PID/coredump_filter` as far as /proc tells (core(5)).

use std::fs::{self, File};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::Path;

use kit::SysError;

use crate::Error;
use crate::maps::{Map, PAGE, read_maps};
use crate::part::Part;
use crate::s2_notes::{AUXV, FILE, FPREGSET, PRPSINFO, PRSTATUS, SIGINFO, XSTATE};
use crate::sys;
use crate::writer::{Layout, Load, files, note, prpsinfo, prstatus};

/// A process whose threads all stand still because of us; they go on when this is dropped.
#[derive(Debug)]
pub struct Stopped {
    pid: i32,
    /// Thread ids, the one with the fatal signal first; and the signal that each was about to receive.
    threads: Vec<(i32, i32)>,
    /// The kernel's tracer is a thread, not a process: this must not go to another one.
    here: PhantomData<*const ()>,
}

/// What was written.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Written {
    /// Threads.
    pub threads: usize,
    /// Mappings.
    pub mappings: usize,
    /// The file's length in bytes.
    pub bytes: u64,
    /// How much of it is data rather than holes.
    pub data: u64,
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

impl Stopped {
    /// Stops all threads of `pid`, also those that are born meanwhile.
    ///
    /// # Errors
    /// EPERM where the process may not be traced (another user's, Yama, or a debugger has it), ESRCH where it is gone.
    pub fn all_of(pid: i32) -> Result<Self, SysError> {
        Self { pid, threads: Vec::new(), here: PhantomData }.stop_rest()
    }

    /// Stops what does not stand yet, until a look at the list of threads finds no new one.
    fn stop_rest(mut self) -> Result<Self, SysError> {
        loop {
            let tids: Vec<i32> = threads_of(self.pid)?
                .into_iter()
                .filter(|t| !self.threads.iter().any(|(k, _)| k == t))
                .collect();
            if tids.is_empty() {
                return Ok(self);
            }
            let mut interrupted = Vec::new();
            for tid in tids {
                // EPERM also says "we trace it already": then only the stop is missing.
                match sys::ptrace("PTRACE_SEIZE", libc::PTRACE_SEIZE, tid, 0) {
                    Err(e) if e.errno == libc::ESRCH && tid != self.pid => continue,
                    Err(e) if e.errno != libc::EPERM || tracer_of(tid) != sys::gettid() => return Err(e),
                    _ => {}
                }
                if sys::ptrace("PTRACE_INTERRUPT", libc::PTRACE_INTERRUPT, tid, 0).is_ok() {
                    interrupted.push(tid);
                }
            }
            for tid in interrupted {
                let (_, status) = sys::wait(tid, 0)?;
                if libc::WIFSTOPPED(status) {
                    // An event stop is of our making. Otherwise a signal was about to be delivered: it is handed on.
                    let ours = status >> 16 != 0;
                    self.threads.push((tid, if ours { 0 } else { libc::WSTOPSIG(status) }));
                } else if tid == self.pid {
                    return Err(SysError::new("ptrace(PTRACE_INTERRUPT): the process ended", libc::ESRCH));
                }
            }
        }
    }

    /// Writes the core to `path`, which appears only when it is whole.
    ///
    /// # Errors
    /// What /proc or the file system refuse.
    pub fn write(&self, path: &Path) -> Result<Written, Error> {
        let maps = read_maps(self.pid)?;
        let memory =
            File::open(format!("/proc/{}/mem", self.pid)).map_err(SysError::io("open(/proc/PID/mem)"))?;
        let pages = File::open(format!("/proc/{}/pagemap", self.pid)).ok();
        let filter = filter_of(self.pid);
        let loads = maps.iter().map(|m| Load {
            vaddr: m.start,
            memsz: m.end - m.start,
            filesz: m.dumped(filter, &memory),
            flags: m.flags,
        });
        let layout = Layout { machine: 62, notes: self.notes(&maps)?, loads: loads.collect() };
        let (head, segments) = layout.head();

        let part = Part::create(path)?;
        let out = &part.file;
        let mut data = head.len() as u64;
        out.write_all_at(&head, 0).map_err(SysError::io("write"))?;
        let mut bytes = head.len() as u64;
        for (segment, map) in segments.iter().zip(&maps) {
            bytes = bytes.max(segment.offset + segment.filesz);
            let mut at = 0;
            while at < segment.filesz {
                let len = (segment.filesz - at).min(1 << 20);
                for (start, len) in map.present(pages.as_ref(), segment.vaddr + at, len) {
                    data += copy(&memory, start, len, out, segment.offset + (start - segment.vaddr))?;
                }
                at += len;
            }
        }
        out.set_len(bytes).map_err(SysError::io("ftruncate"))?;
        part.keep()?;
        Ok(Written { threads: self.threads.len(), mappings: maps.len(), bytes, data })
    }

    fn notes(&self, maps: &[Map]) -> Result<Vec<u8>, Error> {
        let mut notes = Vec::new();
        let stat = Stat::read(self.pid)?;
        let auxv =
            fs::read(format!("/proc/{}/auxv", self.pid)).map_err(SysError::io("read(/proc/PID/auxv)"))?;
        for (i, (tid, signal)) in self.threads.iter().enumerate() {
            let registers = sys::register_set(*tid, PRSTATUS)?;
            let ids = [*tid, stat.ids[1], stat.ids[2], stat.ids[3]];
            note(&mut notes, "CORE", PRSTATUS, &prstatus(*signal as u16, ids, &registers));
            if i == 0 {
                note(
                    &mut notes,
                    "CORE",
                    PRPSINFO,
                    &prpsinfo(stat.state, stat.uid_gid, stat.ids, &stat.name, &stat.args),
                );
                let siginfo = if *signal == 0 { [0; 128] } else { sys::siginfo(*tid)? };
                note(&mut notes, "CORE", SIGINFO, &siginfo);
                note(&mut notes, "CORE", AUXV, &auxv);
                let named: Vec<_> = maps
                    .iter()
                    .filter(|m| m.is_file())
                    .map(|m| (m.start, m.end, m.offset, m.name.clone()))
                    .collect();
                note(&mut notes, "CORE", FILE, &files(&named));
            }
            for (owner, kind) in [("CORE", FPREGSET), ("LINUX", XSTATE)] {
                // A CPU without XSAVE has no such set; the others are then enough.
                if let Ok(desc) = sys::register_set(*tid, kind) {
                    note(&mut notes, owner, kind, &desc);
                }
            }
        }
        Ok(notes)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // The one with the fatal signal, the first, goes last: with it the others end.
        for (tid, signal) in self.threads.iter().rev() {
            let detached = sys::ptrace("PTRACE_DETACH", libc::PTRACE_DETACH, *tid, *signal as usize);
            // It was killed meanwhile. A dead thread stays with its tracer until waited for, and the process with it;
            // the process itself is for its parent to wait for.
            if detached.is_err() && *tid != self.pid {
                let _ = sys::wait(*tid, 0);
            }
        }
    }
}

/// Waits, tracing it, until a thread of `pid` is about to die of a signal; then stops the others.
/// For machines where the kernel's own core cannot be had. `Ok(None)`: it ended without.
///
/// # Errors
/// As [`Stopped::all_of`].
pub fn wait_for_crash(pid: i32, started: impl FnOnce()) -> Result<Option<Stopped>, SysError> {
    for tid in threads_of(pid)? {
        sys::ptrace("PTRACE_SEIZE", libc::PTRACE_SEIZE, tid, libc::PTRACE_O_TRACECLONE as usize)?;
    }
    started();
    loop {
        // Whatever of ours changes; of this thread's (__WNOTHREAD), because other threads have children of their own.
        let (tid, status) = match sys::wait(-1, libc::__WNOTHREAD) {
            Err(e) if e.errno == libc::ECHILD => return Ok(None),
            other => other?,
        };
        if !libc::WIFSTOPPED(status) {
            if tid == pid {
                return Ok(None);
            }
            continue;
        }
        let signal = if status >> 16 == 0 { libc::WSTOPSIG(status) } else { 0 };
        if signal != 0 && is_fatal(pid, signal) {
            return Stopped { pid, threads: vec![(tid, signal)], here: PhantomData }.stop_rest().map(Some);
        }
        // A thread can be killed between its stop and this: the wait above will say so.
        let _ = sys::ptrace("PTRACE_CONT", libc::PTRACE_CONT, tid, signal as usize);
    }
}

/// Whether a signal's default is to dump core (signal(7)) and the process has left it at that.
fn is_fatal(pid: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = |name| {
        status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix(name)?.trim(), 16).ok()).unwrap_or(0)
    };
    let kept = (mask("SigCgt:") | mask("SigIgn:")) >> (signal - 1) & 1 == 0;
    matches!(signal, 3 | 4 | 5 | 6 | 7 | 8 | 11 | 24 | 25 | 31) && kept
}

fn tracer_of(tid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    status.lines().find_map(|l| l.strip_prefix("TracerPid:")?.trim().parse().ok()).unwrap_or(0)
}

fn threads_of(pid: i32) -> Result<Vec<i32>, SysError> {
    let dir =
        fs::read_dir(format!("/proc/{pid}/task")).map_err(SysError::io(format!("open(/proc/{pid}/task)")))?;
    let mut tids: Vec<i32> = dir.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    tids.sort_by_key(|t| (*t != pid, *t));
    Ok(tids)
}

fn filter_of(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/coredump_filter")).unwrap_or_default();
    u64::from_str_radix(text.trim(), 16).unwrap_or(0x33)
}

/// What `NT_PRPSINFO` says, from /proc/PID/stat, status and cmdline (proc(5)).
struct Stat {
    state: u8,
    ids: [i32; 4],
    uid_gid: [u32; 2],
    name: Vec<u8>,
    args: Vec<u8>,
}

impl Stat {
    fn read(pid: i32) -> Result<Self, SysError> {
        let stat = fs::read(format!("/proc/{pid}/stat")).map_err(SysError::io("read(/proc/PID/stat)"))?;
        // The name is in parentheses and may hold any character, so the last parenthesis counts.
        let (open, close) = (stat.iter().position(|b| *b == b'('), stat.iter().rposition(|b| *b == b')'));
        let (open, close) = (open.unwrap_or(0), close.unwrap_or(0));
        let rest = String::from_utf8_lossy(stat.get(close + 2..).unwrap_or_default()).into_owned();
        let mut fields = rest.split(' ');
        let state = fields.next().and_then(|s| s.bytes().next()).unwrap_or(b'?');
        let mut id = || fields.next().and_then(|f| f.parse().ok()).unwrap_or(0);
        let ids = [pid, id(), id(), id()];
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let first = |name| {
            status.lines().find_map(|l: &str| l.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        };
        let mut args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        args.iter_mut().filter(|b| **b == 0).for_each(|b| *b = b' ');
        let uid_gid = [first("Uid:").unwrap_or(0), first("Gid:").unwrap_or(0)];
        Ok(Self { state, ids, uid_gid, name: stat.get(open + 1..close).unwrap_or_default().to_vec(), args })
    }
}

/// Copies memory into the core, page by page where a piece cannot be read; zeros become holes. Returns bytes written.
fn copy(memory: &File, start: u64, len: u64, out: &File, offset: u64) -> Result<u64, SysError> {
    let mut bytes = vec![0; len as usize];
    if memory.read_exact_at(&mut bytes, start).is_err() {
        // A page of a file that was cut short, or poisoned memory: that page alone stays zero.
        for (i, page) in bytes.as_chunks_mut::<{ PAGE as usize }>().0.iter_mut().enumerate() {
            if memory.read_exact_at(page, start + i as u64 * PAGE).is_err() {
                page.fill(0);
            }
        }
    }
    let mut written = 0;
    for (i, page) in bytes.as_chunks::<{ PAGE as usize }>().0.iter().enumerate() {
        if page.iter().any(|b| *b != 0) {
            out.write_all_at(page, offset + i as u64 * PAGE).map_err(SysError::io("write(core)"))?;
            written += PAGE;
        }
    }
    Ok(written)
}
