//! A cgroup v2 group of our own: who is in it stays in it, whatever it forks.
//!
//! cgroups(7); `cgroup.kill` is Linux 5.14.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kit::SysError;

/// A group; on drop all in it is killed and it is removed, with the groups in it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: File,
}

/// The directory of our own group in the v2 hierarchy.
///
/// # Errors
/// ENOENT: no cgroup2 is mounted.
pub fn own() -> Result<PathBuf, SysError> {
    let read = |path: &'static str| fs::read_to_string(path).map_err(SysError::io(path));
    let mounts = read("/proc/self/mountinfo")?;
    let mount = mounts.lines().find_map(|l| {
        let (fields, rest) = l.split_once(" - ")?;
        rest.starts_with("cgroup2 ").then(|| fields.split(' ').nth(4))?
    });
    let groups = read("/proc/self/cgroup")?;
    let group = groups.lines().find_map(|l| l.strip_prefix("0::/"));
    match (mount, group) {
        (Some(m), Some(g)) => Ok(Path::new(m).join(g)),
        _ => Err(SysError::new("find a cgroup2 mount", libc::ENOENT)),
    }
}

impl Cgroup {
    /// A new group inside `parent`.
    ///
    /// # Errors
    /// EACCES, EROFS: not writable for us; EEXIST: the name is taken.
    pub fn create(parent: &Path, name: &str) -> Result<Self, SysError> {
        let path = parent.join(name);
        fs::create_dir(&path).map_err(SysError::io(format!("mkdir({})", path.display())))?;
        let dir = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(&path);
        match dir {
            Ok(dir) => Ok(Self { path, dir }),
            Err(e) => {
                let _ = fs::remove_dir(&path);
                Err(SysError::io("open(cgroup)")(e))
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id: the inode number of the directory, as PIDFD_GET_INFO tells it.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn id(&self) -> Result<u64, SysError> {
        nix::sys::stat::fstat(&self.dir).map(|s| s.st_ino).map_err(SysError::nix("fstat(cgroup)"))
    }

    /// Whether a process is in it or in a group inside it.
    pub fn populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events")).is_ok_and(|s| s.contains("populated 1"))
    }

    /// The PIDs directly in it.
    pub fn members(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }

    /// SIGKILL for all in it, at once: nothing can fork its way out.
    ///
    /// # Errors
    /// ENOENT before Linux 5.14.
    #[doc(alias = "cgroup.kill")]
    pub fn kill(&self) -> Result<(), SysError> {
        let path = self.path.join("cgroup.kill");
        let write = OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(b"1"));
        write.map_err(SysError::io("write(cgroup.kill)"))
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Kills what is in the group at `path`, and removes it; waits up to two seconds for it to empty.
pub fn remove(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    let inner = fs::read_dir(path).into_iter().flatten().flatten();
    inner.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).for_each(|e| remove(&e.path()));
    let until = Instant::now() + Duration::from_secs(2);
    while fs::remove_dir(path).is_err() && path.exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
}
