//! One process with a time limit, whose output is kept up to a limit too, and of which nothing stays.

use std::fmt;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Bytes kept of each of a process's streams. All others are read and forgotten.
const KEPT: usize = 64 * 1024;

/// Which of them: what a process writes may say at its beginning or at its end what went wrong, what it tells ends with
/// the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Ends,
    Last,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exit(i32),
    Signal(i32),
    /// It was killed: its time was up.
    Late(Duration),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => match Signal::try_from(*signal) {
                Ok(name) => write!(f, "was ended by {name}"),
                Err(_) => write!(f, "was ended by signal {signal}"),
            },
            Self::Late(limit) => write!(f, "was still running after {} s", limit.as_secs()),
        }
    }
}

/// What is left of a process.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ended: Ended,
    pub(crate) stderr: String,
    /// What came back through the socket that was its standard input.
    pub(crate) told: Vec<u8>,
}

/// Runs it to its end, or to the end of its time. `secret` is what it can read from its standard input, a socket by
/// which it answers; without one there is nothing to read.
pub(crate) fn run(mut command: Command, secret: Option<&[u8]>, limit: Duration) -> anyhow::Result<Ran> {
    let (mut ours, theirs) = UnixStream::pair()?;
    // Without a secret their end is closed here.
    let stdin = secret.map_or_else(Stdio::null, |_| OwnedFd::from(theirs).into());
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    // The command holds their end of the socket: as long as it lives, ours does not see the end.
    drop(command);
    if let Some(secret) = secret {
        // An error: it is gone already, which its end says.
        let _ = ours.write_all(secret);
    }
    let stdout = keep(child.stdout.take().context("no stdout")?, Keep::Ends);
    let stderr = keep(child.stderr.take().context("no stderr")?, Keep::Ends);
    let told = keep(ours.try_clone()?, Keep::Last);
    let ended = wait(&mut child, limit)?;
    // Whoever still holds a stream open after this is not of the group: do not wait for that one.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = ours.shutdown(std::net::Shutdown::Write);
    collect(stdout);
    let stderr = String::from_utf8_lossy(&collect(stderr)).into_owned();
    Ok(Ran { ended, stderr, told: collect(told) })
}

/// Runs it with what it writes going where it is; only its end matters.
pub(crate) fn run_quietly(mut command: Command, limit: Duration) -> anyhow::Result<Ended> {
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn()?;
    wait(&mut child, limit)
}

fn wait(child: &mut Child, limit: Duration) -> anyhow::Result<Ended> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(ended(status));
        }
        if start.elapsed() > limit {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            child.wait()?;
            return Ok(Ended::Late(limit));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn ended(status: ExitStatus) -> Ended {
    status.signal().map_or_else(|| Ended::Exit(status.code().unwrap_or(-1)), Ended::Signal)
}

/// A stream's reader, and what it has so far: the bytes, and how many are left out in the middle.
type Kept = (JoinHandle<()>, std::sync::Arc<std::sync::Mutex<(Vec<u8>, usize)>>);

/// Reads a stream to its end, on a thread.
fn keep(mut from: impl Read + Send + 'static, which: Keep) -> Kept {
    let kept = std::sync::Arc::new(std::sync::Mutex::new((Vec::new(), 0)));
    let mine = std::sync::Arc::clone(&kept);
    let reader = thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let Ok(mut kept) = mine.lock() else { return };
            let (bytes, left_out) = &mut *kept;
            bytes.extend_from_slice(&buffer[..n]);
            let over = bytes.len().saturating_sub(KEPT);
            match which {
                Keep::Last => drop(bytes.drain(..over)),
                Keep::Ends if over == 0 => (),
                Keep::Ends => {
                    bytes.drain(KEPT / 2..KEPT / 2 + over);
                    *left_out += over;
                }
            }
        }
    });
    (reader, kept)
}

/// Long enough for a reader that has to wait for a CPU on a busy machine: what it has not read by then is lost.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// What was read. The writer has ended; a stream that somebody else holds open is given up.
fn collect((reader, kept): Kept) -> Vec<u8> {
    let start = Instant::now();
    while !reader.is_finished() && start.elapsed() < GIVEN_UP {
        thread::sleep(Duration::from_millis(1));
    }
    let (mut bytes, left_out) = kept.lock().map(|k| k.clone()).unwrap_or_default();
    if left_out > 0 {
        let words = format!("\n… {left_out} bytes left out …\n");
        bytes.splice(KEPT / 2..KEPT / 2, words.into_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: u64) -> Ran {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        run(sh, Some(b"secret\n"), Duration::from_secs(limit)).unwrap()
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(sh("exit 3", 60).ended, Ended::Exit(3));
        assert_eq!(sh("kill -SEGV $$", 60).ended, Ended::Signal(11));
        assert_eq!(sh("sleep 100", 1).ended, Ended::Late(Duration::from_secs(1)));
    }

    #[test]
    fn it_answers_by_standard_input() {
        assert_eq!(sh("read word; echo $word $word >&0", 60).told, b"secret secret\n");
    }

    #[test]
    fn the_end_of_a_long_answer_is_kept() {
        let ran = sh("{ yes | head -c 1000000; echo end; } >&0", 60);
        assert_eq!((ran.ended, ran.told.len()), (Ended::Exit(0), KEPT));
        assert!(ran.told.ends_with(b"y\nend\n"));
    }

    #[test]
    fn endless_output_is_cut() {
        let ran = sh("yes >&2", 1);
        assert_eq!(ran.ended, Ended::Late(Duration::from_secs(1)));
        assert!((KEPT..KEPT + 100).contains(&ran.stderr.len()), "{} bytes", ran.stderr.len());
    }

    #[test]
    fn both_ends_of_long_output_are_kept() {
        let ran = sh("{ echo start; yes | head -c 1000000; echo end; } >&2", 60);
        assert!(ran.stderr.starts_with("start\ny\n") && ran.stderr.ends_with("\ny\nend\n"));
        let left_out = 6 + 1_000_000 + 4 - KEPT;
        assert!(ran.stderr.contains(&format!("\n… {left_out} bytes left out …\n")), "{left_out}");
    }

    #[test]
    fn a_child_that_holds_the_output_does_not_hold_us() {
        assert_eq!(sh("sleep 1000 & exit 0", 60).ended, Ended::Exit(0));
    }
}
