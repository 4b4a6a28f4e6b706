//! Starts the victim and gets its core: from the kernel where `core_pattern` puts it into the working directory,
//! else by our own `gcore` at the moment of the fatal signal.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kit::SysError;
use nix::sys::resource::{Resource, getrlimit};

use crate::gcore::{self, Stopped, Written};
use crate::victim::{Crash, Knowledge};
use crate::{Error, sys};

/// A core of some MiB is written in milliseconds, on a slow disk in seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A victim that waits for its end; killed and reaped when dropped.
#[derive(Debug)]
pub struct Victim {
    child: Child,
    /// What it said about itself.
    pub knowledge: Knowledge,
    crash: Crash,
}

/// Who wrote the core.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// The kernel.
    Kernel,
    /// Our own `gcore`; and why not the kernel.
    Gcore(String),
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

impl Victim {
    /// Starts `program victim-arguments…` in `dir` and reads what it knows.
    ///
    /// # Errors
    /// It cannot be started, or says something else.
    pub fn start(mut command: Command, crash: Crash, dir: &Path) -> Result<Self, Error> {
        let command =
            command.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(SysError::io("execve(victim)"))?;
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        match serde_json::from_str(&line) {
            Ok(knowledge) => Ok(Self { child, knowledge, crash }),
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(Error::State(format!("the victim did not say what it knows ({e}; {read:?})")))
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.knowledge.pid
    }

    /// Lets it crash, by the byte that it waits for or by the signal that ends its deadlock.
    fn release(&mut self) {
        // EPIPE, ESRCH: it is dead already, which the wait that follows finds out.
        if self.crash == Crash::DeadlockKill {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(self.knowledge.pid),
                nix::sys::signal::SIGQUIT,
            );
        } else if let Some(stdin) = &mut self.child.stdin {
            let _ = stdin.write_all(b"x");
        }
    }

    /// Lets it crash and brings its core, which is in `dir`.
    ///
    /// # Errors
    /// No core appeared, or ptrace is forbidden where it was needed.
    pub fn core(mut self, dir: &Path) -> Result<(PathBuf, Writer), Error> {
        if let Err(why) = kernel_writes_here() {
            return self.core_by_gcore(dir, why);
        }
        self.release();
        // Kept open meanwhile: the victim exits when its stdin ends.
        let stdin = self.child.stdin.take();
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().map_err(SysError::io("wait4"))? {
                Some(status) => break status,
                None if Instant::now() > end => return Err(Error::State("the victim does not die".into())),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        drop(stdin);
        let name = |e: &fs::DirEntry| e.file_name().as_encoded_bytes().starts_with(b"core");
        let found = fs::read_dir(dir).into_iter().flatten().flatten().find(name).map(|e| e.path());
        match found {
            Some(path) if status.core_dumped() => Ok((path, Writer::Kernel)),
            _ => Err(Error::State(format!("the victim ended with {status}, and left no core"))),
        }
    }

    /// The same without the kernel's help; `why` says why.
    ///
    /// # Errors
    /// ptrace is forbidden, or it ended otherwise.
    pub fn core_by_gcore(mut self, dir: &Path, why: String) -> Result<(PathBuf, Writer), Error> {
        let path = dir.join("core.by-gcore");
        let pid = self.pid();
        let stopped = gcore::wait_for_crash(pid, || self.release())?;
        let Some(stopped) = stopped else {
            return Err(Error::State("the victim ended without a fatal signal".into()));
        };
        stopped.write(&path)?;
        Ok((path, Writer::Gcore(why)))
    }

    /// A snapshot of it alive.
    ///
    /// # Errors
    /// ptrace is forbidden.
    pub fn snapshot(&self, path: &Path) -> Result<Written, Error> {
        Stopped::all_of(self.pid())?.write(path)
    }

    /// Lets it crash without waiting for what comes of it.
    pub fn crash(&mut self) {
        self.release();
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Already dead and reaped in the common case.
        let _ = self.child.kill();
        // Threads that we still trace are zombies of ours, and the process cannot end before they are waited for;
        // for the others this fails at once.
        for tid in self.knowledge.tids.iter().filter(|t| **t != self.knowledge.pid) {
            let _ = sys::wait(*tid, 0);
        }
        let _ = self.child.wait();
    }
}

/// Whether a crash in a directory of ours leaves its core there.
///
/// # Errors
/// Why not, in words.
pub fn kernel_writes_here() -> Result<(), String> {
    let pattern =
        fs::read_to_string("/proc/sys/kernel/core_pattern").map_err(|e| format!("core_pattern: {e}"))?;
    let pattern = pattern.trim_end();
    if !pattern.starts_with("core") || pattern.contains('/') {
        return Err(format!("core_pattern sends cores elsewhere: {pattern:?}"));
    }
    match getrlimit(Resource::RLIMIT_CORE) {
        Ok((_, 0)) => Err("the hard limit for cores is 0 (RLIMIT_CORE)".into()),
        _ => Ok(()),
    }
}
