//! Where programs can be attached on this machine: each kind is tried with stage 1's counter, and timed
//! with the smallest program that there is.

use std::any::Any;
use std::ffi::CString;
use std::fs;
use std::hint::black_box;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use aya_obj::btf::BtfKind;
use kit::SysError;

use crate::error::TraceError;
use crate::s1_by_hand::{self, insn};
use crate::sys::bpf::{self, Code};
use crate::sys::perf;
use crate::tasks;
use crate::tracer::kernel_btf;

/// Where they are tried.
pub const HERE: kit::Place = kit::here!();

/// A place to attach to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tracepoint's raw arguments.
    RawTp,
    /// A tracepoint's arguments, typed by BTF.
    TpBtf,
    /// A tracepoint's record.
    Tracepoint,
    /// A function of the kernel's, by patching its first bytes to a call.
    Fentry,
    /// A function of the kernel's, by a breakpoint.
    Kprobe,
    /// A function of a process, by a breakpoint.
    Uprobe,
    /// A timer.
    CpuClock,
    /// The list of tasks.
    IterTask,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::RawTp,
        Self::TpBtf,
        Self::Tracepoint,
        Self::Fentry,
        Self::Kprobe,
        Self::Uprobe,
        Self::CpuClock,
        Self::IterTask,
    ];

    /// As the kernel calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RawTp => "raw_tp",
            Self::TpBtf => "tp_btf",
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Uprobe => "uprobe",
            Self::CpuClock => "perf_event",
            Self::IterTask => "iter/task",
        }
    }

    /// What it is tried on.
    pub fn on(self) -> &'static str {
        match self {
            Self::RawTp | Self::TpBtf => "sys_enter",
            Self::Tracepoint => "raw_syscalls/sys_enter",
            Self::Fentry | Self::Kprobe => FUNCTION,
            Self::Uprobe => "a function of this program",
            Self::CpuClock => "cpu-clock of this thread, 1 kHz",
            Self::IterTask => "the list of tasks",
        }
    }

    /// Whether it is passed at each system call, so that its cost can be held against the others'.
    pub fn is_at_calls(self) -> bool {
        !matches!(self, Self::Uprobe | Self::CpuClock | Self::IterTask)
    }

    /// Loads this program for it and attaches that: what is returned keeps it attached.
    fn attach(self, code: &[u64]) -> Result<Box<dyn Any>, TraceError> {
        // enum bpf_prog_type, enum bpf_attach_type
        const TRACING: u32 = 26;
        let load =
            |kind, attach| bpf::prog_load(Code { kind, instructions: code, attach, lines: None }, 1).program;
        let typed = |name: &str, kind| {
            let id = kernel_btf()?.id_by_type_name_kind(name, kind);
            id.map_err(|e| TraceError::Object(e.to_string()))
        };
        Ok(match self {
            Self::RawTp => {
                let program = load(bpf::RAW_TRACEPOINT, (0, 0))?;
                Box::new(bpf::attach(program.as_fd(), Some(c"sys_enter"))?)
            }
            Self::TpBtf => {
                let program = load(TRACING, (23, typed("btf_trace_sys_enter", BtfKind::Typedef)?))?;
                Box::new(bpf::attach(program.as_fd(), None)?)
            }
            Self::Fentry => {
                let program = load(TRACING, (24, typed(FUNCTION, BtfKind::Func)?))?;
                Box::new(bpf::attach(program.as_fd(), None)?)
            }
            Self::Tracepoint => {
                let program = load(5, (0, 0))?;
                let tracefs = perf::private_tracefs()?;
                let id = perf::tracepoint_id(tracefs.as_fd(), self.on())?;
                Box::new(perf::attach_tracepoint(program.as_fd(), id)?)
            }
            Self::Kprobe => {
                let program = load(2, (0, 0))?;
                let name = CString::new(FUNCTION).expect("no NUL");
                Box::new(perf::attach_probe(program.as_fd(), "kprobe", &name, 0)?)
            }
            Self::Uprobe => {
                let program = load(2, (0, 0))?;
                let exe = std::env::current_exe().map_err(SysError::io("readlink(\"/proc/self/exe\")"))?;
                let path = CString::new(exe.as_os_str().as_bytes()).expect("a path has no NUL");
                Box::new(perf::attach_probe(program.as_fd(), "uprobe", &path, place_of_probed()?)?)
            }
            Self::CpuClock => {
                let program = load(7, (0, 0))?;
                Box::new(perf::attach_cpu_clock(program.as_fd(), 1000)?)
            }
            Self::IterTask => {
                return Err(TraceError::Object("its program is no empty one".into()));
            }
        })
    }

    /// Attaches stage 1's counter, passes by, and reads it: at least that many, since others pass, too.
    pub fn attempt(self) -> Result<Ran, TraceError> {
        if self == Self::IterTask {
            let runs = tasks::list()?.len() as u64;
            return Ok(Ran { runs, passages: 0 });
        }
        const ARRAY: u32 = 2;
        let map = bpf::map_create(ARRAY, 4, 8, 1)?;
        let _link = self.attach(&s1_by_hand::program(map.as_fd()))?;
        let runs = || {
            let mut value = [0; 8];
            bpf::map_lookup(map.as_fd(), 0, &mut value).map(|()| u64::from_ne_bytes(value))
        };
        let passages = match self {
            Self::CpuClock => {
                // Burns CPU time until the timer has struck.
                let begun = Instant::now();
                while runs()? == 0 && begun.elapsed() < Duration::from_secs(2) {}
                1
            }
            Self::Uprobe => {
                (0..PASSAGES).for_each(|i| assert_eq!(probed(i), i));
                u64::from(PASSAGES)
            }
            _ => {
                pass(PASSAGES);
                u64::from(PASSAGES)
            }
        };
        Ok(Ran { runs: runs()?, passages })
    }
}

/// A program has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// How often.
    pub runs: u64,
    /// How often this process passed by; 0: it is not by passing that it runs.
    pub passages: u64,
}

/// A short system call's function, which the kernel's BTF has.
const FUNCTION: &str = "__x64_sys_getpgid";
const PASSAGES: u32 = 1000;

/// Makes that call so many times.
fn pass(times: u32) {
    for _ in 0..times {
        let _ = black_box(nix::unistd::getpgid(None));
    }
}

#[inline(never)]
extern "C" fn probed(i: u32) -> u32 {
    black_box(i)
}

/// Where in its file [`probed`] is.
fn place_of_probed() -> Result<u64, SysError> {
    let address = probed as extern "C" fn(u32) -> u32 as usize as u64;
    let maps = fs::read_to_string("/proc/self/maps").map_err(SysError::io("open(\"/proc/self/maps\")"))?;
    let place = maps.lines().find_map(|line| {
        // start-end perms offset …
        let mut words = line.split(' ');
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |s: &str| u64::from_str_radix(s, 16).ok();
        let (start, end, offset) = (hex(start)?, hex(end)?, hex(words.nth(1)?)?);
        (start..end).contains(&address).then(|| address - start + offset)
    });
    place.ok_or_else(|| SysError::new("/proc/self/maps", 0).with_detail("this program's code is not in it"))
}

/// What is attached (first nothing), and what a call took in each round.
pub type Costs = Vec<(Option<Kind>, Vec<f64>)>;

/// What a short system call takes with an empty program attached in each way: nanoseconds, without one first. A round
/// is many short parts, of which the fastest counts: what else runs on the machine only ever adds.
pub fn costs(
    kinds: &[Kind],
    rounds: usize,
    parts: u32,
    mut progress: impl FnMut(),
) -> Result<Costs, TraceError> {
    let mut all: Costs =
        [None].into_iter().chain(kinds.iter().copied().map(Some)).map(|kind| (kind, Vec::new())).collect();
    for _ in 0..rounds {
        for (kind, times) in &mut all {
            let _attached = kind.map(|k| k.attach(&EMPTY)).transpose()?;
            let part = |_| {
                let begun = Instant::now();
                pass(PART);
                begun.elapsed().as_nanos() as f64 / f64::from(PART)
            };
            times.push((0..parts).map(part).fold(f64::INFINITY, f64::min));
        }
        progress();
    }
    Ok(all)
}

/// r0 = 0; exit
const EMPTY: [u64; 2] = [insn(0xb7, 0, 0, 0, 0), insn(0x95, 0, 0, 0, 0)];

/// Calls in a part: few enough that some parts are not interrupted.
pub const PART: u32 = 500;
