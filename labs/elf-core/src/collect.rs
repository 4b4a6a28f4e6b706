//! A crash collector: the kernel hands us every core of the machine.
//!
//! ```text
//!   |/path/handler args   the kernel starts the handler as root for each crash; the core is its stdin      core(5)
//!   @/path/socket         the kernel connects to the socket for each crash and writes the core    (Linux 6.16)
//! ```
//!
//! `core_pattern` is one setting for the whole machine, so it must be put back whatever happens. A guardian process
//! owns the change: it sets the pattern, waits until its stdin ends, which the death of ours by any signal brings
//! about, and restores it. It holds a lock on the file meanwhile, so that two collectors cannot restore each other's.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kit::SysError;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::SigSet;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::Error;
use crate::part::Part;

/// The setting.
pub const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";
/// Our files beside the cores: what the pattern names.
const HELPERS: [&str; 2] = [".handler", ".socket"];
/// The kernel keeps at most this many bytes of it (`CORENAME_MAX_SIZE`, less the end).
const MAX_PATTERN: usize = 127;

/// How the kernel hands the core over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A handler's stdin.
    Pipe,
    /// A Unix socket; Linux 6.16.
    Socket,
}

/// `core_pattern` changed; restored when this is dropped or the process dies.
#[derive(Debug)]
pub struct Pattern {
    guardian: Child,
}

impl Pattern {
    /// Has the guardian (`program --guard-core-pattern NEW`) change the setting; waits for another collector to end.
    ///
    /// # Errors
    /// EACCES without root, EROFS or EPERM in a container; EINVAL where the kernel does not know this kind of pattern.
    pub fn set(program: &Path, new: &str) -> Result<Self, Error> {
        if new.len() > MAX_PATTERN {
            return Err(Error::State(format!(
                "core_pattern holds {MAX_PATTERN} bytes, and {new:?} is longer: use a shorter path"
            )));
        }
        let mut guardian = Command::new(program)
            .args(["--guard-core-pattern", new])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its own group: Ctrl-C on the terminal is for us alone.
            .process_group(0)
            .spawn()
            .map_err(SysError::io("execve(guardian)"))?;
        let mut line = String::new();
        if let Some(out) = guardian.stdout.take() {
            // An empty line says enough: it could not.
            let _ = BufReader::new(out).read_line(&mut line);
        }
        let this = Self { guardian };
        match line.trim_end() {
            "set" => Ok(this),
            why => Err(Error::State(format!(
                "cannot set core_pattern: {}",
                if why.is_empty() { "the guardian died" } else { why }
            ))),
        }
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        // It restores and exits; nothing to do about a wait that fails.
        let _ = self.guardian.wait();
    }
}

/// Where the heart of this is.
pub const HERE: kit::Place = kit::here!();

/// The guardian: sets the pattern, says `set`, waits for the end of stdin, restores it.
pub fn guard(new: &str) {
    // Whoever would end it politely must wait until the pattern is restored.
    let _ = SigSet::all().thread_block();
    let answer = guarded(new);
    if let Err(e) = answer {
        let _ = writeln!(io::stdout(), "{e}");
    }
}

fn guarded(new: &str) -> Result<(), Error> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(CORE_PATTERN)
        .map_err(SysError::io(format!("open({CORE_PATTERN})")))?;
    let lock =
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| SysError::new("flock", e as i32))?;
    let old = fs::read_to_string(CORE_PATTERN).map_err(SysError::io(format!("read({CORE_PATTERN})")))?;
    fs::write(CORE_PATTERN, new).map_err(SysError::io(format!("write({CORE_PATTERN}, {new:?})")))?;
    // A parent that is gone already leaves stdin at its end.
    let _ = writeln!(io::stdout(), "set");
    let _ = io::stdin().lock().read_to_end(&mut Vec::new());
    // Somebody who changed it meanwhile meant it.
    let now = fs::read_to_string(CORE_PATTERN).unwrap_or_default();
    if now.trim_end() == new {
        fs::write(CORE_PATTERN, &old).map_err(SysError::io(format!("write({CORE_PATTERN})")))?;
    }
    // Also when our parent was killed: what the pattern named is of no use to anybody now.
    if let Some(helper) = helper_of(new) {
        let _ = fs::remove_file(helper);
    }
    drop(lock);
    Ok(())
}

/// A core that was collected.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Collected {
    /// Where it is.
    pub path: PathBuf,
    /// The process.
    pub pid: i32,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Collects cores into a directory while it lives.
#[derive(Debug)]
pub struct Collector {
    dir: PathBuf,
    listener: Option<UnixListener>,
    seen: Vec<PathBuf>,
    pattern: Option<Pattern>,
}

impl Collector {
    /// Points `core_pattern` at us. `program` is this lab's own binary: the kernel starts it, or it stands guard.
    ///
    /// # Errors
    /// As [`Pattern::set`]; or the directory cannot be used.
    pub fn start(way: Way, dir: &Path, program: &Path) -> Result<Self, Error> {
        let dir = dir.canonicalize().map_err(SysError::io(format!("realpath({})", dir.display())))?;
        let seen = cores_in(&dir);
        let text = dir.to_string_lossy().into_owned();
        if text.contains(char::is_whitespace) {
            return Err(Error::State(
                "core_pattern separates arguments by spaces: use a directory without one".into(),
            ));
        }
        let (listener, pattern) = match way {
            Way::Pipe => {
                // A short name for the program, whose own path may not fit.
                let handler = dir.join(".handler");
                let _ = fs::remove_file(&handler);
                std::os::unix::fs::symlink(program, &handler).map_err(SysError::io("symlink"))?;
                (None, format!("|{text}/.handler --store-core {text} %P %s"))
            }
            Way::Socket => {
                let path = dir.join(".socket");
                let _ = fs::remove_file(&path);
                let listener =
                    UnixListener::bind(&path).map_err(SysError::io(format!("bind({})", path.display())))?;
                listener.set_nonblocking(true).map_err(SysError::io("ioctl(FIONBIO)"))?;
                (Some(listener), format!("@{}", path.display()))
            }
        };
        let pattern = Pattern::set(program, &pattern);
        if pattern.is_err() {
            remove_helpers(&dir);
        }
        Ok(Self { dir, listener, seen, pattern: Some(pattern?) })
    }

    /// The next core, waited for at most `timeout`; `None` where none came.
    ///
    /// # Errors
    /// It could not be written.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Collected>, Error> {
        let end = Instant::now() + timeout;
        loop {
            match &self.listener {
                Some(listener) => match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).map_err(SysError::io("ioctl(FIONBIO)"))?;
                        let pid = getsockopt(&stream, PeerCredentials)
                            .map_err(SysError::nix("getsockopt(SO_PEERCRED)"))?
                            .pid();
                        return store(stream, &self.dir, pid).map(Some);
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(SysError::io("accept4")(e).into()),
                },
                None => {
                    if let Some(path) = cores_in(&self.dir).into_iter().find(|p| !self.seen.contains(p)) {
                        self.seen.push(path.clone());
                        let pid = path.extension().and_then(|e| e.to_str()?.parse().ok()).unwrap_or(0);
                        let bytes = fs::metadata(&path).map_or(0, |m| m.len());
                        return Ok(Some(Collected { path, pid, bytes }));
                    }
                }
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // In this order: no crash may find a pattern whose handler is gone.
        self.pattern = None;
        remove_helpers(&self.dir);
    }
}

/// The file of ours that a pattern names: `|/dir/.handler …` or `@/dir/.socket`.
fn helper_of(pattern: &str) -> Option<&Path> {
    let path = Path::new(pattern.get(1..)?.split(' ').next()?);
    HELPERS.iter().any(|h| path.ends_with(h)).then_some(path)
}

fn remove_helpers(dir: &Path) {
    for name in HELPERS {
        let _ = fs::remove_file(dir.join(name));
    }
}

fn cores_in(dir: &Path) -> Vec<PathBuf> {
    let name = |p: &PathBuf| p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"core."));
    // A file system without O_TMPFILE shows cores that are being written.
    let whole = |p: &PathBuf| p.extension().is_some_and(|e| e != "part");
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| name(p) && whole(p))
        .collect()
}

/// The handler's work, and the socket's: writes what comes to `dir/core.PID`, zeros as holes. Nobody but the owner may
/// read it. The process still exists while its core is being read.
///
/// # Errors
/// What the file system refuses.
pub fn store(mut from: impl Read, dir: &Path, pid: i32) -> Result<Collected, Error> {
    let path = dir.join(format!("core.{pid}"));
    let part = Part::create(&path)?;
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                if buffer[..n].iter().any(|b| *b != 0) {
                    part.file.write_all_at(&buffer[..n], bytes).map_err(SysError::io("pwrite(core)"))?;
                }
                bytes += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(SysError::io("read(core)")(e).into()),
        }
    }
    part.file.set_len(bytes).map_err(SysError::io("ftruncate"))?;
    part.keep()?;
    Ok(Collected { path, pid, bytes })
}
