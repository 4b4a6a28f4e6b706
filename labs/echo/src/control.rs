//! A server in a process of its own, told over its standard input and output what to do.
//!
//! Its CPU time is then that of the server alone, threads of the kernel included. The talk is in lines, so that it can be had by hand, and so that a
//! peer written in anything can take part: it only has to say `listening ADDR` and to end with its input.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use kit::SysError;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::counts::Counts;
use crate::server::{self, Running};
use crate::spec::Spec;

/// Serves until the input ends: says where it listens, and its counters at every line `counts`.
///
/// # Errors
/// [`server::start`]; writing to `output`.
pub fn serve(spec: Spec, addr: SocketAddr, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let running = match server::start(spec, addr) {
        Ok(running) => running,
        Err(e) => {
            writeln!(output, "failed {} {}", e.errno, e.call)?;
            return output.flush();
        }
    };
    // From here on this thread has a table of descriptors of its own, so that the server's is not shared:
    // looking up a descriptor in a shared table costs atomic operations. If it is refused, so be it.
    let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES);
    for note in &running.notes {
        writeln!(output, "note {note}")?;
    }
    writeln!(output, "listening {}", running.addr)?;
    output.flush()?;
    for line in input.lines() {
        if line? == "counts" {
            say(&running.counts(), &mut output)?;
        }
    }
    let counts = running.stop().map_err(io::Error::other)?;
    say(&counts, &mut output)
}

fn say(counts: &Counts, output: &mut impl Write) -> io::Result<()> {
    let fields: Vec<String> = counts.fields().iter().map(|(name, n)| format!("{name}={n}")).collect();
    writeln!(output, "counts {}", fields.join(" "))?;
    output.flush()
}

/// A server under measurement.
#[derive(Debug)]
pub enum Target {
    /// A thread of this process.
    Thread(Running),
    /// Another process.
    Process(Process),
}

/// A server in another process; ends with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    addr: SocketAddr,
    notes: Vec<String>,
}

/// What a server has used up since it started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// CPU time of all its threads, those of the kernel working for it included.
    pub cpu: Duration,
    /// Context switches because it waited.
    pub voluntary: u64,
    /// Context switches because others wanted the CPU.
    pub involuntary: u64,
}

impl Target {
    /// Starts a program that serves as [`serve`] does. It inherits the CPUs of the calling thread.
    ///
    /// # Errors
    /// What the program says it failed with, or that it ended.
    pub fn spawn(command: &mut Command) -> Result<Target, SysError> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(SysError::io("execve"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(SysError::new("pipe2", 0));
        };
        let mut process = Process {
            child,
            input: Some(input),
            output: BufReader::new(output),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            notes: Vec::new(),
        };
        loop {
            let line = process.line()?;
            match line.split_once(' ') {
                Some(("note", note)) => process.notes.push(note.to_owned()),
                Some(("failed", what)) => {
                    let (errno, call) = what.split_once(' ').unwrap_or(("0", what));
                    return Err(SysError::new(call.to_owned(), errno.parse().unwrap_or(0)));
                }
                Some(("listening", addr)) => {
                    process.addr = addr.parse().map_err(|_| SysError::new("server process", 0))?;
                    return Ok(Target::Process(process));
                }
                _ => return Err(SysError::new("server process", 0).with_detail(line)),
            }
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        match self {
            Target::Thread(running) => running.addr,
            Target::Process(process) => process.addr,
        }
    }

    /// What the kernel refused it.
    pub fn notes(&self) -> &[String] {
        match self {
            Target::Thread(running) => &running.notes,
            Target::Process(process) => &process.notes,
        }
    }

    /// Its counters; none of a peer that counts nothing.
    ///
    /// # Errors
    /// The process ended.
    pub fn counts(&mut self) -> Result<Counts, SysError> {
        let process = match self {
            Target::Thread(running) => return Ok(running.counts()),
            Target::Process(process) => process,
        };
        if let Some(input) = &mut process.input {
            input.write_all(b"counts\n").map_err(SysError::io("write(server process)"))?;
        }
        process.counts()
    }

    /// What it has used up. For a thread: what this process has, less the calling thread.
    ///
    /// # Errors
    /// clock_gettime(2), or reading /proc.
    pub fn usage(&self) -> Result<Usage, SysError> {
        let time = |clock| clock_gettime(clock).map_err(SysError::nix("clock_gettime"));
        let switches = |task: &str| -> (u64, u64) {
            let status = std::fs::read_to_string(format!("{task}/status")).unwrap_or_default();
            let field = |name| {
                let line = status.lines().find_map(|l: &str| l.strip_prefix(name));
                line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
            };
            (field("voluntary_ctxt_switches:"), field("nonvoluntary_ctxt_switches:"))
        };
        let (pid, cpu, own) = match self {
            Target::Thread(_) => {
                let all: Duration = time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into();
                let own: Duration = time(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into();
                (std::process::id(), all.saturating_sub(own), switches("/proc/thread-self"))
            }
            Target::Process(process) => {
                let pid = process.child.id();
                let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid as i32))
                    .map_err(SysError::nix("clock_getcpuclockid"))?;
                let cpu: TimeSpec = time(clock)?;
                (pid, cpu.into(), (0, 0))
            }
        };
        let mut usage = Usage { cpu, voluntary: 0, involuntary: 0 };
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).map_err(SysError::io("open(/proc)"))?;
        for task in tasks.flatten() {
            let (voluntary, involuntary) = switches(&task.path().to_string_lossy());
            usage.voluntary += voluntary;
            usage.involuntary += involuntary;
        }
        usage.voluntary = usage.voluntary.saturating_sub(own.0);
        usage.involuntary = usage.involuntary.saturating_sub(own.1);
        Ok(usage)
    }

    /// The number of its process; none of a thread.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Target::Thread(_) => None,
            Target::Process(process) => Some(process.child.id()),
        }
    }

    /// Stops it, and what it had counted.
    ///
    /// # Errors
    /// As the server says.
    pub fn stop(self) -> Result<Counts, SysError> {
        match self {
            Target::Thread(running) => running.stop(),
            Target::Process(mut process) => {
                process.input = None;
                process.counts()
            }
        }
    }
}

impl Process {
    fn line(&mut self) -> Result<String, SysError> {
        let mut line = String::new();
        match self.output.read_line(&mut line).map_err(SysError::io("read(server process)"))? {
            0 => Err(SysError::new("server process", 0).with_detail("it ended")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn counts(&mut self) -> Result<Counts, SysError> {
        let line = self.line()?;
        let mut counts = Counts::default();
        for (name, n) in line.split_whitespace().filter_map(|field| field.split_once('=')) {
            counts.set(name, n.parse().unwrap_or(0));
        }
        Ok(counts)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of its input is its order to stop. It must not outlive us, so there is an end to that.
        self.input = None;
        for _ in 0..300 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
