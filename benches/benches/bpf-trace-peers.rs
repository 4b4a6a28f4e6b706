//! What a traced system call costs: our view `syscalls` against an empty program, bpftrace, perf and strace; how
//! long each takes until it traces; how many events a second each brings into a file.
//!
//! What is traced is `dd bs=1`, two calls a byte, alone on one CPU under a real-time policy where that is
//! permitted: dd's own report then does not depend on what else runs.

#[path = "../shared/scratch.rs"]
mod scratch;
#[path = "../shared/watcher.rs"]
mod watcher;

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use benches::compare::{Asked, Comparison, Outcome, Sample, publish};
use benches::peers;
use bpf_trace::s1_by_hand::{self, Counter};
use bpf_trace::sys::bpf::{self, Code};
use scratch::Scratch;
use watcher::Watcher;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, child, calls] = args.as_slice()
        && child == "--opens"
    {
        opens(calls.parse().unwrap_or(0));
        return ExitCode::SUCCESS;
    }
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "bpf-trace-peers: {e}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<()> {
    let asked = Asked::by_arguments();
    let ours = peers::lab("bpf-trace")?;
    let dd = Dd::new(if asked.test { 500 } else { 100_000 });
    let outcomes =
        [counting(asked, &ours, &dd), latency(asked, &ours, &dd), start(asked, &ours), stream(asked, &ours)?];
    publish(asked, "bpf-trace", &outcomes, &NOTES).map_err(|e| e.to_string())
}

const NOTES: [&str; 5] = [
    "cost: wall time of dd's calls by its own report, divided by the calls: 200,000 of them, 10,000 under strace and \
     perf trace; a tracer that starts dd is held by the same report",
    "goals: counting by process and call at or below 1.15 of untraced, latency histograms at or below 1.30, tracing \
     within 150 ms of launch",
    "the floor is the row with an empty program: the kernel's own work at a tracepoint (all registers saved for \
     it, the slow way out of the system call), which no program can go below",
    "goal for the event stream: a million a second into a file, or the loss stated: it stands beside the cost",
    "our programs' first quarter second, in which the kernel times them, is over before dd starts",
];

const UNFAIR: &str = "bpftrace and perf stat count less: no process, no call, no errors, unless the row says so; perf \
                      trace and strace write down each call's arguments and then only count; strace and perf trace \
                      trace dd alone, the others all processes";

fn counting(asked: Asked, ours: &Path, dd: &Dd) -> Outcome {
    let comparison = Comparison::new("a traced call: counts by process, call and error", "ns a call", UNFAIR)
        .contender("bpf-trace syscalls", || Watcher::bpf_trace(ours, &[]).and_then(|_on| dd.run(&[], 1)))
        .contender("untraced", || dd.run(&[], 1))
        .contender("an empty program at sys_exit", || empty(c"sys_exit").and_then(|_on| dd.run(&[], 1)))
        .contender("an empty program at sys_enter", || empty(c"sys_enter").and_then(|_on| dd.run(&[], 1)))
        .contender("one counter for all, by hand", || {
            let _on = Counter::start().map_err(|e| e.to_string())?;
            dd.run(&[], 1)
        })
        .contender("bpftrace: one count for all", || {
            Watcher::bpftrace("tracepoint:raw_syscalls:sys_enter { @ = count(); }")
                .and_then(|_on| dd.run(&[], 1))
        })
        .contender("bpftrace: a count for each comm", || {
            Watcher::bpftrace("tracepoint:raw_syscalls:sys_enter { @[comm] = count(); }")
                .and_then(|_on| dd.run(&[], 1))
        })
        .contender("perf stat -a -e raw_syscalls:sys_enter", || {
            dd.run(&["perf", "stat", "-a", "-e", "raw_syscalls:sys_enter", "-o", "/dev/null", "--"], 1)
        })
        .contender("perf trace -s", || dd.run(&["perf", "trace", "-s", "-o", "/dev/null", "--"], 20))
        .contender("strace -c", || dd.run(&["strace", "-c", "-o", "/dev/null", "--"], 20));
    dd.steadied(comparison.against("untraced").headline()).run(asked, 15)
}

fn latency(asked: Asked, ours: &Path, dd: &Dd) -> Outcome {
    const SCRIPT: &str = "tracepoint:raw_syscalls:sys_enter { @begun[tid] = nsecs; } \
                          tracepoint:raw_syscalls:sys_exit /@begun[tid]/ { @ns[pid, args->id] = hist(nsecs - @begun[tid]); }";
    let comparison = Comparison::new(
        "a traced call: a latency histogram for each process and call",
        "ns a call",
        "bpftrace keeps one bucket to a power of two, we keep four, the sum and the errors; both trace all processes",
    )
    .contender("bpf-trace syscalls --latency", || {
        Watcher::bpf_trace(ours, &["--latency"]).and_then(|_on| dd.run(&[], 1))
    })
    .contender("untraced", || dd.run(&[], 1))
    .contender("empty programs at sys_enter and sys_exit", || {
        let _on = (empty(c"sys_enter")?, empty(c"sys_exit")?);
        dd.run(&[], 1)
    })
    .contender("bpftrace: hist by pid and call", || Watcher::bpftrace(SCRIPT).and_then(|_on| dd.run(&[], 1)));
    dd.steadied(comparison.against("untraced").headline()).run(asked, 15)
}

fn start(asked: Asked, ours: &Path) -> Outcome {
    let ms = |begin: Instant| begin.elapsed().as_secs_f64() * 1e3;
    Comparison::new(
        "from launch until it says that it is attached",
        "ms",
        "bpftrace compiles its program from text, ours comes compiled",
    )
    .contender("bpf-trace syscalls", || {
        let begin = Instant::now();
        Watcher::launch(Command::new(ours).args(["syscalls", "--duration", "0"]), "Attached")
            .map(|_on| ms(begin))
    })
    .contender("bpf-trace syscalls --latency", || {
        let begin = Instant::now();
        let mut command = Command::new(ours);
        Watcher::launch(command.args(["syscalls", "--latency", "--duration", "0"]), "Attached")
            .map(|_on| ms(begin))
    })
    .contender("bpftrace: one count for all", || {
        let begin = Instant::now();
        Watcher::bpftrace("tracepoint:raw_syscalls:sys_enter { @ = count(); }").map(|_on| ms(begin))
    })
    .run(asked, 20)
}

/// A file that nobody has: what is opened for the event stream.
const NO_FILE: &str = "/benchtop-no-such-file";

/// Opens it so often, as fast as it can, and says how many nanoseconds that took.
fn opens(calls: u32) {
    let begin = Instant::now();
    for _ in 0..calls {
        std::hint::black_box(std::fs::File::open(NO_FILE).is_ok());
    }
    let _ = writeln!(io::stderr(), "took {}", begin.elapsed().as_nanos());
}

fn stream(asked: Asked, ours: &Path) -> Result<Outcome> {
    let calls = if asked.test { 1000 } else { 100_000 };
    let dir = Scratch::new("bpf-trace-peers").map_err(|e| e.to_string())?;
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let stream = Stream { file: dir.path.join("events"), me };
    const SCRIPT: &str = "tracepoint:syscalls:sys_enter_openat \
                          { printf(\"%d %d %s %s\\n\", nsecs, pid, comm, str(args->filename)); }";
    let outcome = Comparison::new(
        "an open that fails, written into a file as one event",
        "ns an event that arrived",
        "time of the program that is traced, divided by the events that are in the file, so what is lost makes the \
         others dearer; ours has the result, flags and a JSON object for each, bpftrace four words without the \
         result; strace stops the program at each call and loses none; a burst is 100,000 events for us, \
         10,000 for bpftrace and 2,000 for strace, so that rounds end in reasonable time: bpftrace's may fit into \
         its buffers as a whole, and its rate and loss then look better than a longer burst's would",
    )
    .headline()
    .contender("bpf-trace open --json", || {
        let words = [&*ours.to_string_lossy(), "open", "--json", "--"].map(str::to_owned);
        stream.under(&words, calls)
    })
    .contender("bpftrace: printf", || {
        let on = Watcher::bpftrace_into(SCRIPT, &stream.file)?;
        // It formats text for each, and would be busy with a longer row of them for minutes.
        let took = stream.run(&mut Command::new(&stream.me), calls / 10)?;
        // A signal would end it with events unread.
        stream.settle();
        drop(on);
        stream.sample(took, calls / 10)
    })
    .contender("strace -e openat", || {
        let file = stream.file.to_string_lossy();
        stream.under(&["strace", "-e", "trace=openat", "-o", &*file].map(str::to_owned), calls / 50)
    })
    .run(asked, 15);
    Ok(outcome)
}

/// A program that opens files, and the file that its events go to.
struct Stream {
    file: PathBuf,
    me: PathBuf,
}

impl Stream {
    /// Under a tracer that starts it and writes events to its standard output, or by itself to the file.
    fn under(&self, tracer: &[String], calls: u32) -> Result<Sample> {
        let mut command = Command::new(&tracer[0]);
        command.args(&tracer[1..]).arg(&self.me);
        if !tracer.iter().any(|word| word == "-o") {
            command.stdout(std::fs::File::create(&self.file).map_err(|e| e.to_string())?);
        }
        let took = self.run(&mut command, calls)?;
        self.sample(took, calls)
    }

    /// Runs it; the nanoseconds that its calls took by its own word.
    fn run(&self, command: &mut Command, calls: u32) -> Result<f64> {
        let name = command.get_program().display().to_string();
        command.args(["--opens", &calls.to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| peers::failed(&name, &e))?;
        let out = child.wait_with_output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&out.stderr);
        let took = said.lines().find_map(|line| line.strip_prefix("took ")?.parse().ok());
        took.ok_or_else(|| format!("{name} said: {}", said.lines().last().unwrap_or("nothing")))
    }

    /// Waits until the file has not grown for a while.
    fn settle(&self) {
        let size = || std::fs::metadata(&self.file).map_or(0, |m| m.len());
        let mut last = size();
        loop {
            std::thread::sleep(Duration::from_millis(250));
            match size() {
                now if now == last => return,
                now => last = now,
            }
        }
    }

    /// The cost of an event that arrived, and how many did.
    fn sample(&self, took: f64, calls: u32) -> Result<Sample> {
        let file = std::fs::File::open(&self.file).map_err(|e| e.to_string())?;
        let lines = BufReader::new(file).split(b'\n').map_while(io::Result::ok);
        let arrived = lines.filter(|l| l.windows(NO_FILE.len()).any(|w| w == NO_FILE.as_bytes())).count();
        let arrived = (arrived as f64).min(f64::from(calls));
        if arrived == 0.0 {
            return Err("no event arrived".into());
        }
        let lost = 100.0 * (1.0 - arrived / f64::from(calls));
        let rate = arrived * 1e9 / took;
        Ok(Sample { cost: took / arrived, counts: vec![("events/s", rate), ("% lost", lost)] })
    }
}

/// A program that only returns, attached as long as this is kept.
fn empty(hook: &std::ffi::CStr) -> Result<(OwnedFd, OwnedFd)> {
    let code = [s1_by_hand::insn(0xb7, 0, 0, 0, 0), s1_by_hand::insn(0x95, 0, 0, 0, 0)];
    let program = bpf::prog_load(Code::raw_tp(&code), 0).program.map_err(|e| e.to_string())?;
    let link = bpf::attach(program.as_fd(), Some(hook)).map_err(|e| e.to_string())?;
    Ok((program, link))
}

/// `dd bs=1`, and where it runs.
struct Dd {
    /// The words before the tracer: a policy that nobody interrupts, where it is permitted.
    policy: Vec<String>,
    /// The words before `dd`: its CPU. A tracer that starts it may run beside it.
    place: Vec<String>,
    bytes: u32,
}

impl Dd {
    fn new(bytes: u32) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let pinned = ["taskset", "-c", &(cpus - 1).to_string()].map(str::to_owned);
        let first = ["chrt", "-f", "50"].map(str::to_owned);
        let works = |words: &[String]| {
            Command::new(&words[0])
                .args(&words[1..])
                .arg("true")
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        };
        let if_works = |words: &[String]| if works(words) { words.to_vec() } else { Vec::new() };
        Self { policy: if_works(&first), place: if_works(&pinned), bytes }
    }

    /// Says that other processes do not touch the costs, if that is so.
    fn steadied<'a>(&self, comparison: Comparison<'a>) -> Comparison<'a> {
        if self.policy.is_empty() || self.place.is_empty() {
            return comparison;
        }
        comparison.apart("dd runs under SCHED_FIFO, pinned to a CPU; caches and memory are shared")
    }

    /// Nanoseconds a call, by dd's own report; `under` is a tracer that starts it, `slow` how many times fewer
    /// calls are made.
    fn run(&self, under: &[&str], slow: u32) -> Result<f64> {
        if let Some(tracer) = under.first()
            && peers::find(tracer).is_none()
        {
            return Err(peers::failed(tracer, &io::ErrorKind::NotFound.into()));
        }
        let bytes = (self.bytes / slow).max(1);
        let count = format!("count={bytes}");
        let words: Vec<&str> = (self.policy.iter().map(String::as_str))
            .chain(under.iter().copied())
            .chain(self.place.iter().map(String::as_str))
            .chain(["dd", "if=/dev/zero", "of=/dev/null", "bs=1", &count])
            .collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
        let output = command.output().map_err(|e| peers::failed(words[0], &e))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let seconds = said
            .lines()
            .find_map(|line| line.split_once("copied, ")?.1.split(' ').next()?.parse::<f64>().ok());
        seconds.map(|s| s * 1e9 / f64::from(2 * bytes)).ok_or_else(|| {
            let last = said.lines().last().unwrap_or("nothing").to_owned();
            format!("{} said: {last}", under.first().unwrap_or(&"dd"))
        })
    }
}
