//! An unfinished core. It has no name until it is whole, so nothing is left of it whatever ends its writer.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use kit::SysError;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

/// A file that will be `path` once it is kept.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) file: File,
    path: PathBuf,
    /// The name that it has meanwhile on file systems without O_TMPFILE (Linux 3.11); removed unless kept.
    named: Option<PathBuf>,
}

impl Part {
    pub(crate) fn create(path: &Path) -> Result<Self, SysError> {
        // A core holds whatever the process held: for its owner alone.
        let mut options = File::options();
        options.write(true).mode(0o600);
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Ok(file) = options.clone().custom_flags(libc::O_TMPFILE).open(dir) {
            return Ok(Self { file, path: path.to_owned(), named: None });
        }
        let part = beside(path);
        let file = options.create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(&part);
        let file = file.map_err(SysError::io(format!("open({})", part.display())))?;
        Ok(Self { file, path: path.to_owned(), named: Some(part) })
    }

    /// Gives it its name, in place of what had the name before.
    pub(crate) fn keep(mut self) -> Result<(), SysError> {
        let part = match self.named.take() {
            Some(part) => part,
            None => match self.link(&self.path) {
                Err(Errno::EEXIST) => {
                    // link(2) replaces nothing, rename(2) does.
                    let part = beside(&self.path);
                    let _ = fs::remove_file(&part);
                    self.link(&part).map_err(SysError::nix("linkat"))?;
                    part
                }
                other => return other.map_err(SysError::nix(format!("linkat({})", self.path.display()))),
            },
        };
        let renamed = fs::rename(&part, &self.path);
        self.named = renamed.is_err().then_some(part);
        renamed.map_err(SysError::io(format!("rename({})", self.path.display())))
    }

    /// open(2) describes this way to name a nameless file.
    fn link(&self, name: &Path) -> Result<(), Errno> {
        let me = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(AT_FDCWD, me.as_str(), AT_FDCWD, name, AtFlags::AT_SYMLINK_FOLLOW)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(part) = &self.named {
            let _ = fs::remove_file(part);
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
