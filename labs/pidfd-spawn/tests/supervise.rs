//! The supervisor: a test program with one test, for the guard takes all children of its process as its own.
#![cfg(target_arch = "x86_64")]

use std::path::Path;
use std::time::{Duration, Instant};

use kit::testing::watchdog;
use nix::sys::signal::Signal;
use pidfd_spawn::supervise::event::What;
use pidfd_spawn::supervise::guard::Guard;
use pidfd_spawn::supervise::{config, soak};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pidfd-spawn");

fn file(dir: &tempfile::TempDir, text: &str) -> std::path::PathBuf {
    let path = dir.path().join("services.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// All events, with a stop as soon as `enough` of them are there.
fn events(guard: &Guard, enough: impl Fn(&[(String, What)]) -> bool) -> Vec<(String, What)> {
    let mut all = Vec::new();
    let mut stopped = false;
    while let Some((e, _)) = guard.next(Some(Instant::now() + Duration::from_secs(120))).unwrap() {
        all.push((e.service, e.what));
        if !stopped && enough(&all) {
            guard.stop().unwrap();
            stopped = true;
        }
    }
    all
}

fn demo_shows_every_kind_of_trouble(dir: &tempfile::TempDir) {
    // As long as it takes, however slow the machine is.
    let text = config::DEMO.replace("run_for_ms", "# run_for_ms");
    let guard = Guard::start(Path::new(PROGRAM), &file(dir, &text)).unwrap();
    let cgroup = guard.no_cgroup.is_none();
    let all = events(&guard, |all| {
        let told = |name: &str, what: What| all.iter().any(|e| e.0 == name && e.1 == what);
        told("crasher", What::Backoff(200)) && told("stubborn", What::Ready) && told("daemoniser", What::Down)
    });
    assert_eq!(guard.finish().unwrap(), 0, "{all:?}");
    let of = |name: &str| all.iter().filter(|e| e.0 == name).map(|e| e.1.clone()).collect::<Vec<_>>();
    // The one after starts only when the database is ready.
    let at = |name: &str, test: &dyn Fn(&What) -> bool| all.iter().position(|e| e.0 == name && test(&e.1));
    let started = |w: &What| matches!(w, What::Started { .. });
    assert!(at("database", &|w| *w == What::Ready) < at("crasher", &started), "{all:?}");
    let pauses: Vec<u64> = of("crasher")
        .iter()
        .filter_map(|w| if let What::Backoff(ms) = w { Some(*ms) } else { None })
        .collect();
    assert!(pauses.starts_with(&[100, 200]), "{all:?}");
    if cgroup {
        assert!(of("daemoniser").contains(&What::LeftOver(1)), "{all:?}");
    }
    assert!(of("daemoniser").contains(&What::Down));
    assert!(of("stubborn").contains(&What::Forced), "{all:?}");
    assert!(at("stubborn", &|w| *w == What::Down) < at("database", &|w| *w == What::Stopping), "{all:?}");
    assert!(matches!(all.last(), Some((_, What::Done(_)))), "{all:?}");
}

fn a_service_that_cannot_start_is_told_and_tried_again(dir: &tempfile::TempDir) {
    let text = "[[service]]\nname = 'a'\nrun = ['/no/such']\nbackoff_ms = 10";
    let guard = Guard::start(Path::new(PROGRAM), &file(dir, text)).unwrap();
    let failed = |e: &&(String, What)| matches!(&e.1, What::NotStarted(w) if w.contains("ENOENT"));
    let all = events(&guard, |all| all.iter().filter(failed).count() == 2);
    guard.finish().unwrap();
    assert!(all.iter().filter(failed).count() >= 2, "{all:?}");
}

/// Its descriptor closes before it has ended: that is not "ready", and the next one does not start.
fn a_service_that_dies_before_it_is_ready_was_not_ready(dir: &tempfile::TempDir) {
    let text = "[[service]]\nname = 'a'\nrun = ['false']\nready_fd = 4\nbackoff_ms = 5\nbackoff_max_ms = 5\n
        [[service]]\nname = 'b'\nrun = ['sleep', '1000']";
    let guard = Guard::start(Path::new(PROGRAM), &file(dir, text)).unwrap();
    let all = events(&guard, |all| all.iter().filter(|e| matches!(e.1, What::Ended(_))).count() == 20);
    guard.finish().unwrap();
    assert!(all.iter().all(|e| e.1 != What::Ready), "{all:?}");
    assert!(all.iter().all(|e| e.0 != "b" || e.1 == What::Down), "{all:?}");
}

/// The first one is never ready again after its first time; the second one is restarted all the same.
fn a_restart_does_not_wait_for_the_ones_before(dir: &tempfile::TempDir) {
    let flag = dir.path().join("flag");
    let once = format!("test -e {0} && exec sleep 1000; : >{0}; echo up >&4; sleep 0.05", flag.display());
    let text = format!(
        "[[service]]\nname = 'a'\nrun = ['sh', '-c', '{once}']\nready_fd = 4\nbackoff_ms = 5\n
        [[service]]\nname = 'b'\nrun = ['sleep', '0.1']\nbackoff_ms = 5\nbackoff_max_ms = 5"
    );
    let guard = Guard::start(Path::new(PROGRAM), &file(dir, &text)).unwrap();
    let began = |all: &[(String, What)], name: &str| {
        all.iter().filter(|e| e.0 == name && matches!(e.1, What::Started { .. })).count()
    };
    let all = events(&guard, |all| {
        let again = all.iter().rposition(|e| e.0 == "a" && matches!(e.1, What::Started { .. }));
        began(all, "a") == 2 && again.is_some_and(|at| began(&all[at..], "b") >= 3)
    });
    guard.finish().unwrap();
    assert!(matches!(all.last(), Some((_, What::Done(_)))), "{all:?}");
}

fn a_thousand_kills_lose_nothing(dir: &tempfile::TempDir) {
    let (count, kills) = (20, 1000);
    let guard = Guard::start(Path::new(PROGRAM), &file(dir, &soak::services(count))).unwrap();
    let account = soak::run(guard, count, kills, 4242, || {}).unwrap();
    assert_eq!(account.kills, kills, "{account:?}");
    assert_eq!((account.lost, account.doubled, account.left), (0, 0, 0), "{account:?}");
    assert_eq!(account.started, kills + count, "{account:?}");
    assert_eq!(account.ended, account.started, "{account:?}");
}

fn a_killed_supervisor_leaves_nothing(dir: &tempfile::TempDir) {
    let guard = Guard::start(Path::new(PROGRAM), &file(dir, &soak::services(6))).unwrap();
    let mut handles = Vec::new();
    while handles.len() < 6 {
        let (_, pidfd) = guard.next(None).unwrap().expect("it runs");
        handles.extend(pidfd);
    }
    guard.supervisor().signal(Signal::SIGKILL).unwrap();
    while guard.next(None).unwrap().is_some() {}
    guard.finish().unwrap();
    assert!(handles.iter().all(|h| !h.exists()));
}

/// Everything that a program starts holds its standard error: end of file means that all are gone.
fn a_killed_guard_leaves_nothing(dir: &tempfile::TempDir) {
    use std::io::Read as _;
    use std::process::{Command, Stdio};
    let text = soak::services(6);
    let mut guard = Command::new(PROGRAM)
        .arg("--supervise")
        .arg(file(dir, &text))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = guard.stderr.take().unwrap();
    // Until its services run: its child's children.
    let children =
        |pid: String| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let inner = loop {
        assert_eq!(guard.try_wait().unwrap(), None, "it ended by itself");
        let inner = children(guard.id().to_string()).trim().to_owned();
        if !inner.is_empty() && children(inner.clone()).split_whitespace().count() >= 6 {
            break inner;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    guard.kill().unwrap(); // std: our own child, not yet waited for
    guard.wait().unwrap();
    let mut rest = String::new();
    err.read_to_string(&mut rest).unwrap();
    assert!(!Path::new(&format!("/proc/{inner}")).exists() || children(inner).is_empty());
}

#[test]
fn the_supervisor() {
    let _dog = watchdog(180);
    let dir = tempfile::tempdir().unwrap();
    demo_shows_every_kind_of_trouble(&dir);
    a_service_that_cannot_start_is_told_and_tried_again(&dir);
    a_service_that_dies_before_it_is_ready_was_not_ready(&dir);
    a_restart_does_not_wait_for_the_ones_before(&dir);
    a_killed_supervisor_leaves_nothing(&dir);
    a_thousand_kills_lose_nothing(&dir);
    a_killed_guard_leaves_nothing(&dir);
    let own = pidfd_spawn::cgroup::own().unwrap_or_default();
    let mine = format!("pidfd-spawn-{}", std::process::id());
    assert!(!own.join(mine).exists(), "a cgroup is left");
}
