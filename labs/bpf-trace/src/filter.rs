//! What to trace: set into a program's constants before it is loaded.

use std::path::Path;

use kit::SysError;

/// Which tasks to trace; `None` means any. Held together by "and".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The process: its number in the tracer's PID namespace.
    pub pid: Option<u32>,
    /// The thread: likewise.
    pub tid: Option<u32>,
    /// The user (real UID).
    pub uid: Option<u32>,
    /// The thread's name; the kernel keeps 15 bytes of it.
    pub comm: Option<String>,
    /// The cgroup (v2): the inode number of its folder.
    pub cgroup: Option<u64>,
    /// Only the command that the tracer starts, and what descends from it.
    pub follow: bool,
}

/// The constants of `bpf/trace.h`, as bytes: they live as long as the loader that takes them.
#[derive(Debug)]
pub(crate) struct Constants(Vec<(&'static str, Vec<u8>)>);

impl Constants {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }
}

/// The PID namespace that this process's own number is of: its inode number, 0 for the outermost.
fn pid_namespace() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    /// PROC_PID_INIT_INO of include/linux/proc_ns.h: the same on every machine.
    const OUTERMOST: u64 = 0xefff_fffc;
    // Who has no /proc cannot look up numbers in it either.
    let inode = std::fs::metadata("/proc/self/ns/pid").map_or(OUTERMOST, |ns| ns.ino());
    if inode == OUTERMOST { 0 } else { inode as u32 }
}

impl Filter {
    /// The id by which programs know the cgroup at `path`.
    pub fn cgroup_id(path: &Path) -> Result<u64, SysError> {
        use std::os::unix::fs::MetadataExt as _;
        let call = format!("stat({:?})", path.display().to_string());
        let folder = std::fs::metadata(path).map_err(SysError::io(call.clone()))?;
        if !path.join("cgroup.procs").exists() {
            return Err(SysError::new(call, 0)
                .with_detail("not the folder of a cgroup: grep cgroup2 /proc/mounts tells where they are"));
        }
        Ok(folder.ino())
    }

    /// `tgid` and `tid` are the tracer's own: what descends from that thread by fork and exec is the command.
    pub(crate) fn constants(&self, (tgid, tid): (u32, u32)) -> Constants {
        let u32s = |n: u32| n.to_ne_bytes().to_vec();
        let mut comm = [0_u8; 16];
        let name = self.comm.as_deref().unwrap_or_default().as_bytes();
        let len = name.len().min(15);
        comm[..len].copy_from_slice(&name[..len]);
        Constants(vec![
            ("pid_namespace", u32s(pid_namespace())),
            ("self_tgid", u32s(tgid)),
            ("self_tid", u32s(tid)),
            ("only_pid", u32s(self.pid.unwrap_or(0))),
            ("only_tid", u32s(self.tid.unwrap_or(0))),
            ("by_uid", u32s(self.uid.is_some().into())),
            ("only_uid", u32s(self.uid.unwrap_or(0))),
            ("only_cgroup", self.cgroup.unwrap_or(0).to_ne_bytes().to_vec()),
            ("by_comm", u32s(self.comm.is_some().into())),
            ("only_comm", comm.to_vec()),
            ("follow", u32s(self.follow.into())),
        ])
    }
}
