//! Loads an object, attaches its programs, and keeps them: the way from C to a running kernel.
//!
//! A hook is the name of a tracepoint. An object may hold several programs for one, called `sys_exit`, `old_sys_exit`
//! (for a kernel whose tracepoint has fewer arguments), `raw_sys_exit` and `tp_sys_exit`; the first that this kernel
//! takes is attached (see `bpf/trace.h`).

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuHashMap};
use aya::programs::Program;
use aya::{Btf, Ebpf, EbpfLoader, Pod};
use kit::SysError;

use crate::error::{TraceError, refused, sys_error};
use crate::filter::Filter;
use crate::memlock;
use crate::ring::Ring;
use crate::s1_by_hand;
use crate::sys::{bpf, perf};

/// By what a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// A tracepoint whose arguments are typed by BTF: read without a helper. Linux 5.5.
    TpBtf,
    /// A tracepoint's raw arguments. Linux 4.17.
    RawTp,
    /// A tracepoint's record, by way of perf and tracefs. Linux 4.7.
    Tracepoint,
    /// A function of a program or a library.
    Uprobe,
    /// A timer on each CPU.
    PerfEvent,
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
            Self::Tracepoint => "tracepoint",
            Self::Uprobe => "uprobe",
            Self::PerfEvent => "perf_event",
        })
    }
}

/// What to load, and how.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// The object file.
    pub object: &'a [u8],
    /// Tracepoints to attach to, and those that following takes where the filter follows; programs of the object for
    /// others are not loaded.
    pub hooks: &'a [&'a str],
    /// Whom to trace.
    pub filter: Filter,
    /// Constants of the object's own: name and value.
    pub constants: Vec<(&'static str, Vec<u8>)>,
    /// Maps whose size is not the object's.
    pub entries: Vec<(&'static str, u32)>,
    /// Use these means only, instead of the first that works.
    pub means: Option<Means>,
}

/// Something attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// To what.
    pub hook: String,
    /// By what.
    pub means: Means,
    /// The program's id in the kernel.
    pub id: u32,
}

/// What following a command takes besides a view's own hooks: the programs of `bpf/follow.h`.
const FOLLOW: [&str; 3] = ["sched_process_exec", "sched_process_fork", "sched_process_exit"];

/// What keeps a program attached until it is dropped.
pub type Link = Box<dyn Any + Send>;

/// Programs at work; all of it ends when this is dropped, or with the process.
pub struct Tracer {
    ebpf: Ebpf,
    attached: Vec<Attached>,
    /// What keeps the programs attached.
    links: Mutex<Vec<Link>>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("attached", &self.attached).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Loads what `plan` says and attaches it. From the return on, nothing is missed.
    pub fn start(plan: &Plan<'_>) -> Result<Self, TraceError> {
        let mut tracer = Self::load(plan)?;
        for hook in plan.hooks {
            tracer.hook(hook, plan.means)?;
        }
        let follow = FOLLOW.iter().filter(|hook| plan.filter.follow && !plan.hooks.contains(hook));
        for hook in follow {
            tracer.hook(hook, plan.means)?;
        }
        Ok(tracer)
    }

    /// Makes the maps; loads and attaches no program yet.
    pub(crate) fn load(plan: &Plan<'_>) -> Result<Self, TraceError> {
        // Before Linux 5.10 the kernel cannot be asked; outside of PID namespaces the numbers are the usual ones.
        let usual = (std::process::id(), nix::unistd::gettid().as_raw() as u32);
        let constants = plan.filter.constants(s1_by_hand::own_ids().unwrap_or(usual));
        // Each reads the kernel's types for itself, which is half of the way to a running tracer: on two CPUs at once.
        let (mut loader, btf) = std::thread::scope(|scope| {
            let btf = scope.spawn(kernel_btf);
            (EbpfLoader::new(), btf.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let btf = btf?;
        loader.btf(Some(btf)).allow_unsupported_maps();
        for (name, bytes) in constants.iter() {
            loader.override_global(name, bytes, false);
        }
        for (name, bytes) in &plan.constants {
            loader.override_global(name, bytes.as_slice(), true);
        }
        for (name, entries) in &plan.entries {
            loader.map_max_entries(name, *entries);
        }
        let ebpf = memlock::raised(|| loader.load(plan.object).map_err(TraceError::from))?;
        Ok(Self { ebpf, attached: Vec::new(), links: Mutex::default() })
    }

    /// Attaches the first of the hook's programs that this kernel takes.
    fn hook(&mut self, hook: &str, only: Option<Means>) -> Result<(), TraceError> {
        let mut tried: Vec<(Means, SysError)> = Vec::new();
        for (means, prefix) in
            [(Means::TpBtf, ""), (Means::TpBtf, "old_"), (Means::RawTp, "raw_"), (Means::Tracepoint, "tp_")]
        {
            if only.is_some_and(|m| m != means) {
                continue;
            }
            let name = format!("{prefix}{hook}");
            let Some(program) = self.ebpf.program_mut(&name) else { continue };
            let done: Result<Link, SysError> = match program {
                Program::BtfTracePoint(p) => p
                    .load(hook, kernel_btf()?)
                    .and_then(|()| p.attach())
                    .and_then(|id| Ok(Box::new(p.take_link(id)?) as _))
                    .map_err(|e| refused(&e)),
                Program::RawTracePoint(p) => p
                    .load()
                    .and_then(|()| p.attach(hook))
                    .and_then(|id| Ok(Box::new(p.take_link(id)?) as _))
                    .map_err(|e| refused(&e)),
                Program::TracePoint(p) => p.load().map_err(|e| refused(&e)).and_then(|()| {
                    let program = p.fd().map_err(|e| refused(&e))?;
                    let tracefs = perf::private_tracefs()?;
                    let id = perf::tracepoint_id(tracefs.as_fd(), &format!("raw_syscalls/{hook}"))?;
                    Ok(Box::new(perf::attach_tracepoint(program.as_fd(), id)?) as _)
                }),
                other => {
                    return Err(TraceError::Object(format!("{name} is a {:?}", other.prog_type())));
                }
            };
            match done {
                Ok(link) => {
                    self.keep(link);
                    return self.note(&name, hook, means);
                }
                Err(e) => tried.push((means, e)),
            }
        }
        let words: Vec<String> = tried.iter().map(|(means, e)| format!("{means}: {e}")).collect();
        match tried.into_iter().next() {
            Some((_, source)) => Err(TraceError::Hook { hook: hook.into(), tried: words.join("; "), source }),
            None => Err(TraceError::Object(format!(
                "there is no program for {hook} by these means: leave --attach out, the view syscalls has one for each"
            ))),
        }
    }

    /// Keeps in mind that the program `name` is attached.
    pub(crate) fn note(&mut self, name: &str, hook: &str, means: Means) -> Result<(), TraceError> {
        let program = self.program(name)?;
        let id = bpf::prog_info(program.fd()?.as_fd())?.id;
        self.attached.push(Attached { hook: hook.into(), means, id });
        Ok(())
    }

    pub(crate) fn program(&self, name: &str) -> Result<&Program, TraceError> {
        self.ebpf.program(name).ok_or_else(|| TraceError::Object(format!("no program {name}")))
    }

    /// A program of the object, for means that the loader does not know of itself.
    pub fn program_mut(&mut self, name: &str) -> Result<&mut Program, TraceError> {
        self.ebpf.program_mut(name).ok_or_else(|| TraceError::Object(format!("no program {name}")))
    }

    /// Takes charge of a link that was made by other means than the plan's hooks.
    pub fn keep(&mut self, link: Link) {
        self.links.get_mut().unwrap_or_else(PoisonError::into_inner).push(link);
    }

    /// Detaches all, and waits until the last run has ended: what is in the maps is final then.
    pub fn stop(&self) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clear();
        bpf::wait_for_runs();
    }

    /// Has the kernel call the program `name` once for each thread there is. Linux 5.8.
    pub(crate) fn sweep(&mut self, name: &str) -> Result<(), TraceError> {
        let Program::Iter(program) = self.program_mut(name)? else {
            return Err(TraceError::Object(format!("{name} is no iterator")));
        };
        if program.fd().is_err() {
            program.load("task", kernel_btf()?)?;
        }
        let link = program.attach()?;
        let link = program.take_link(link)?;
        // The program runs while its output is read, of which there is none.
        let mut output = link.into_file().map_err(|e| {
            let call = "bpf(BPF_ITER_CREATE)";
            sys_error(call, &e).unwrap_or_else(|| SysError::new(call, 0).with_detail(e.to_string()))
        })?;
        let read = std::io::copy(&mut output, &mut std::io::sink());
        read.map(drop).map_err(|e| SysError::io("read(BPF_ITER_CREATE)")(e).into())
    }

    /// What is attached, in the order of the plan.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// The descriptors of the attached programs, for questions to the kernel about them.
    pub fn infos(&self) -> Result<Vec<(Attached, bpf::ProgInfo)>, TraceError> {
        let mut infos = Vec::new();
        for (_, program) in self.ebpf.programs() {
            let Ok(fd) = program.fd() else { continue };
            let info = bpf::prog_info(fd.as_fd())?;
            infos.extend(self.attached.iter().filter(|a| a.id == info.id).map(|a| (a.clone(), info)));
        }
        Ok(infos)
    }

    /// The maps' descriptors, by name.
    pub(crate) fn map_fds(&self) -> Vec<(&str, BorrowedFd<'_>)> {
        self.ebpf.maps().filter_map(|(name, map)| Some((name, map_data(map)?.fd().as_fd()))).collect()
    }

    pub(crate) fn map(&self, name: &str) -> Result<&Map, TraceError> {
        self.ebpf.map(name).ok_or_else(|| TraceError::Object(format!("no map {name}")))
    }

    /// Everything in a hash map that has a copy for each CPU: all copies together by `join`.
    pub(crate) fn per_cpu<K: Pod + Ord, V: Pod, J>(
        &self,
        name: &str,
        mut join: impl FnMut(&[V]) -> J,
    ) -> Result<BTreeMap<K, J>, TraceError> {
        let map: PerCpuHashMap<&MapData, K, V> = PerCpuHashMap::try_from(self.map(name)?)?;
        let mut all = BTreeMap::new();
        for item in map.iter() {
            let (key, values) = item?;
            all.insert(key, join(&values));
        }
        Ok(all)
    }

    /// An entry of an array that has a copy for each CPU: all copies together by `join`; `None`: beyond its end.
    pub(crate) fn per_cpu_at<V: Pod, J>(
        &self,
        name: &str,
        index: u32,
        join: impl FnOnce(&[V]) -> J,
    ) -> Result<Option<J>, TraceError> {
        let map: PerCpuArray<&MapData, V> = PerCpuArray::try_from(self.map(name)?)?;
        if index >= map.len() {
            return Ok(None);
        }
        Ok(Some(join(&map.get(&index, 0)?)))
    }

    /// Everything in a hash map.
    pub fn hash<K: Pod + Ord, V: Pod>(&self, name: &str) -> Result<BTreeMap<K, V>, TraceError> {
        let map: aya::maps::HashMap<&MapData, K, V> = aya::maps::HashMap::try_from(self.map(name)?)?;
        let mut all = BTreeMap::new();
        for item in map.iter() {
            let (key, value) = item?;
            all.insert(key, value);
        }
        Ok(all)
    }

    /// Everything in an array, added up over the CPUs if it has a copy for each of them.
    pub(crate) fn array<V: Pod, J>(
        &self,
        name: &str,
        mut join: impl FnMut(&[V]) -> J,
    ) -> Result<Vec<J>, TraceError> {
        let map = self.map(name)?;
        if let Map::PerCpuArray(_) = map {
            let map: PerCpuArray<&MapData, V> = PerCpuArray::try_from(map)?;
            return map.iter().map(|values| Ok(join(&values?))).collect();
        }
        let map: Array<&MapData, V> = Array::try_from(map)?;
        map.iter().map(|value| Ok(join(&[value?]))).collect()
    }

    /// The ring buffer `name`, taken out.
    pub fn ring(&mut self, name: &str) -> Result<Ring, TraceError> {
        let map = self.ebpf.take_map(name).ok_or_else(|| TraceError::Object(format!("no map {name}")))?;
        Ok(Ring::new(map)?)
    }

    /// What could not be kept so far, by reason.
    pub fn lost(&self) -> Result<Lost, TraceError> {
        let bss: Array<&MapData, [u64; 3]> = Array::try_from(self.map(".bss")?)?;
        let [ring_full, map_full, unread] = bss.get(&0, 0)?;
        let recursion = self.infos()?.iter().map(|(_, info)| info.recursion_misses).sum();
        Ok(Lost { ring_full, map_full, unread, recursion })
    }
}

/// What a trace could not keep: counted in the kernel, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Events for which the ring buffer had no room.
    pub ring_full: u64,
    /// Events that needed a place in a full map.
    pub map_full: u64,
    /// Strings that could not be read from the process's memory just then.
    pub unread: u64,
    /// Runs that the kernel left out since the program was running on that CPU already.
    pub recursion: u64,
}

impl Lost {
    /// Events missing from the result.
    pub fn events(&self) -> u64 {
        self.ring_full + self.map_full + self.recursion
    }
}

/// What is behind a map of any of the kinds that the objects have.
fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(m) | Map::HashMap(m) | Map::PerCpuArray(m) | Map::PerCpuHashMap(m) => Some(m),
        // Storage of tasks is a kind that aya has no type for.
        Map::RingBuf(m) | Map::StackTraceMap(m) | Map::LruHashMap(m) | Map::Unsupported(m) => Some(m),
        _ => None,
    }
}

/// The kernel's own types, read once.
pub(crate) fn kernel_btf() -> Result<&'static Btf, TraceError> {
    static BTF: std::sync::OnceLock<Result<Btf, SysError>> = std::sync::OnceLock::new();
    let read = BTF.get_or_init(|| {
        Btf::from_sys_fs().map_err(|e| {
            let call = "open(\"/sys/kernel/btf/vmlinux\")";
            sys_error(call, &e).unwrap_or_else(|| SysError::new(call, 0).with_detail(e.to_string()))
        })
    });
    read.as_ref().map_err(|e| TraceError::NoBtf(e.clone()))
}
