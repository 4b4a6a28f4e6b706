//! The default view: the race, the cure, and that nothing is left behind.

use std::path::Path;

use kit::{Lane, Lanes, Predict, Session, Span, Summary, Table, stats};
use pidfd_spawn::measure::{Contender, in_turn};
use pidfd_spawn::race::{self, Event, Happened, NUMBER, Race, Story};
use pidfd_spawn::tiny::Tiny;
use pidfd_spawn::wait::Mechanism;
use pidfd_spawn::ways::zygote::Zygote;
use pidfd_spawn::{leaks, spawn::Spawn};

pub fn tell(s: &mut Session) -> anyhow::Result<()> {
    the_race(s);
    the_ways(s)?;
    the_end(s)?;
    s.so(
        "a PID is a number that is given away again; a pidfd is the process, alive or not.",
        "--ways, --wait, --getfd, --supervise, --rss",
    );
    Ok(())
}

fn the_race(s: &mut Session) {
    s.step_at("Keep a number, and signal it too late", race::HERE);
    s.predict(Predict::new(
        &format!(
            "process {NUMBER} has ended and was reaped; another got the number. kill({NUMBER}, SIGTERM)?"
        ),
        ["ESRCH: that process is gone", "EPERM: it is not ours", "0: and the other one dies"],
        2,
        "kill looks the number up now. The kernel cannot know whom you meant then.",
    ));
    let race = match race::run() {
        Ok(race) => race,
        Err(e) => {
            s.missing(
                "the race",
                e.to_string(),
                "root, or unprivileged user namespaces (sysctl user.max_user_namespaces), on Linux 5.5 or later",
            );
            return;
        }
    };
    story(s, &race, Story::Pid);
    s.say(format!("kill said success, and **an innocent process died**. Arranged by {}.", race.how));
    s.step_at("Keep the handle instead", race::HERE);
    story(s, &race, Story::PidFd);
    s.say("The pidfd still means the first process: **ESRCH**, and the innocent lives.");
    lanes(s, &race);
    s.metric("race_us", "us", race.events.last().map_or(0.0, |e| e.at.as_secs_f64() * 1e6));
    s.check(
        "pid_kill_hit_innocent",
        race.pid_kill_hit_innocent(),
        "kill(pid) = 0, and the stranger with that number died of SIGTERM",
    );
    s.check(
        "pidfd_kill_refused",
        race.pidfd_kill_refused(),
        "pidfd_send_signal = ESRCH, and the stranger lived",
    );
}

/// The call, its result, and what it means.
fn words(e: &Event) -> [String; 3] {
    let by_pid = e.story == Story::Pid;
    let [call, result, means] = match e.happened {
        Happened::Created if by_pid => {
            ["clone3(set_tid)".into(), NUMBER.to_string(), "ours; we note the number".into()]
        }
        Happened::Created => ["clone3(…|PIDFD)".into(), "a pidfd".into(), "ours; we keep the handle".into()],
        Happened::Reaped if by_pid => {
            ["waitid(P_PID)".into(), "exit 0".into(), "reaped: the number is free".into()]
        }
        Happened::Reaped => ["waitid(P_PIDFD)".into(), "exit 0".into(), "reaped: the number is free".into()],
        Happened::InnocentCreated => {
            ["clone3(set_tid)".into(), NUMBER.to_string(), "a stranger gets it".into()]
        }
        Happened::Signalled(errno) => [
            if by_pid { format!("kill({NUMBER}, TERM)") } else { "pidfd_send_signal(TERM)".into() },
            if errno == 0 { "0".into() } else { kit::SysError::new("", errno).symbol() },
            if errno == 0 { "success, it says".into() } else { "no such process".into() },
        ],
        Happened::InnocentKilled(signal) => {
            ["waitid".into(), format!("signal {signal}"), "the stranger is dead".into()]
        }
        Happened::InnocentLives => ["-".into(), "alive".into(), "the stranger never knew".into()],
    };
    [call, result, means]
}

fn story(s: &mut Session, race: &Race, story: Story) {
    let mut table = Table::new(["us", "call", "result", ""]).right([0]);
    for e in race.events.iter().filter(|e| e.story == story) {
        let [call, result, means] = words(e);
        let cells = [format!("{:.0}", e.at.as_secs_f64() * 1e6), call, result, means];
        match e.happened {
            Happened::Signalled(_) => table = table.mark(cells),
            _ => table.push(cells),
        }
    }
    s.table(table);
}

fn lanes(s: &mut Session, race: &Race) {
    let lane = |name: &str, story: Story| {
        let at = |test: &dyn Fn(Happened) -> bool| {
            let e = race.events.iter().find(|e| e.story == story && test(e.happened));
            e.map_or(0.0, |e| e.at.as_secs_f64() * 1e6)
        };
        // Each story from its own begin, so that both can be compared.
        let begin = at(&|h| h == Happened::Created);
        let reaped = at(&|h| h == Happened::Reaped) - begin;
        let stranger = at(&|h| h == Happened::InnocentCreated) - begin;
        let signal = at(&|h| matches!(h, Happened::Signalled(_))) - begin;
        let end = at(&|h| matches!(h, Happened::InnocentKilled(_) | Happened::InnocentLives)) - begin;
        let (kind, label) =
            if story == Story::Pid { ("killed", "kill hits it") } else { ("lives", "ESRCH: it lives") };
        Lane {
            name: name.into(),
            spans: vec![
                Span::new(0.0, reaped, "ours", "ours"),
                Span::new(stranger, signal, "stranger", "a stranger"),
                Span::new(signal, end.max(signal), kind, label),
            ],
        }
    };
    let title = format!("who has number {NUMBER}");
    let mut both = Lanes::new(&title, "us");
    both.lanes = vec![lane("by PID", Story::Pid), lane("by pidfd", Story::PidFd)];
    s.lanes(both);
}

fn the_ways(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("Get the handle with the child", pidfd_spawn::ways::CLONE3);
    let zygote = Zygote::start().ok().map(std::sync::Arc::new);
    let tiny = Tiny::exit_0()?;
    let rounds = if s.quick() { 20 } else { 100 };
    let costs = in_turn(Contender::all(zygote.as_ref()), tiny.path(), rounds).map_err(anyhow::Error::msg)?;
    let mut table = Table::new(["way", "call returns, us", "child ended, us", "pidfd"]).right([1, 2]);
    for c in &costs {
        let (returned, ended) = (Summary::of(&c.returned_us), Summary::of(&c.ended_us));
        let key = c.who.key();
        s.metric_spread(&format!("return_{key}_us"), "us", returned);
        s.metric_spread(&format!("spawn_{key}_us"), "us", ended);
        let pidfd = match key {
            "clone3" | "zygote" => "with the child",
            "std" | "std_pre_exec" => "not on stable Rust",
            _ => "by pidfd_open, after",
        };
        let cells = [
            c.who.name().to_owned(),
            format!("{:.0}", returned.median),
            format!("{:.0}", ended.median),
            pidfd.into(),
        ];
        if key == "clone3" { table = table.mark(cells) } else { table.push(cells) }
    }
    s.table(table);
    let find = |key: &str| costs.iter().find(|c| c.who.key() == key);
    if let (Some(a), Some(b)) = (find("clone3"), find("std"))
        && let Some(r) = stats::Ratio::paired(&a.returned_us, &b.returned_us)
    {
        s.metric("return_clone3_to_std", "1", r.ratio);
        s.say(format!(
            "clone3 returns in **{:.2}** of std's time ({:.2} to {:.2}), with pidfd, and could join a cgroup in the same call.",
            r.ratio, r.low, r.high
        ));
    }
    Ok(())
}

fn the_end(s: &mut Session) -> anyhow::Result<()> {
    s.step_at("Leave nothing behind, let nothing through", pidfd_spawn::leaks::HERE);
    let spawns = if s.quick() { 10 } else { 50 };
    let leaked = leaks::leaked(spawns)?;
    let mut children = (0..100).map(|_| Spawn::new("/bin/true").spawn()).collect::<Result<Vec<_>, _>>()?;
    let tally = Mechanism::Epoll.wait_all(&mut children)?;
    let zombies = leaks::unreaped();
    s.say(format!(
        "**{leaked}** of {spawns} children saw a descriptor of another thread. {} of 100 children reaped by epoll in {} wake-ups; **{}** left.",
        tally.reaped, tally.wakeups, zombies.len()
    ));
    s.check("no_leaked_fds", leaked == 0, format!("{leaked} of {spawns} children saw one"));
    s.check("no_zombies", zombies.is_empty(), format!("{} of our children are not reaped", zombies.len()));
    Ok(())
}

/// This program, to run itself as another process.
pub fn program() -> anyhow::Result<std::path::PathBuf> {
    Ok(std::env::current_exe().unwrap_or_else(|_| Path::new("/proc/self/exe").into()))
}
