//! The options of this lab, and what they mean to its library.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bpf_trace::command::Running;
use bpf_trace::syscalls::By;
use bpf_trace::target::{Target, TargetError};
use bpf_trace::{Filter, Means, names};
use clap::ValueEnum;
use kit::Usage;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Which calls, how often, which errors, how long
    Syscalls,
    /// Programs that begin, with their arguments; processes that end, and how
    Exec,
    /// Files that are opened: path, flags, result
    Open,
    /// How often a function in user space is called, and how long it takes: uprobe BIN:SYMBOL
    Uprobe,
    /// Where threads are off the CPU, how long, and why
    Offcpu,
    /// What the CPUs are doing: sampled stacks, as a flame graph
    Profile,
    /// How long tasks that can run wait for a CPU
    Runq,
    /// How long the kernel works on interrupts after they have returned
    Softirq,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Group {
    Syscall,
    #[default]
    Process,
    Thread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    #[value(name = "tp_btf")]
    TpBtf,
    #[value(name = "raw_tp")]
    RawTp,
    Tracepoint,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of this lab")]
pub struct Options {
    /// What to look at; without one: the lesson, on a workload of its own
    #[arg(value_name = "VIEW", help_heading = "What to trace")]
    view: Option<String>,
    /// uprobe: which function, such as c:malloc, bash:readline or ./program:main
    #[arg(value_name = "BIN:SYMBOL", help_heading = "What to trace")]
    function: Option<String>,
    /// A command to trace, with all that descends from it; without one: the whole machine
    #[arg(last = true, value_name = "COMMAND", help_heading = "What to trace")]
    pub command: Vec<OsString>,
    /// Another lab to trace, in its quick run (its own output is hidden; with -v shown)
    #[arg(long, value_name = "NAME", conflicts_with = "command", help_heading = "What to trace")]
    pub lab: Option<String>,
    /// Only this process
    #[arg(short, long, value_name = "PID", help_heading = "What to trace")]
    pid: Option<u32>,
    /// Only this thread
    #[arg(short, long, value_name = "TID", help_heading = "What to trace")]
    tid: Option<u32>,
    /// Only this user, by name or number
    #[arg(short, long, value_name = "USER", help_heading = "What to trace")]
    uid: Option<String>,
    /// Only threads of this name (15 bytes count)
    #[arg(short, long, value_name = "NAME", help_heading = "What to trace")]
    comm: Option<String>,
    /// Only this cgroup: its folder, of version 2
    #[arg(long, value_name = "PATH", help_heading = "What to trace")]
    cgroup: Option<PathBuf>,
    /// syscalls: only this call, by name or number
    #[arg(long, value_name = "CALL", help_heading = "What to trace")]
    syscall: Option<String>,
    /// Only what failed
    #[arg(short = 'x', long, help_heading = "What to trace")]
    pub failed: bool,
    /// Only what took at least so long: 10ms, 500us
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "What to trace")]
    pub slower: Option<Duration>,
    /// offcpu: only what took at most so long
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "What to trace")]
    pub faster: Option<Duration>,
    /// syscalls: count by; runq: process or thread
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    by: Group,
    /// syscalls: time them, too
    #[arg(short = 'L', long)]
    pub latency: bool,
    /// profile: samples a second on each CPU, 9999 at most: more would leave no time for anything else
    #[arg(long, value_name = "HZ", default_value_t = 99, value_parser = clap::value_parser!(u64).range(1..=9_999))]
    pub frequency: u64,
    /// profile, offcpu: write the stacks there, in the folded form that flame graph programs read
    #[arg(long, value_name = "FILE")]
    pub folded: Option<PathBuf>,
    /// profile, offcpu: write the flame graph there
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// How long, in seconds; 0: until Ctrl-C  [default: 5, or until COMMAND ends]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// Show what there is so far each so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub interval: Duration,
    /// Rows to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,
    /// Programs that the verifier must refuse, and why: all, or one
    #[arg(long, value_name = "EXHIBIT", num_args = 0..=1, default_missing_value = "", help_heading = "What to look into")]
    pub verifier: Option<String>,
    /// A program, its machine code, and what the verifier knew: the counter by hand, or one of a view's
    #[arg(long, value_name = "VIEW/PROGRAM", num_args = 0..=1, default_missing_value = "", help_heading = "What to look into")]
    pub inside: Option<String>,
    /// Where programs can be attached on this machine, and what an empty one costs there
    #[arg(long, help_heading = "What to look into")]
    pub attach_points: bool,
    /// exec, open: MiB of the buffer between kernel and reader; more is lost more rarely
    #[arg(long, value_name = "MIB", value_parser = mebibytes, default_value = "16")]
    pub ring: u32,
    /// Attach by these means only, instead of the first that works
    #[arg(long, value_enum, value_name = "MEANS")]
    attach: Option<Attach>,
    /// The process of `--pid`, as [`filter`](Self::filter) found it
    #[arg(skip)]
    pub watched: RefCell<Option<Running>>,
}

impl Options {
    /// The view that is asked for.
    pub fn view(&self) -> Result<Option<View>, Usage> {
        let Some(name) = &self.view else { return Ok(None) };
        if let Some(more) = self.function.as_ref().filter(|_| !name.eq_ignore_ascii_case("uprobe")) {
            return Err(Usage(format!(
                "{more:?}: the view {name} takes nothing more\n  a command goes behind a further --: -- {name} -- {more}"
            )));
        }
        View::from_str(name, true).map(Some).map_err(|_| {
            let views: Vec<_> = View::value_variants().iter().filter_map(|v| v.to_possible_value()).collect();
            let names: Vec<&str> = views.iter().map(|v| v.get_name()).collect();
            Usage(format!(
                "no view {name:?}: there are {}\n  a command to trace goes behind a further --: -- syscalls -- {name}",
                names.join(", ")
            ))
        })
    }

    /// The function to trace.
    pub fn target(&self) -> anyhow::Result<Target> {
        let Some(text) = &self.function else {
            return Err(Usage("which function? uprobe BIN:SYMBOL, such as uprobe c:malloc".into()).into());
        };
        Target::find(text, self.pid).map_err(|e| match e {
            TargetError::Sys(e) => e.into(),
            other => Usage(other.to_string()).into(),
        })
    }

    /// The command to trace: the one given, or another lab's program, which stands beside this one.
    pub fn command(&self) -> anyhow::Result<Vec<OsString>> {
        let Some(lab) = &self.lab else { return Ok(self.command.clone()) };
        let program = std::env::current_exe()?.with_file_name(lab);
        if !program.is_file() || lab.contains('/') {
            let why = format!(
                "no program of a lab {lab:?} beside this one\n  build it: cargo xtask run {lab} --quick"
            );
            return Err(Usage(why).into());
        }
        Ok(vec![program.into(), "--quick".into()])
    }

    /// The process that is traced alone: with it, the trace ends.
    fn watch(&self) -> anyhow::Result<Option<Running>> {
        let Some(pid) = self.pid else { return Ok(None) };
        match Running::watch(pid) {
            Ok(running) => Ok(Some(running)),
            Err(e) if e.errno == libc::ESRCH => Err(Usage(format!(
                "no process {pid}: it has ended, or never was; ps -e lists those that are"
            ))
            .into()),
            Err(e) if matches!(e.errno, libc::EINVAL | libc::ENOENT) => {
                Err(Usage(format!("{pid} is a thread and not a process: --tid {pid}")).into())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Whom to trace.
    ///
    /// From here on, the end of the process that is asked for is noticed: before anything is attached.
    pub fn filter(&self) -> anyhow::Result<Filter> {
        *self.watched.borrow_mut() = self.watch()?;
        // No signal is sent: it is only asked whether it could be. Linux takes a thread's number there, too.
        let is_gone = |tid: &u32| {
            let answer = i32::try_from(*tid).map(|tid| kill(Pid::from_raw(tid), None));
            *tid == 0 || answer != Ok(Ok(())) && answer != Ok(Err(Errno::EPERM))
        };
        if let Some(tid) = self.tid.filter(is_gone) {
            let why = format!("no thread {tid}: it has ended, or never was; ps -eL lists those that are");
            return Err(Usage(why).into());
        }
        Ok(Filter {
            pid: self.pid,
            tid: self.tid,
            uid: self.uid.as_deref().map(user).transpose()?,
            comm: self.comm.clone(),
            cgroup: self.cgroup.as_deref().map(Filter::cgroup_id).transpose()?,
            follow: self.follows(),
        })
    }

    /// Whether there is a command whose descendants are to be traced, and no others.
    pub fn follows(&self) -> bool {
        !self.command.is_empty() || self.lab.is_some()
    }

    /// For views that are about CPUs and not about tasks.
    pub fn no_filter(&self, view: &str, why: &str) -> Result<(), Usage> {
        let given = [
            ("--pid", self.pid.is_some()),
            ("--tid", self.tid.is_some()),
            ("--uid", self.uid.is_some()),
            ("--comm", self.comm.is_some()),
            ("--cgroup", self.cgroup.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Usage(format!("{view} has no {option}: {why}"))),
            None => Ok(()),
        }
    }

    /// How long; `None`: until something else ends it.
    pub fn duration(&self, quick: bool) -> Option<Duration> {
        match self.duration {
            Some(Duration::ZERO) => None,
            Some(duration) => Some(duration),
            None if self.follows() => None,
            None => Some(Duration::from_secs(if quick { 1 } else { 5 })),
        }
    }

    pub fn means(&self) -> Option<Means> {
        self.attach.map(|a| match a {
            Attach::TpBtf => Means::TpBtf,
            Attach::RawTp => Means::RawTp,
            Attach::Tracepoint => Means::Tracepoint,
        })
    }

    /// For views that know processes and threads only: whether it is threads.
    pub fn by_thread(&self, view: &str) -> Result<bool, Usage> {
        match self.by {
            Group::Process => Ok(false),
            Group::Thread => Ok(true),
            Group::Syscall => Err(Usage(format!("{view}: --by process or --by thread"))),
        }
    }

    pub fn by(&self) -> By {
        match self.by {
            Group::Syscall => By::Syscall,
            Group::Process => By::Process,
            Group::Thread => By::Thread,
        }
    }

    /// The number of the only system call to be counted.
    pub fn syscall(&self) -> Result<Option<u32>, Usage> {
        let Some(name) = &self.syscall else { return Ok(None) };
        names::syscall_number(name).map(Some).ok_or_else(|| {
            let near = names::similar_syscalls(name);
            let hint = if near.is_empty() {
                "see syscalls(2)".into()
            } else {
                format!("did you mean {}?", near.join(", "))
            };
            Usage(format!("no system call {name:?}: {hint}"))
        })
    }
}

/// A user's number, by name or number.
fn user(name: &str) -> Result<u32, Usage> {
    if let Ok(uid) = name.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(Usage(format!("no user {name:?}: getent passwd lists them"))),
    }
}

/// `16`: as bytes, of which the kernel wants a power of two.
fn mebibytes(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && n <= 1024 => Ok(n << 20),
        _ => Err("a power of two from 1 to 1024".into()),
    }
}

/// `5`, `0.5`
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 5 or 0.5".to_owned())?;
    // A year is as good as for ever, and no sum of two of them overflows.
    if !(0.0..=3.2e7).contains(&seconds) {
        return Err("seconds from 0 to a year".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// `10ms`, `500us`, `2s`
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err("a number with its unit: 10ms, 500us, 2s".into()),
    };
    match digits.parse::<f64>() {
        Ok(n) if (0.0..=3.2e7).contains(&(n * unit)) => Ok(Duration::from_secs_f64(n * unit)),
        _ => Err("a number with its unit: 10ms, 500us, 2s".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_have_sizes_that_the_kernel_takes() {
        assert_eq!(mebibytes("1"), Ok(1 << 20));
        assert_eq!(mebibytes("1024"), Ok(1 << 30));
        for bad in ["0", "3", "2048", "-1", "1.5", ""] {
            assert!(mebibytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(time("1.5us"), Ok(Duration::from_nanos(1500)));
        for bad in ["10", "ms", "-1s", "10m", "1e99s", "", "NaNs"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
