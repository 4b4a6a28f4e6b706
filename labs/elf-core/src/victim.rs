//! The victim: a small server that dies by choice, after it has told what a reader of its core should find.
//!
//! It writes one line of JSON to stdout, waits for a byte on stdin, and crashes. When stdin ends it exits: whoever
//! started it may be gone.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;

use kit::SysError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::sys;

/// How it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crash {
    /// Reads a field through a null pointer.
    Segv,
    /// Calls abort(3).
    Abort,
    /// Calls itself until the stack ends.
    StackOverflow,
    /// Divides an integer by zero.
    Div0,
    /// Two threads wait for each other until somebody kills them.
    DeadlockKill,
    /// Reads memory that it gave back.
    Uaf,
    /// Does not: it waits.
    Park,
}

impl Crash {
    /// All ways, with the name that the command line uses.
    pub const ALL: [(&'static str, Self); 7] = [
        ("segv", Self::Segv),
        ("abort", Self::Abort),
        ("stack-overflow", Self::StackOverflow),
        ("div0", Self::Div0),
        ("deadlock-kill", Self::DeadlockKill),
        ("uaf", Self::Uaf),
        ("park", Self::Park),
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, c)| *c == self).map_or("?", |(n, _)| n)
    }
}

impl std::str::FromStr for Crash {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(|(n, _)| n).join(", ");
        Self::ALL
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, c)| *c)
            .ok_or_else(|| format!("one of {}", names()))
    }
}

/// A thread's stack, unless it is to overflow.
const SMALL: usize = 256 << 10;

/// What the victim knows about itself: the oracle for what is read from its core.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Knowledge {
    /// Process id.
    pub pid: i32,
    /// All threads, main first.
    pub tids: Vec<i32>,
    /// The thread that will die; for `deadlock-kill` one of the two that wait.
    pub crasher: i32,
    /// Functions of that thread, innermost first.
    pub functions: Vec<String>,
    /// Where [`PATTERN`] is, on the heap.
    pub pattern_at: u64,
    /// The address that it will touch, where it is known beforehand.
    pub fault: Option<u64>,
    /// The signal that kills it.
    pub signal: i32,
}

/// A text that is in memory once, on the heap: half of it is put together at run time, so that the program's file has it not.
pub fn pattern() -> String {
    format!("{}{:#x}", "benchtop elf-core victim, pattern ", black_box(0xfeed_5eed_u64))
}

/// Runs the victim; returns when stdin ends.
///
/// # Errors
/// mmap(2)'s or stdin's.
pub fn run(crash: Crash, threads: usize) -> Result<(), SysError> {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        // Cores are off by default (soft limit 0) nearly everywhere. Refused: then there is none, and the reader says so.
        let _ = setrlimit(Resource::RLIMIT_CORE, hard, hard);
    }
    let page = sys::Page::new()?;
    let pattern = black_box(pattern().into_bytes());
    let (tell, told) = mpsc::channel();
    let start = Arc::new(Barrier::new(2));
    for _ in 0..threads {
        let tell = tell.clone();
        spawn("worker", SMALL, move || worker(&tell));
    }
    let mut tids: Vec<i32> = told.iter().take(threads).collect();
    let met = Arc::new(Barrier::new(3));
    let accounts = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(2)));
    if crash == Crash::DeadlockKill {
        let (a, b) = accounts.clone();
        for (name, from, to) in [("pay-ab", a.clone(), b.clone()), ("pay-ba", b, a)] {
            let (tell, met) = (tell.clone(), met.clone());
            spawn(name, SMALL, move || {
                report(&tell);
                transfer(&from, &to, &met);
            });
        }
    }
    if crash == Crash::DeadlockKill {
        tids.extend(told.iter().take(2));
        met.wait(); // each holds its lock now
    }
    let (at, ready) = (page.address(), start.clone());
    let mut page = Some(page);
    if crash == Crash::Uaf
        && let Some(page) = page.take()
    {
        page.free()?;
    }
    // Room for 100,000 frames, also of a debug build.
    let stack = if crash == Crash::StackOverflow { 32 << 20 } else { SMALL };
    let crasher = (crash != Crash::DeadlockKill && crash != Crash::Park).then(|| {
        let (tell, ready) = (tell.clone(), ready.clone());
        spawn("request", stack, move || {
            report(&tell);
            ready.wait();
            black_box(serve_request(crash, at));
        });
        told.recv().unwrap_or(0)
    });
    let functions: &[&str] = match crash {
        Crash::DeadlockKill => &["transfer"],
        Crash::Park => &["wait_for_work", "worker"],
        Crash::StackOverflow => &["walk_tree", "parse_order", "serve_request"],
        _ => &["read_price", "parse_order", "serve_request"],
    };
    let (fault, signal) = match crash {
        Crash::Segv => (Some(NULL_FIELD as u64), libc::SIGSEGV),
        Crash::Uaf => (Some(at as u64), libc::SIGSEGV),
        Crash::Div0 => (None, libc::SIGFPE),
        Crash::DeadlockKill => (None, libc::SIGQUIT),
        _ => (None, libc::SIGABRT), // Rust's handler of stack overflows ends in abort()
    };
    let pid = std::process::id() as i32;
    let crasher_tid = crasher.or(tids.last().copied()).unwrap_or(pid);
    let all = [pid].into_iter().chain(tids.iter().copied()).chain(crasher).collect();
    let knowledge = Knowledge {
        pid,
        tids: all,
        crasher: crasher_tid,
        functions: functions.iter().map(|f| (*f).to_owned()).collect(),
        pattern_at: pattern.as_ptr().addr() as u64,
        fault,
        signal,
    };
    say(&knowledge)?;
    let mut byte = [0];
    let mut stdin = std::io::stdin().lock();
    if crasher.is_some() && matches!(stdin.read(&mut byte), Ok(1)) {
        start.wait();
    }
    while matches!(stdin.read(&mut byte), Ok(1)) {}
    drop((pattern, page));
    Ok(())
}

fn say(knowledge: &Knowledge) -> Result<(), SysError> {
    let mut line = serde_json::to_string(knowledge).map_err(|e| SysError::new(e.to_string(), 0))?;
    line.push('\n');
    std::io::stdout().lock().write_all(line.as_bytes()).map_err(SysError::io("write(stdout)"))
}

fn spawn(name: &str, stack: usize, body: impl FnOnce() + Send + 'static) {
    // A machine that has no room for another thread shows fewer of them.
    let _ = thread::Builder::new().name(name.to_owned()).stack_size(stack).spawn(body);
}

fn report(tell: &mpsc::Sender<i32>) {
    // The receiver lives as long as main.
    let _ = tell.send(sys::gettid());
}

#[inline(never)]
fn worker(tell: &mpsc::Sender<i32>) {
    black_box(wait_for_work(black_box(3), tell));
}

/// Reports from its innermost call: whoever has the thread's id then finds all of these frames on its stack.
#[inline(never)]
fn wait_for_work(depth: u32, tell: &mpsc::Sender<i32>) -> u32 {
    if depth > 0 {
        return black_box(wait_for_work(depth - 1, tell)) + 1;
    }
    report(tell);
    loop {
        thread::park();
    }
}

/// A field at offset 16 of a structure that is not there.
const NULL_FIELD: usize = 16;

#[inline(never)]
fn serve_request(crash: Crash, page: usize) -> u64 {
    black_box(parse_order(black_box(crash), page)) + 1
}

#[inline(never)]
fn parse_order(crash: Crash, page: usize) -> u64 {
    match crash {
        Crash::StackOverflow => black_box(walk_tree(black_box(1))),
        _ => black_box(read_price(crash, page)) + 1,
    }
}

#[inline(never)]
fn read_price(crash: Crash, page: usize) -> u64 {
    match crash {
        Crash::Segv => u64::from(black_box(sys::read_byte(black_box(NULL_FIELD)))),
        Crash::Uaf => u64::from(black_box(sys::read_byte(black_box(page)))),
        Crash::Div0 => u64::from(black_box(sys::divide(1, black_box(0)))),
        _ => std::process::abort(),
    }
}

/// Never reaches a leaf. Each frame keeps a few words, so that there are not a million of them.
#[inline(never)]
#[allow(unconditional_recursion, reason = "that is the crash")]
fn walk_tree(node: u64) -> u64 {
    let path = black_box([node; 8]);
    black_box(walk_tree(black_box(path[7].wrapping_mul(2) | 1))) + 1
}

#[inline(never)]
fn transfer(from: &Mutex<i32>, to: &Mutex<i32>, met: &Barrier) {
    if let Ok(mut mine) = from.lock() {
        met.wait();
        // The other thread holds `to` and waits for `from`.
        if let Ok(mut theirs) = to.lock() {
            *theirs += *mine;
            *mine = 0;
        }
    }
}
