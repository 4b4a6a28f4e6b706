//! How much of the machine a program gets: resource limits, which hold everywhere, and cgroups, where we may make some.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kit::cleanup::{Deferred, defer};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// See setrlimit(2).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Seconds of CPU time of one process.
    pub(crate) cpu: u64,
    /// Bytes of address space of one process.
    pub(crate) memory: u64,
    /// Processes and threads.
    pub(crate) processes: u64,
    /// Bytes of one file.
    pub(crate) file: u64,
    /// Bytes in `/tmp`.
    pub(crate) scratch: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu: 120, memory: 4 << 30, processes: 256, file: 256 << 20, scratch: 64 << 20 }
    }
}

impl Limits {
    /// `besides` are tasks that count although they are none of ours.
    pub(super) fn set(&self, besides: u64) -> anyhow::Result<()> {
        let limits = [
            (Resource::RLIMIT_CPU, self.cpu),
            (Resource::RLIMIT_AS, self.memory),
            (Resource::RLIMIT_NPROC, self.processes + besides),
            (Resource::RLIMIT_FSIZE, self.file),
            (Resource::RLIMIT_CORE, 0),
        ];
        for (resource, value) in limits {
            setrlimit(resource, value, value).with_context(|| format!("setrlimit({resource:?}, {value})"))?;
        }
        Ok(())
    }
}

/// Processes and threads of a user: what RLIMIT_NPROC counts, outside of a user namespace.
pub(super) fn tasks_of(user: u32) -> u64 {
    let mut tasks = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if field(&status, "Uid:") == Some(user.into()) {
            tasks += field(&status, "Threads:").unwrap_or(1);
        }
    }
    tasks
}

/// The first number behind a name in /proc/PID/status (proc_pid_status(5)).
pub(super) fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Cgroups of one program, removed with all that is in them when dropped, and on Ctrl-C.
#[derive(Debug)]
pub(crate) struct Cgroups {
    folders: Vec<PathBuf>,
    _undo: Option<Deferred>,
}

impl Cgroups {
    /// Makes what can be made, in both kinds of hierarchy; none without the right to.
    pub(crate) fn make(name: &str, limits: &Limits) -> Self {
        let (memory, processes) = (limits.memory.to_string(), limits.processes.to_string());
        let wanted: [(&str, &[(&str, &str)]); 3] = [
            ("/sys/fs/cgroup/memory", &[("memory.limit_in_bytes", &memory)]),
            ("/sys/fs/cgroup/pids", &[("pids.max", &processes)]),
            ("/sys/fs/cgroup", &[("memory.max", &memory), ("pids.max", &processes)]),
        ];
        let mut folders = Vec::new();
        for (hierarchy, settings) in wanted {
            let folder = Path::new(hierarchy).join(name);
            if !Path::new(hierarchy).join("cgroup.procs").exists() || fs::create_dir(&folder).is_err() {
                continue;
            }
            let set = settings.iter().all(|(file, value)| fs::write(folder.join(file), value).is_ok());
            if set { folders.push(folder) } else { remove(&folder) }
        }
        let undo = folders.clone();
        let undo = (!undo.is_empty()).then(|| defer("cgroups", move || undo.iter().for_each(|f| remove(f))));
        Self { folders, _undo: undo }
    }

    /// None.
    pub(crate) fn none() -> Self {
        Self { folders: Vec::new(), _undo: None }
    }

    /// The files by which a process joins them.
    pub(crate) fn procs(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|f| f.join("cgroup.procs")).collect()
    }
}

/// Removes a cgroup; the last process may still be on its way out, or has to be sent there.
fn remove(folder: &Path) {
    for _ in 0..200 {
        if fs::remove_dir(folder).is_ok() {
            return;
        }
        let inside = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines().filter_map(|l| l.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
