//! `--supervise`: services come and go; nothing is lost, doubled or left.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use kit::{Lane, Lanes, Session, Span, Table, cleanup};
use nix::sys::signal::Signal;
use pidfd_spawn::supervise::config::{self, Config, Restart};
use pidfd_spawn::supervise::event::{Event, What};
use pidfd_spawn::supervise::guard::{self, Guard};
use pidfd_spawn::supervise::soak;
use pidfd_spawn::{cgroup, leaks};

/// A bundled file, removed when done.
struct Bundled {
    path: PathBuf,
    _undo: cleanup::Deferred,
}

impl Bundled {
    fn new(text: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("pidfd-spawn-{}.toml", std::process::id()));
        let mut file = std::fs::File::options().write(true).create_new(true).open(&path)?;
        file.write_all(text.as_bytes())?;
        let gone = path.clone();
        let _undo = cleanup::defer("remove the bundled services", move || drop(std::fs::remove_file(gone)));
        Ok(Self { path, _undo })
    }
}

pub fn tell(s: &mut Session, file: Option<&Path>, soak: Option<usize>) -> anyhow::Result<()> {
    let bundled = match (file, soak) {
        (Some(_), _) => None,
        (None, None) => Some(Bundled::new(config::DEMO)?),
        (None, Some(_)) => Some(Bundled::new(&soak::services(20))?),
    };
    let path = file.or(bundled.as_ref().map(|b| b.path.as_path())).unwrap_or(Path::new(""));
    let config = Config::read(path).map_err(|e| kit::Usage(e.to_string()))?;
    let lasts =
        |c: &Config| c.run_for_ms.is_none() && c.services.iter().all(|s| s.restart == Restart::Always);
    if soak.is_some() && !lasts(&config) {
        let why = "--soak wants services that are always restarted: no run_for_ms, restart = \"always\"";
        return Err(kit::Usage(why.into()).into());
    }
    s.step_at("Start the services, in order", guard::HERE);
    let guard = Guard::start(&crate::show_race::program()?, path)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let _stop = stop_on_ctrl_c(&guard, Arc::clone(&interrupted))?;
    match &guard.no_cgroup {
        None => s.say("clone3 puts each service into its cgroup: whatever it forks stays in there."),
        Some(e) => s.missing(
            "cgroups",
            e.to_string(),
            "a writable cgroup v2; without it, leftovers are found when all stops",
        ),
    }
    let told = match soak {
        Some(kills) => killed(s, guard, &config, kills),
        None => watched(s, guard, &config),
    };
    if interrupted.load(Relaxed) {
        return Err(kit::Interrupted.into());
    }
    told?;
    let left = leaks::unreaped();
    s.check("no_zombies", left.is_empty(), format!("{} of our children are not reaped", left.len()));
    s.so(
        "supervise by handle and by cgroup: no number is ever looked up, no grandchild gets away.",
        "--supervise --soak 1000",
    );
    Ok(())
}

/// The guard's own drop does not run when a signal ends us, so the same again.
fn stop_on_ctrl_c(guard: &Guard, interrupted: Arc<AtomicBool>) -> anyhow::Result<cleanup::Deferred> {
    let handle = guard.supervisor().try_clone()?;
    let group = guard.cgroup_path().map(Path::to_owned);
    Ok(cleanup::defer("stop the supervisor", move || {
        interrupted.store(true, Relaxed);
        let _ = handle.signal(Signal::SIGTERM);
        if !handle.ended_within(Duration::from_secs(10)) {
            let _ = handle.signal(Signal::SIGKILL);
        }
        if let Some(path) = group {
            cgroup::remove(&path);
        }
    }))
}

fn watched(s: &mut Session, guard: Guard, config: &Config) -> anyhow::Result<()> {
    let mut events = Vec::new();
    let live = config.run_for_ms.is_none();
    while let Some((event, _)) = guard.next(None)? {
        if live {
            s.say(format!("{:8.1} ms  {}: {}", event.at_us as f64 / 1e3, name(&event), words(&event.what)));
        }
        events.push(event);
    }
    let swept = guard.finish()?;
    if !live {
        s.lanes(lanes(config, &events));
        let mut table = Table::new(["ms", "service", "what"]).right([0]);
        for e in &events {
            let cells = [format!("{:.0}", e.at_us as f64 / 1e3), name(e), words(&e.what)];
            let matters = matches!(e.what, What::LeftOver(_) | What::Forced | What::Adopted(_));
            if matters { table = table.mark(cells) } else { table.push(cells) }
        }
        s.step_at("What happened, as the supervisor told it", pidfd_spawn::supervise::supervisor::HERE);
        s.table(table);
    }
    s.metric("events", "1", events.len() as f64);
    s.check("nothing_left", swept == 0, format!("{swept} processes were left when the supervisor ended"));
    Ok(())
}

fn killed(s: &mut Session, guard: Guard, config: &Config, kills: usize) -> anyhow::Result<()> {
    s.step_at(format!("Kill {kills} of its processes at random"), soak::HERE);
    s.param("kills", kills);
    let progress = s.progress(kills as u64, "kills");
    let account =
        soak::run(guard, config.services.len(), kills, u64::from(std::process::id()), || progress.add(1))?;
    drop(progress);
    let table = Table::new(["", "processes"])
        .right([1])
        .row(["killed".to_owned(), account.kills.to_string()])
        .row(["began".to_owned(), account.started.to_string()])
        .row(["ended, as told".to_owned(), account.ended.to_string()])
        .row(["orphans adopted and reaped".to_owned(), account.adopted.to_string()])
        .mark([
            "lost, doubled, left".to_owned(),
            format!("{}, {}, {}", account.lost, account.doubled, account.left),
        ]);
    s.table(table);
    let seconds = account.took.as_secs_f64();
    s.say(format!("**{:.0} restarts a second**, and every process accounted for, by pidfds that the supervisor passed on.", kills as f64 / seconds));
    s.metric("kills", "1", account.kills as f64);
    s.metric("restarts_per_second", "1/s", kills as f64 / seconds);
    let balanced = account.started == account.ended && account.started == kills + config.services.len();
    s.check("soak_balanced", balanced, format!("{} began, {} ended", account.started, account.ended));
    s.check("soak_nothing_lost", account.lost == 0, format!("{} services without process", account.lost));
    s.check("soak_nothing_doubled", account.doubled == 0, format!("{} times two of one", account.doubled));
    s.check("nothing_left", account.left == 0, format!("{} processes were left", account.left));
    Ok(())
}

fn name(e: &Event) -> String {
    if e.service.is_empty() { "(supervisor)".into() } else { e.service.clone() }
}

fn words(what: &What) -> String {
    match what {
        What::Started { pid } => format!("began as {pid}"),
        What::Ready => "ready".into(),
        What::NotStarted(why) => why.lines().next().unwrap_or_default().into(),
        What::Ended(end) => format!("ended: {end}"),
        What::LeftOver(n) => format!("processes left behind: {n}; killed with the cgroup"),
        What::Backoff(ms) => format!("again in {ms} ms"),
        What::Stopping => "SIGTERM".into(),
        What::Forced => "did not stop in time: killed".into(),
        What::Down => "down".into(),
        What::Adopted(pid) => format!("adopted orphan {pid}, reaped"),
        What::Done(n) => format!("all is stopped; {n} swept up"),
    }
}

fn lanes(config: &Config, events: &[Event]) -> Lanes {
    let end = events.last().map_or(0.0, |e| e.at_us as f64 / 1e3);
    let lane = |service: &config::Service| {
        let mut spans: Vec<Span> = Vec::new();
        let mut begun: Option<(f64, &str)> = None;
        for e in events.iter().filter(|e| e.service == service.name) {
            let at = e.at_us as f64 / 1e3;
            let next = match &e.what {
                What::Started { .. } => Some("starting"),
                What::Ready => Some("up"),
                What::Backoff(_) => Some("pause"),
                What::Stopping => Some("stopping"),
                What::Ended(_) | What::Down => None,
                _ => continue,
            };
            if let Some((from, kind)) = begun.take() {
                spans.push(Span::new(from, at, kind, kind));
            }
            begun = next.map(|kind| (at, kind));
        }
        if let Some((from, kind)) = begun {
            spans.push(Span::new(from, end, kind, kind));
        }
        spans.retain(|span| span.kind != "starting" || span.to - span.from > 1.0);
        Lane { name: service.name.clone(), spans }
    };
    let mut all = Lanes::new("the services", "ms");
    all.lanes = config.services.iter().map(lane).collect();
    all
}
