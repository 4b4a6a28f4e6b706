//! Fails `maps_are_read`: the name is the sixth field between spaces, so that a name with spaces is cut, and then no
//! file of that name is found.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use elf_core::s2_notes::{FILE, PRSTATUS};
use elf_core::writer::{Layout, Load, files, note, prstatus};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::register_bytes;

/// A mapping: a line of /proc/PID/maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    pub start: u64,
    pub end: u64,
    /// 4 read, 2 write, 1 execute, as in `p_flags`.
    pub flags: u32,
    /// `s`, not `p`.
    pub shared: bool,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What stands at the end of the line; empty for memory without a name.
    pub name: String,
}

/// A thread that stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    pub tid: i32,
    /// `user_regs_struct`; see `register_bytes`.
    pub registers: [u8; 216],
}

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes that are copied at once: 64 pages.
const PIECE: u64 = 64 * PAGE;
/// `e_machine` of x86-64.
const X86_64: u16 = 62;

/// Reads all lines of /proc/PID/maps.
pub fn parse_maps(text: &str) -> Vec<Map> {
    text.lines().filter_map(map_line).collect()
}

fn map_line(line: &str) -> Option<Map> {
    let mut rest = line;
    let mut field = || {
        let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after.trim_start();
        first
    };
    let (range, permissions, offset, _device, _inode) = (field(), field(), field(), field(), field());
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = range.split_once('-')?;
    let has = |letter| permissions.contains(letter);
    Some(Map {
        start: hex(start)?,
        end: hex(end)?,
        flags: 4 * u32::from(has('r')) + 2 * u32::from(has('w')) + u32::from(has('x')),
        shared: has('s'),
        offset: hex(offset)?,
        name: rest.split(' ').next().unwrap_or_default().to_owned(),
    })
}

fn is_file(map: &Map) -> bool {
    map.name.starts_with('/')
}

/// How many bytes of a mapping go into the core, from its start.
pub fn dumped(map: &Map) -> u64 {
    let kernels = map.name.starts_with("[vvar") || map.name == "[vsyscall]";
    if map.flags & 4 == 0 || map.shared || kernels {
        return 0;
    }
    match is_file(map) && map.flags & 2 == 0 {
        // The first page has the build-id, by which the file is found.
        true if map.offset == 0 => PAGE,
        true => 0,
        false => map.end - map.start,
    }
}

/// Writes a core into an empty file.
pub fn write_core(
    out: &File,
    threads: &[Thread],
    maps: &[Map],
    read: &dyn Fn(u64, &mut [u8]) -> bool,
) -> io::Result<()> {
    let loads: Vec<Load> = maps
        .iter()
        .map(|m| Load { vaddr: m.start, memsz: m.end - m.start, filesz: dumped(m), flags: m.flags })
        .collect();
    let layout = Layout { machine: X86_64, notes: notes(threads, maps), loads };
    let (head, segments) = layout.head();
    out.write_all_at(&head, 0)?;
    let mut end = head.len() as u64;
    let mut buffer = vec![0; PIECE as usize];
    for segment in &segments {
        for done in (0..segment.filesz).step_by(PIECE as usize) {
            let piece = &mut buffer[..PIECE.min(segment.filesz - done) as usize];
            let at = segment.vaddr + done;
            if !read(at, piece) {
                // Some page of it: try each for itself.
                for (i, page) in (0..).zip(piece.chunks_mut(PAGE as usize)) {
                    if !read(at + i * PAGE, page) {
                        page.fill(0);
                    }
                }
            }
            out.write_all_at(piece, segment.offset + done)?;
        }
        end = end.max(segment.offset + segment.filesz);
    }
    out.set_len(end)
}

fn notes(threads: &[Thread], maps: &[Map]) -> Vec<u8> {
    let mapped: Vec<_> = maps
        .iter()
        .filter(|m| is_file(m))
        .map(|m| (m.start, m.end, m.offset, m.name.clone().into_bytes()))
        .collect();
    let mut notes = Vec::new();
    for (i, thread) in threads.iter().enumerate() {
        note(&mut notes, "CORE", PRSTATUS, &prstatus(0, [thread.tid, 0, 0, 0], &thread.registers));
        if i == 0 {
            note(&mut notes, "CORE", FILE, &files(&mapped));
        }
    }
    notes
}

/// Threads that stand still because of us, each with the signal that it was about to receive; they go on when dropped.
struct Stopped(Vec<(Pid, Option<Signal>)>);

impl Stopped {
    fn all_of(pid: i32) -> io::Result<Self> {
        let mut stopped = Self(Vec::new());
        loop {
            let before = stopped.0.len();
            for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
                let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let tid = Pid::from_raw(tid);
                if stopped.0.iter().any(|(known, _)| *known == tid) {
                    continue;
                }
                match stopped.stop(tid) {
                    // It ended meanwhile. Of a process that has, the directory will be gone, too.
                    Err(Errno::ESRCH) if tid.as_raw() != pid => {}
                    other => other?,
                }
            }
            // Those that stand give birth to none: a look that finds nobody new is the last.
            if stopped.0.len() == before {
                return Ok(stopped);
            }
        }
    }

    fn stop(&mut self, tid: Pid) -> Result<(), Errno> {
        ptrace::seize(tid, ptrace::Options::empty())?;
        // From here on it is ours to let go, whatever fails.
        self.0.push((tid, None));
        ptrace::interrupt(tid)?;
        match waitpid(tid, Some(WaitPidFlag::__WALL))? {
            // Not our interruption but a signal on its way: it will be handed on.
            WaitStatus::Stopped(_, signal) => self.0.last_mut().expect("pushed above").1 = Some(signal),
            WaitStatus::PtraceEvent(..) => {}
            _ => drop(self.0.pop()),
        }
        Ok(())
    }

    fn threads(&self) -> io::Result<Vec<Thread>> {
        let thread = |(tid, _): &(Pid, _)| {
            Ok(Thread { tid: tid.as_raw(), registers: register_bytes(&ptrace::getregs(*tid)?) })
        };
        self.0.iter().map(thread).collect()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for (tid, signal) in &self.0 {
            let _ = ptrace::detach(*tid, *signal);
        }
    }
}

/// Writes the core of a running process, which then goes on, whatever happened here.
pub fn snapshot(pid: i32, path: &Path) -> io::Result<()> {
    let stopped = Stopped::all_of(pid)?;
    let maps = parse_maps(&fs::read_to_string(format!("/proc/{pid}/maps"))?);
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    write_core(&File::create(path)?, &stopped.threads()?, &maps, &|address, buffer| {
        memory.read_exact_at(buffer, address).is_ok()
    })
}
