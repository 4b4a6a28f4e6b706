//! A workload whose system calls are known: another process, this very program started as one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kit::SysError;

/// The first argument by which a program of this lab becomes the workload; see [`part`].
pub const WORD: &str = "--as-workload";

/// What each of the threads does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Threads, the first one included.
    pub threads: u32,
    /// getppid(2) by each.
    pub getppid: u32,
    /// close(2) of descriptor -1 by each: EBADF.
    pub bad_close: u32,
    /// nanosleep(2) by each, 5 ms long.
    pub sleeps: u32,
}

/// How long each sleep of the workload is.
pub const SLEEP: Duration = Duration::from_millis(5);

impl Known {
    /// The command that does it.
    pub fn command(&self, program: &std::path::Path) -> Vec<std::ffi::OsString> {
        let numbers = [self.threads, self.getppid, self.bad_close, self.sleeps].map(|n| n.to_string().into());
        [vec![program.into(), WORD.into()], numbers.to_vec()].concat()
    }

    fn run(self) {
        let one = move || {
            for _ in 0..self.getppid {
                std::hint::black_box(nix::unistd::getppid());
            }
            for _ in 0..self.bad_close {
                // Raw: Rust's owned descriptors cannot be -1.
                let _ = nix::unistd::close(-1);
            }
            for _ in 0..self.sleeps {
                thread::sleep(SLEEP);
            }
        };
        let others: Vec<_> = (1..self.threads).map(|_| thread::spawn(one)).collect();
        one();
        others.into_iter().for_each(|t| drop(t.join()));
    }
}

/// Becomes the workload if the command line says so; false: it is the lab.
pub fn part(args: &[std::ffi::OsString]) -> bool {
    let words: Vec<&str> = args.iter().filter_map(|a| a.to_str()).collect();
    let [WORD, numbers @ ..] = words.as_slice() else { return false };
    let numbers: Vec<u32> = numbers.iter().filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [threads, opens] => fail_to_open(threads, opens),
        [threads, getppid, bad_close, sleeps] => Known { threads, getppid, bad_close, sleeps }.run(),
        _ => serve(),
    }
    true
}

/// What is not opened: a temporary file for reading only makes no sense, and the kernel says so (EINVAL) before it looks
/// anything up. No open is cheaper, so none can be made more often.
pub const NOWHERE: &str = "/no-such-folder";

/// The command whose threads try to open [`NOWHERE`], `opens` times each.
pub fn opener(program: &std::path::Path, threads: u32, opens: u32) -> Vec<std::ffi::OsString> {
    vec![program.into(), WORD.into(), threads.to_string().into(), opens.to_string().into()]
}

fn fail_to_open(threads: u32, opens: u32) {
    let one = move || {
        for _ in 0..opens {
            let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_TMPFILE;
            let _ = nix::fcntl::open(NOWHERE, flags, nix::sys::stat::Mode::empty());
        }
    };
    let others: Vec<_> = (1..threads).map(|_| thread::spawn(one)).collect();
    one();
    others.into_iter().for_each(|t| drop(t.join()));
}

/// Answers each line, a number, by the nanoseconds that so many pairs of one-byte read and write took: what
/// `dd bs=1` does. Ends with its input.
fn serve() {
    let (Ok(mut zero), Ok(mut null)) = (std::fs::File::open("/dev/zero"), std::fs::File::create("/dev/null"))
    else {
        return;
    };
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(pairs) = line.parse::<u32>() else { return };
        let mut byte = [0];
        let begin = Instant::now();
        for _ in 0..pairs {
            let done = zero.read(&mut byte).and_then(|_| null.write(&byte));
            std::hint::black_box(done.is_ok());
        }
        let took = begin.elapsed().as_nanos();
        let mut out = std::io::stdout();
        if writeln!(out, "{took}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// A process that makes calls when it is told to, and says how long they took.
#[derive(Debug)]
pub struct Caller {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Caller {
    /// Starts it: this program, as a workload.
    pub fn start(program: &std::path::Path) -> Result<Self, SysError> {
        let mut child = Command::new(program)
            .arg(WORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(SysError::io(format!("exec({:?})", program.display().to_string())))?;
        let from = BufReader::new(child.stdout.take().ok_or(SysError::new("pipe", 0))?);
        Ok(Self { to: child.stdin.take(), from, child })
    }

    /// Nanoseconds a call, over `pairs` pairs of a read and a write.
    pub fn ns_a_call(&mut self, pairs: u32) -> Result<f64, SysError> {
        let mut answer = String::new();
        let to = self.to.as_mut().ok_or(SysError::new("pipe", 0))?;
        writeln!(to, "{pairs}").map_err(SysError::io("write(workload)"))?;
        self.from.read_line(&mut answer).map_err(SysError::io("read(workload)"))?;
        let took: f64 = answer
            .trim()
            .parse()
            .map_err(|_| SysError::new("workload", 0).with_detail(format!("it said {answer:?}")))?;
        Ok(took / f64::from(2 * pairs))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.wait();
    }
}
