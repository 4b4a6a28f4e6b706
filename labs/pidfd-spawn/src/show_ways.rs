//! `--ways`: every way of creating a process, what it can, what it says when it cannot.

use std::sync::Arc;

use kit::{Bars, Listing, Predict, Session, Summary, Table};
use nix::errno::Errno;
use pidfd_spawn::error::SpawnError;
use pidfd_spawn::measure::{Contender, in_turn};
use pidfd_spawn::spawn::Spawn;
use pidfd_spawn::tiny::Tiny;
use pidfd_spawn::ways::zygote::Zygote;
use pidfd_spawn::{evidence, leaks, ways};

pub fn tell(s: &mut Session) -> anyhow::Result<()> {
    let zygote = Arc::new(Zygote::start()?);
    speed(s, &zygote)?;
    abilities(s);
    errors(s);
    refused(s);
    ring(s);
    std_here(s)?;
    drop(zygote);
    let left = leaks::unreaped();
    s.check("no_zombies", left.is_empty(), format!("{} of our children are not reaped", left.len()));
    s.so("vfork's speed was always there; clone3 makes it safe, and hands out the pidfd.", "--rss, --wait");
    Ok(())
}

fn speed(s: &mut Session, zygote: &Arc<Zygote>) -> anyhow::Result<()> {
    s.step_at("Start the same program every way", ways::CLONE3);
    s.predict(Predict::new(
        "where does most of the time go, from the call to the end of `true`?",
        ["creating the process", "exec, dynamic linking and exit", "waiting"],
        1,
        "All ways but fork create in some tens of microseconds; the rest is the same for all.",
    ));
    let tiny = Tiny::exit_0()?;
    let rounds = if s.quick() { 20 } else { 100 };
    let mut ended = Vec::new();
    for (label, key, program) in [("static", "", tiny.path()), ("dynamic", "dynamic_", "/bin/true")] {
        let who = Contender::all(Some(zygote));
        let costs = in_turn(who, program, rounds).map_err(anyhow::Error::msg)?;
        let mut bars = Bars::new(&format!("{label} true: until the call returns"), "us");
        for c in &costs {
            let (r, e) = (Summary::of(&c.returned_us), Summary::of(&c.ended_us));
            s.metric_spread(&format!("return_{key}{}_us", c.who.key()), "us", r);
            s.metric_spread(&format!("spawn_{key}{}_us", c.who.key()), "us", e);
            bars = bars.bar(c.who.name(), r.median, format!("child ended at {:.0}", e.median));
            if c.who.key() == "clone3" {
                ended.push(e.median);
            }
        }
        s.bars(bars);
    }
    if let [fixed, dynamic] = ended[..] {
        s.say(format!(
            "By clone3, a static program is over after **{fixed:.0} us** and a dynamic one after **{dynamic:.0} us**: exec, the loader and exit are what is left.",
        ));
    }
    Ok(())
}

fn abilities(s: &mut Session) {
    s.step_at("What each way can do", ways::CLONE3);
    let table = Table::new(["way", "memory", "pidfd", "cgroup", "child's error", "ids"])
        .row(["fork", "copied", "after", "joins itself", "by a pipe", "yes"])
        .row(["vfork", "shared", "after", "joins itself", "in memory", "yes"])
        .row(["posix_spawn", "shared", "after", "glibc 2.39", "without the step", "no"])
        .mark(["clone3", "shared", "at once", "born in it", "in memory", "yes"])
        .row(["zygote", "its own", "by SCM_RIGHTS", "born in it", "in memory", "yes"]);
    s.table(table);
    s.say(
        "Between a bare PID and pidfd_open lies a gap. For a child not yet reaped it is harmless; in a process that ignores SIGCHLD it is the race again.",
    );
}

fn errors(s: &mut Session) {
    s.step_at("Hear exactly what went wrong in the child", pidfd_spawn::error::HERE);
    let before = leaks::unreaped(); // the zygote
    let long = "x".repeat(3 << 20);
    let mut told = Listing::new("");
    let cases: [(&str, Spawn<'_>); 7] = [
        ("no such program", Spawn::new("/no/such/program")),
        ("not executable", Spawn::new("/etc/passwd")),
        ("a directory", Spawn::new("/")),
        ("no such directory to start in", Spawn::new("true").cwd("/no/such/dir")),
        ("arguments too long", Spawn::new("true").arg(long)),
        ("a descriptor that cannot be", Spawn::new("true").fd(1 << 30, &STDOUT)),
        ("another session's group", Spawn::new("true").group(1)),
    ];
    let count = cases.len();
    for (what, spawn) in cases {
        told = told.line(what, "");
        let text = match spawn.spawn() {
            Ok(_) => "started after all".into(),
            Err(e) => first_line(&e),
        };
        told = told.line(format!("    {text}"), "");
    }
    s.listing(told);
    let new: Vec<i32> = leaks::unreaped().into_iter().filter(|pid| !before.contains(pid)).collect();
    s.check(
        "errors_leave_nothing",
        new.is_empty(),
        format!("{count} failed spawns left {} children", new.len()),
    );
}

/// Our own standard output, to be mapped where it cannot go.
static STDOUT: Stdout = Stdout;
struct Stdout;
impl std::os::fd::AsFd for Stdout {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::sync::OnceLock;
        static OUT: OnceLock<std::io::Stdout> = OnceLock::new();
        OUT.get_or_init(std::io::stdout).as_fd()
    }
}

fn first_line(e: &SpawnError) -> String {
    e.to_string().lines().next().unwrap_or_default().to_owned()
}

fn refused(s: &mut Session) {
    s.step_at("Where clone3 is forbidden", pidfd_spawn::spawn::FALL_BACK);
    for errno in [Errno::ENOSYS, Errno::EPERM] {
        // A filter binds the thread that installs it for good: so a thread of its own.
        let told = std::thread::spawn(move || {
            evidence::refuse_clone3(errno as i32).map_err(|e| e.to_string())?;
            let child = Spawn::new("true").spawn().map_err(|e| e.to_string())?;
            Ok::<_, String>((child.way(), child.fell_back().len()))
        })
        .join()
        .unwrap_or_else(|_| Err("the thread ended".into()));
        match told {
            Ok((way, tried)) => {
                s.say(format!(
                    "A seccomp filter answers clone3 with {errno:?}: refusals {tried}, then **{way}** did it, and says so."
                ));
            }
            Err(e) => s.missing("a refused clone3", e, "seccomp filters"),
        }
    }
}

fn ring(s: &mut Session) {
    s.step_at("What io_uring can do about processes", evidence::HERE);
    match evidence::ring_support() {
        Ok(ring) => {
            let yes = |b: bool| if b { "yes" } else { "no" };
            let table = Table::new(["operation", "here", "evidence"])
                .row(["wait (WAITID)".to_owned(), yes(ring.waitid).into(), "IORING_REGISTER_PROBE".into()])
                .row([
                    "create, exec".to_owned(),
                    "no".into(),
                    format!("the {} operations end at number {}: none creates", ring.known, ring.next - 1),
                ]);
            s.table(table);
            s.say("Spawning in the ring was proposed (Triplett, 2022; Krisman Bertazi, 2024) and is **not merged**: a zygote does today what it was meant for.");
        }
        Err(e) => s.missing("io_uring's part", e.to_string(), "sysctl kernel.io_uring_disabled=0"),
    }
}

fn std_here(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("What Rust's std does here", evidence::HERE);
    let program = crate::show_race::program()?;
    for (pre_exec, title) in [(false, "Command::status"), (true, "the same with a pre_exec closure")] {
        match evidence::trace_std(&program, pre_exec) {
            Ok(trace) => {
                let mut list = Listing::new(title);
                for call in &trace.calls {
                    let short: String = call.trim_end_matches(", ").chars().take(72).collect();
                    let cut = if short.len() < call.len() { " …" } else { "" };
                    list = list.line(short + cut, "");
                }
                s.listing(list);
                s.say(format!(
                    "{}.",
                    if trace.pidfd { "With a pidfd" } else { "**No pidfd**: it keeps the number" }
                ));
                s.metric(
                    &format!("std_{}pidfd", if pre_exec { "pre_exec_" } else { "" }),
                    "1",
                    f64::from(trace.pidfd),
                );
            }
            Err(e) => {
                s.missing("std's system calls", e.to_string(), "install strace");
                break;
            }
        }
    }
    Ok(())
}
