//! Our clone3 against the other ways, std's `Command`, and for batches GNU parallel and xargs.
//!
//! One process carries 10 MiB, then 256 MiB, then 1 GiB of touched memory, and starts a static and a dynamic
//! `true`; contenders in turn within each round.

use std::cell::RefCell;
use std::io::{Error, Result, Write as _};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use benches::compare::{Asked, Comparison, Outcome, publish};
use benches::counts::{self, Counts};
use pidfd_spawn::measure::{Ballast, Contender, Runner, batch};
use pidfd_spawn::spawn::Spawn;
use pidfd_spawn::tiny::Tiny;
use pidfd_spawn::ways::Way;
use pidfd_spawn::ways::zygote::Zygote;

fn main() -> Result<()> {
    let asked = Asked::by_arguments();
    // Before the memory: a zygote is as big as its parent was.
    let zygote = Arc::new(Zygote::start().map_err(Error::other)?);
    let tiny = Tiny::exit_0().map_err(Error::other)?;
    let mut outcomes = Vec::new();
    let sizes = if asked.test { &[10][..] } else { &[10, 256, 1024] };
    for &mib in sizes {
        let ballast = Ballast::new(mib << 20).map_err(Error::other)?;
        for (kind, program) in [("static", tiny.path()), ("dynamic", "/bin/true")] {
            for ended in [false, true] {
                outcomes.push(cell(asked, &zygote, mib, kind, program, ended));
            }
        }
        drop(ballast);
    }
    drop(zygote);
    outcomes.push(batches(asked));
    let notes = [
        "Goals: time to return at most 0.95 of posix_spawn and 0.75 of std Command; flat in the parent's memory; the zygote at or below clone3 for 1 GiB.",
        "std and ours are prepared once and started often; our ways return a pidfd, std's Command does not.",
        "posix_spawn, vfork and fork include the pidfd_open that a handle costs there.",
        "Within a round, who comes after a fork pays for its write-protected pages: in a large parent the others look less flat than they are. `--rss` of the lab measures the forks apart.",
        "Counts are of parent and child together, until the child has ended; of the zygote, which is a process of its own, without what it does.",
    ];
    publish(asked, "pidfd-spawn", &outcomes, &notes)
}

/// One table: all contenders, one program, one parent.
fn cell(asked: Asked, zygote: &Arc<Zygote>, mib: usize, kind: &str, program: &str, ended: bool) -> Outcome {
    let what = if ended { "until the child has ended" } else { "until the call returns" };
    let mut comparison = Comparison::new(
        format!("{what}: {kind} true, parent of {mib} MiB"),
        "us",
        "to std, which resets less and gives no pidfd; to fork and vfork, which reset 64 handlers each by hand.",
    );
    let headline = kind == "dynamic" && mib != 256 && !ended;
    if headline {
        comparison = comparison.headline();
    }
    let mut who = Contender::all(Some(zygote));
    // Ours is the first.
    who.sort_by_key(|c| !matches!(c, Contender::Ours(Way::Clone3)));
    for contender in who {
        let runner = Rc::new(RefCell::new(contender.runner(program)));
        let counted = Rc::clone(&runner);
        comparison = comparison.contender(contender.name(), move || {
            let mut runner = runner.borrow_mut();
            let run = runner.as_mut().map_err(|e| e.clone())?;
            let (returned, end) = run()?;
            Ok(if ended { end } else { returned }.as_secs_f64() * 1e6)
        });
        if headline {
            comparison = comparison.counted(move || counts(&mut counted.borrow_mut()));
        }
    }
    comparison.run(asked, 60)
}

/// What this process and its children do for a child, from spawn to wait; of the zygote, which is a process of its
/// own, only what is asked of it.
fn counts(runner: &mut std::result::Result<Runner, String>) -> Counts {
    const SPAWNS: usize = 100;
    let Ok(run) = runner else { return Counts::new() };
    counts::of_process(std::process::id(), "spawn", || {
        (0..SPAWNS).try_for_each(|_| run().map(drop)).ok().map(|()| SPAWNS as f64)
    })
}

fn batches(asked: Asked) -> Outcome {
    let total = if asked.test { 20 } else { 1000 };
    let parallel = std::thread::available_parallelism().map_or(2, usize::from) * 2;
    let per_child = move |begin: Instant| begin.elapsed().as_secs_f64() * 1e6 / total as f64;
    let true_ = Spawn::new("/bin/true");
    Comparison::new(
        format!("{total} children, {parallel} at a time, /bin/true"),
        "us a child",
        "to GNU parallel, which collects each job's output; xargs starts one program a line, as asked.",
    )
    .contender("ours: clone3, epoll", move || {
        let begin = Instant::now();
        batch(&true_, total, parallel)?;
        Ok(per_child(begin))
    })
    .contender("xargs -P", move || {
        let begin = Instant::now();
        fed(Command::new("xargs").args(["-n", "1", "-P", &parallel.to_string(), "/bin/true"]), total)?;
        Ok(per_child(begin))
    })
    .contender("GNU parallel", move || {
        let begin = Instant::now();
        fed(Command::new("parallel").args(["--will-cite", "-j", &parallel.to_string(), "/bin/true"]), total)?;
        Ok(per_child(begin))
    })
    .run(asked, 11)
}

/// Runs a tool with `lines` numbered lines on its standard input.
fn fed(command: &mut Command, lines: usize) -> std::result::Result<(), String> {
    let name = command.get_program().display().to_string();
    let mut child = command.stdin(Stdio::piped()).spawn().map_err(|e| benches::peers::failed(&name, &e))?;
    let text: String = (0..lines).map(|i| format!("{i}\n")).collect();
    let wrote = child.stdin.take().map(|mut pipe| pipe.write_all(text.as_bytes()));
    let status = child.wait().map_err(|e| e.to_string())?;
    wrote.transpose().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
