//! Other tracers, started and told to end.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use benches::peers;

type Result<T> = std::result::Result<T, String>;

/// A tracer of the whole machine in a process of its own; told to end when dropped.
pub struct Watcher {
    child: Child,
    /// Its last line on standard error, once it has ended.
    last: Option<JoinHandle<String>>,
}

impl Watcher {
    pub fn bpf_trace(program: &Path, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        let on = Self::launch(command.args(["syscalls", "--duration", "0"]).args(options), "Attached")?;
        // The kernel's statistics are on for a quarter of a second.
        std::thread::sleep(Duration::from_millis(300));
        Ok(on)
    }

    /// What BEGIN prints is passed on once all probes are attached.
    pub fn bpftrace(script: &str) -> Result<Self> {
        let script = format!("BEGIN {{ printf(\"ready\\n\"); }} {script}");
        Self::launch(Command::new("bpftrace").args(["-B", "line", "-e", &script]), "ready")
    }

    /// The same, its output into a file.
    pub fn bpftrace_into(script: &str, file: &Path) -> Result<Self> {
        let script = format!("BEGIN {{ printf(\"ready\\n\"); }} {script}");
        let out = std::fs::File::create(file).map_err(|e| e.to_string())?;
        let mut command = Command::new("bpftrace");
        command.args(["-B", "line", "-e", &script]).stdin(Stdio::null()).stdout(out);
        let mut on = Self::spawn(&mut command)?;
        // It is among the first lines, behind one about attaching.
        let begun = || {
            let mut start = Vec::new();
            let read = std::fs::File::open(file).and_then(|f| f.take(4096).read_to_end(&mut start));
            read.is_ok() && start.split(|b| *b == b'\n').any(|line| line == b"ready")
        };
        while !begun() {
            if !matches!(on.child.try_wait(), Ok(None)) {
                return Err(on.ended("bpftrace"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(on)
    }

    /// Starts a program, and reads its standard error, so that it never waits for a reader and its last line is known.
    fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().display().to_string();
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|e| peers::failed(&name, &e))?;
        let last = child.stderr.take().map(|err| {
            std::thread::spawn(move || {
                let lines = BufReader::new(err).lines().map_while(io::Result::ok);
                lines.filter(|line| !line.trim().is_empty()).last().unwrap_or_default()
            })
        });
        Ok(Self { child, last })
    }

    /// Why it does not trace.
    fn ended(mut self, name: &str) -> String {
        let last = self.last.take();
        drop(self);
        let said = last.and_then(|thread| thread.join().ok()).filter(|line| !line.is_empty());
        format!("{name} ended before it traced: {}", said.as_deref().unwrap_or("it did not say why"))
    }

    /// Starts a program and waits for the line with `word`.
    pub fn launch(command: &mut Command, word: &str) -> Result<Self> {
        let name = command.get_program().display().to_string();
        let mut on = Self::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let out = on.child.stdout.take().ok_or("no pipe")?;
        let mut lines = BufReader::new(out).lines().map_while(io::Result::ok);
        if !lines.any(|line| line.contains(word)) {
            return Err(on.ended(&name));
        }
        // What it says from here on is thrown away, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(on)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, kill};
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        // bpftrace may lose one that comes just when it has begun; after five seconds there is no more asking.
        for _ in 0..50 {
            let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGINT);
            for _ in 0..20 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
