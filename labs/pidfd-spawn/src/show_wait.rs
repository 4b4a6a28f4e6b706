//! `--wait`: a thousand children in one loop, and what else a pidfd can do.

use std::time::Instant;

use kit::{Predict, Session, Table};
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use pidfd_spawn::pidfd::{PidFd, signal_self, signal_self_thread};
use pidfd_spawn::process::Child;
use pidfd_spawn::spawn::Spawn;
use pidfd_spawn::tiny::Tiny;
use pidfd_spawn::wait::{self, Mechanism};
use pidfd_spawn::{leaks, pidfd};

pub fn tell(s: &mut Session) -> anyhow::Result<()> {
    thousand(s)?;
    exits(s)?;
    afterwards(s)?;
    more(s)?;
    let left = leaks::unreaped();
    s.check("no_zombies", left.is_empty(), format!("{} of our children are not reaped", left.len()));
    s.so(
        "a process that is a descriptor needs no SIGCHLD, no handler and no thread of its own.",
        "--getfd, --supervise",
    );
    Ok(())
}

fn thousand(s: &mut Session) -> anyhow::Result<()> {
    // Each child is a descriptor here.
    let room = getrlimit(Resource::RLIMIT_NOFILE).map_or(1000, |(soft, _)| soft.saturating_sub(64) as usize);
    let count = room.max(1).min(if s.quick() { 100 } else { 1000 });
    s.param("children", count);
    s.step_at(format!("Wait for {count} children in one loop"), wait::HERE);
    s.predict(Predict::new(
        "all end at about the same time. Which loop makes the fewest system calls?",
        ["poll", "epoll", "io_uring POLL_ADD", "io_uring WAITID"],
        3,
        "WAITID waits and reaps in one operation, and hundreds of operations go in by one call.",
    ));
    let program = Tiny::until_eof()?;
    let mut table = Table::new(["loop", "reaped", "system calls", "wake-ups", "ms"]).right([1, 2, 3, 4]);
    for mechanism in Mechanism::ALL {
        // They end when the pipe on their standard input closes: all at once, or with us.
        let (gate, hold) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let spawn = Spawn::new(program.path()).fd(0, &gate);
        let mut children = (0..count).map(|_| spawn.spawn()).collect::<Result<Vec<Child>, _>>()?;
        drop(hold);
        let begin = Instant::now();
        match mechanism.wait_all(&mut children) {
            Ok(tally) => {
                let ms = begin.elapsed().as_secs_f64() * 1e3;
                let key = mechanism.key();
                s.metric(&format!("wait_{key}_calls"), "1", tally.calls as f64);
                s.metric(&format!("wait_{key}_ms"), "ms", ms);
                let cells = [
                    mechanism.name().to_owned(),
                    tally.reaped.to_string(),
                    tally.calls.to_string(),
                    tally.wakeups.to_string(),
                    format!("{ms:.1}"),
                ];
                if mechanism == Mechanism::UringWaitid {
                    table = table.mark(cells)
                } else {
                    table.push(cells)
                }
                s.check(
                    &format!("all_reaped_{key}"),
                    tally.reaped == count,
                    format!("{} of {count}", tally.reaped),
                );
            }
            Err(e) => s.missing(mechanism.name(), e.to_string(), "io_uring, Linux 5.1 (WAITID: 6.7)"),
        }
    }
    s.table(table);
    s.say(format!("The time is that of {count} exits; the calls are what the loop costs you."));
    Ok(())
}

fn exits(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("Ask how it ended", pidfd::HERE);
    let mut table = Table::new(["program", "end", "user", "system", "peak KiB"]).right([2, 3, 4]);
    let script = |text: &str| Spawn::new("sh").arg("-c").arg(text);
    for (what, spawn) in [
        ("exit 3", script("exit 3")),
        ("a loop, then exit", script("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")),
        ("kill -TERM itself", script("kill -TERM $$")),
        ("abort, no core allowed", script("ulimit -c 0; kill -ABRT $$")),
    ] {
        let exit = spawn.spawn()?.wait()?;
        table.push([
            what.to_owned(),
            exit.end.to_string(),
            format!("{:.1} ms", exit.user.as_secs_f64() * 1e3),
            format!("{:.1} ms", exit.system.as_secs_f64() * 1e3),
            exit.max_rss_kib.to_string(),
        ]);
    }
    s.table(table);
    s.say("waitid has a fifth argument that libc hides: with it, one call reaps and accounts.");
    s.say("The peak may be ours: a child that shares our memory until exec takes our peak over.");
    Ok(())
}

fn afterwards(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("Ask again after it was reaped", pidfd::HERE);
    let mut child = Spawn::new("sh").args(["-c", "exit 42"]).spawn()?;
    child.wait()?;
    let again = child.pidfd().wait().map_or_else(|e| e.symbol(), |e| e.end.to_string());
    match child.pidfd().info() {
        Ok(info) => {
            let end = info.end.map_or("nothing".into(), |e| e.to_string());
            s.say(format!("waitid now says {again}. PIDFD_GET_INFO on the same pidfd says **{end}**: the handle outlives the zombie."));
            s.check("info_after_reaping", end == "exit 42", end);
        }
        Err(e) => s.missing("PIDFD_GET_INFO", e.to_string(), "Linux 6.13; for the exit code 6.15"),
    }
    Ok(())
}

fn more(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("What else a pidfd can do", pidfd::HERE);
    let mut table = Table::new(["feature", "here"]);
    let child = Spawn::new("sleep").arg("1000").parent_death(Signal::SIGKILL).spawn()?;
    let other = Spawn::new("sleep").arg("1000").parent_death(Signal::SIGKILL).spawn()?;
    let again = PidFd::open(child.pid(), 0)?;
    let (a, b, c) = (child.pidfd().inode()?, again.inode()?, other.pidfd().inode()?);
    let identity = if a == b && a != c {
        format!("{a}, {b} for one process, {c} for another")
    } else {
        "no: one inode for all, before Linux 6.9".into()
    };
    table.push(["inode as identity".to_owned(), identity]);
    table.push([
        "PIDFD_SELF".to_owned(),
        told(signal_self(None).and(signal_self_thread(None)).map(|()| "signals without opening".into())),
    ]);
    let thread = std::thread::scope(|scope| {
        let (tell, tid) = std::sync::mpsc::channel();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let _ = tell.send(nix::unistd::gettid().as_raw());
            let _ = held.recv();
        });
        let opened = PidFd::open_thread(tid.recv().unwrap_or(0));
        drop(hold);
        opened.map(|_| "a pidfd for one thread".to_owned())
    });
    table.push(["PIDFD_THREAD".to_owned(), told(thread)]);
    let heap = first_mapping(child.pid());
    let cold = heap.map_or_else(
        || Err(kit::SysError::new("no mapping found", 0)),
        |(at, len)| child.pidfd().advise_cold(at, len),
    );
    table.push([
        "process_madvise".to_owned(),
        told(cold.map(|n| format!("{n} bytes of the child marked cold"))),
    ]);
    child.signal(Signal::SIGKILL)?;
    let freed = match child.pidfd().release_memory() {
        Err(e) if e.symbol() == "ESRCH" => Ok("its memory was gone already".to_owned()),
        done => done.map(|()| "memory freed before it was reaped".to_owned()),
    };
    table.push(["process_mrelease".to_owned(), told(freed)]);
    s.table(table);
    Ok(())
}

fn told(r: Result<String, kit::SysError>) -> String {
    r.unwrap_or_else(|e| format!("no: {}", e.symbol()))
}

/// A writable private mapping of process `pid`: address and length.
fn first_mapping(pid: i32) -> Option<(u64, u64)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let line = maps.lines().find(|l| l.contains(" rw-p ") && !l.contains("[v"))?;
    let (from, rest) = line.split_once('-')?;
    let from = u64::from_str_radix(from, 16).ok()?;
    let to = u64::from_str_radix(rest.split_once(' ')?.0, 16).ok()?;
    Some((from, to - from))
}
