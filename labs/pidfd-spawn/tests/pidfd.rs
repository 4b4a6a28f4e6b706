//! The race, waiting, and what else a pidfd can do.
#![cfg(target_arch = "x86_64")]

mod common;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;

use kit::testing::watchdog;
use nix::sys::signal::Signal;
use pidfd_spawn::cgroup::{self, Cgroup};
use pidfd_spawn::error::SpawnError;
use pidfd_spawn::pidfd::{End, PidFd, signal_self, signal_self_thread};
use pidfd_spawn::process::Child;
use pidfd_spawn::race::{self, Story};
use pidfd_spawn::spawn::Spawn;
use pidfd_spawn::wait::Mechanism;
use pidfd_spawn::ways::Way;

fn sleeper() -> Child {
    Spawn::new("sleep").arg("1000").spawn().unwrap()
}

#[test]
fn the_number_hits_an_innocent_and_the_handle_does_not() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    for _ in 0..20 {
        let race = match race::run() {
            Ok(race) => race,
            Err(e) => kit::skip!("clone3.set_tid", "{e}"),
        };
        assert!(race.pid_kill_hit_innocent(), "{race:?}");
        assert!(race.pidfd_kill_refused(), "{race:?}");
        assert!(race.events.iter().all(|e| e.pid == race::NUMBER), "{race:?}");
        for story in [Story::Pid, Story::PidFd] {
            assert_eq!(race.events.iter().filter(|e| e.story == story).count(), 5, "{race:?}");
        }
    }
    assert_eq!(common::children(), Vec::<i32>::new());
}

#[test]
fn every_mechanism_reaps_every_child_once_with_its_own_status() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    for mechanism in Mechanism::ALL {
        let spawn = |i: usize| Spawn::new("/bin/sh").arg("-c").arg(format!("exit {}", i % 200)).spawn();
        let mut children: Vec<Child> = (0..100).map(|i| spawn(i).unwrap()).collect();
        let tally = match mechanism.wait_all(&mut children) {
            Ok(tally) => tally,
            Err(e) if matches!(mechanism, Mechanism::UringPoll | Mechanism::UringWaitid) => {
                kit::skip!("io_uring", "{e}")
            }
            Err(e) => panic!("{mechanism:?}: {e}"),
        };
        assert_eq!(tally.reaped, children.len(), "{mechanism:?}");
        for (i, child) in children.iter_mut().enumerate() {
            assert!(child.is_reaped(), "{mechanism:?}");
            assert_eq!(child.wait().unwrap().end, End::Exited(i as i32 % 200), "{mechanism:?}");
        }
        assert_eq!(common::children(), Vec::<i32>::new(), "{mechanism:?}");
    }
}

#[test]
fn the_exit_outlives_the_reaping() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let mut child = Spawn::new("sh").args(["-c", "exit 42"]).spawn().unwrap();
    assert_eq!(child.wait().unwrap().end, End::Exited(42));
    match child.pidfd().info() {
        Ok(info) => assert_eq!(info.end, Some(End::Exited(42)), "{info:?}"),
        Err(e) => kit::skip!("pidfd.info", "{e}"),
    }
    assert_eq!(child.signal(Signal::SIGTERM).unwrap_err().errno, libc::ESRCH);
    assert_eq!(child.pidfd().wait().unwrap_err().errno, libc::ECHILD);
}

#[test]
fn live_info_names_process_parent_and_cgroup() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let child = sleeper();
    let info = match child.pidfd().info() {
        Ok(info) => info,
        Err(e) => kit::skip!("pidfd.info", "{e}"),
    };
    assert_eq!(info.pid, Some((child.pid() as u32, std::process::id())));
    assert_eq!(info.end, None);
    assert!(info.cgroup_id.is_some());
}

#[test]
fn a_descriptor_can_be_taken_from_a_child() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"handed over").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let child = Spawn::new("sleep").arg("1000").fd(7, &file).spawn().unwrap();
    drop(file);
    let taken = match child.pidfd().getfd(7) {
        Ok(fd) => fd,
        Err(e) => kit::skip!("pidfd.getfd", "{e}"),
    };
    assert_eq!(child.pidfd().getfd(77).unwrap_err().errno, libc::EBADF);
    let flags = nix::fcntl::fcntl(&taken, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    drop(child);
    let mut text = String::new();
    File::from(taken).read_to_string(&mut text).unwrap();
    assert_eq!(text, "handed over");
}

#[test]
fn inodes_tell_processes_apart_and_handles_together() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let (a, b) = (sleeper(), sleeper());
    let again = PidFd::open(a.pid(), 0).unwrap();
    if a.pidfd().inode().unwrap() == b.pidfd().inode().unwrap() {
        kit::skip!("pidfd.pidfs", "pidfds share one inode: Linux before 6.9");
    }
    assert_eq!(a.pidfd().inode().unwrap(), again.inode().unwrap());
}

#[test]
fn a_thread_has_a_pidfd_too_and_ourselves_need_none() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw()).unwrap();
        let _ = held.recv();
    });
    let tid = told.recv().unwrap();
    let refused = PidFd::open(tid, 0).unwrap_err();
    assert!(matches!(refused.errno, libc::ENOENT | libc::EINVAL), "{refused}");
    let opened = PidFd::open_thread(tid);
    drop(hold);
    thread.join().unwrap();
    match opened {
        Ok(_) => {}
        Err(e) => kit::skip!("pidfd.thread", "{e}"),
    }
    for bad in [0, -1] {
        assert_eq!(PidFd::open(bad, 0).unwrap_err().errno, libc::EINVAL);
    }
    assert_eq!(PidFd::open(std::process::id() as i32, 1).unwrap_err().errno, libc::EINVAL);
    if let Err(e) = signal_self(None).and(signal_self_thread(None)) {
        kit::skip!("pidfd.self", "{e}");
    }
}

#[test]
fn memory_of_a_dying_process_can_be_released_but_not_of_a_healthy_one() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let child = sleeper();
    let e = child.pidfd().release_memory().unwrap_err();
    if e.errno == libc::ENOSYS {
        kit::skip!("process_mrelease", "{e}");
    }
    assert_eq!(e.errno, libc::EINVAL);
    child.signal(Signal::SIGKILL).unwrap();
    // It may have ended already: then there is nothing to release.
    match child.pidfd().release_memory() {
        Ok(()) => {}
        Err(e) => assert!(matches!(e.errno, libc::ESRCH | libc::EAGAIN | libc::EINTR), "{e}"),
    }
}

#[test]
fn a_child_starts_in_its_cgroup_and_is_killed_with_it() {
    let _dog = watchdog(180);
    let make = |way: Way| {
        let name = format!("pidfd-spawn-test-{}-{way}", std::process::id());
        cgroup::own().and_then(|own| Cgroup::create(&own, &name))
    };
    if let Err(e) = make(Way::Fork) {
        kit::skip!("cgroup2", "{e}");
    }
    common::each_way(|way, base| {
        // A new group each time: see the pitfall about cgroup.kill and CLONE_INTO_CGROUP.
        let group = make(way).unwrap();
        // sh forks: both processes are in, and both go.
        let started = base(Spawn::new("sh").args(["-c", "sleep 1000; true"])).cgroup(&group).spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(SpawnError::Unsupported { .. }) if way == Way::PosixSpawn => return,
            Err(e) => panic!("{way}: {e}"),
        };
        assert!(group.members().contains(&child.pid()), "{way}");
        if let Ok(info) = child.pidfd().info() {
            assert_eq!(info.cgroup_id, Some(group.id().unwrap()), "{way}");
        }
        group.kill().unwrap();
        assert!(matches!(child.wait().unwrap().end, End::Killed { signal: 9, .. }), "{way}");
        let path = group.path().to_owned();
        drop(group);
        assert!(!path.exists(), "{way}: the cgroup is left");
    });
}

/// A filter for this thread: `clone3` fails with `errno`, as in container runtimes.
fn refuse_clone3(errno: i32) -> bool {
    // Through a helper program there would be no way to spawn from inside it: so the thread's own.
    pidfd_spawn::evidence::refuse_clone3(errno).is_ok()
}

#[test]
fn where_clone3_is_refused_another_way_is_taken_and_said() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    for (errno, expected) in [(libc::ENOSYS, Way::PosixSpawn), (libc::EPERM, Way::Vfork)] {
        let thread = std::thread::spawn(move || {
            if !refuse_clone3(errno) {
                return None;
            }
            let mut child = Spawn::new("true").spawn().unwrap();
            let reasons: Vec<_> = child.fell_back().to_vec();
            assert!(child.wait().unwrap().end.success());
            let exact = Spawn::new("/no/such/program").spawn().unwrap_err();
            Some((child.way(), reasons, exact))
        });
        let Some((way, reasons, exact)) = thread.join().unwrap() else {
            kit::skip!("seccomp", "no filter could be installed");
        };
        // Newer C libraries fall back themselves for EPERM too.
        assert!(way == expected || way == Way::PosixSpawn, "{way}");
        assert_eq!(reasons[0].from, Way::Clone3);
        assert!(matches!(&reasons[0].why, SpawnError::Create { source, .. } if source.errno == errno));
        assert!(matches!(exact, SpawnError::Child { source, .. } if source.errno == libc::ENOENT));
    }
    assert_eq!(common::children(), Vec::<i32>::new());
}

#[test]
fn a_pids_limit_refuses_cleanly() {
    let _dog = watchdog(180);
    let group =
        std::path::PathBuf::from(format!("/sys/fs/cgroup/pids/pidfd-spawn-test-{}", std::process::id()));
    if let Err(e) = std::fs::create_dir(&group) {
        kit::skip!("cgroup1", "{e}");
    }
    let _alone = common::alone();
    let tasks = group.clone();
    let results = std::thread::spawn(move || {
        // v1 groups take single threads: only this one is limited.
        std::fs::write(tasks.join("pids.max"), "1").unwrap();
        std::fs::write(tasks.join("tasks"), nix::unistd::gettid().to_string()).unwrap();
        [Way::Fork, Way::Vfork, Way::PosixSpawn, Way::Clone3].map(|w| (w, Spawn::new("true").way(w).spawn()))
    })
    .join()
    .unwrap();
    // The kernel takes a moment to let go of the thread.
    let mut removed = std::fs::remove_dir(&group);
    while removed.is_err() {
        std::thread::yield_now();
        removed = std::fs::remove_dir(&group);
    }
    for (way, result) in results {
        match result {
            Err(SpawnError::Create { source, .. }) => assert_eq!(source.errno, libc::EAGAIN, "{way}"),
            other => panic!("{way}: {other:?}"),
        }
    }
    assert_eq!(common::children(), Vec::<i32>::new());
}

#[test]
fn handles_are_closed_on_exec() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let child = sleeper();
    let fd = File::open("/dev/null").unwrap();
    assert_ne!(fd.as_raw_fd(), std::os::fd::AsFd::as_fd(&child).as_raw_fd());
    let flags = nix::fcntl::fcntl(&child, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
}

#[test]
fn a_tiny_program_runs_each_way() {
    let _dog = watchdog(180);
    let tiny = pidfd_spawn::tiny::Tiny::exit_0().unwrap();
    common::each_way(|way, base| {
        let mut child = base(Spawn::new(tiny.path())).spawn().unwrap();
        assert!(child.wait().unwrap().end.success(), "{way}");
    });
}

#[test]
fn no_descriptor_leaks() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    assert_eq!(pidfd_spawn::leaks::leaked(20), Ok(0));
}

#[test]
fn a_server_is_replaced_without_a_refused_client() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pidfd-spawn"));
    match pidfd_spawn::handover::upgrade(program) {
        Ok(h) => {
            assert_eq!((h.before.as_str(), h.after.as_str()), ("old", "new"));
            assert!(h.refused_without);
        }
        Err(pidfd_spawn::handover::HandoverError::Sys(e)) if e.call.contains("getfd") => {
            kit::skip!("pidfd.getfd", "{e}")
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_core_dump_is_flagged() {
    let _dog = watchdog(180);
    let _alone = common::alone();
    let dir = common::scratch();
    let script = "ulimit -c unlimited && kill -ABRT $$";
    let exit = Spawn::new("sh").args(["-c", script]).cwd(dir.path()).spawn().unwrap().wait().unwrap();
    match exit.end {
        End::Killed { signal: libc::SIGABRT, core: true } => {}
        other => kit::skip!("rlimit_core", "{other}"),
    }
}

#[test]
fn what_is_no_cgroup_is_refused_and_nothing_started() {
    let _dog = watchdog(180);
    common::each_way(|way, base| {
        let root = File::open("/").unwrap();
        let result = base(Spawn::new("true")).cgroup(&root).spawn();
        match result {
            Err(SpawnError::Create { source, .. }) => {
                assert!(matches!(source.errno, libc::EBADF | libc::ENOENT), "{way}: {source}");
            }
            Err(SpawnError::Unsupported { .. }) if way == Way::PosixSpawn => {}
            other => panic!("{way}: {other:?}"),
        }
    });
}

/// Of a removed group there is nothing to join; a write to somebody else's group is not for us.
#[test]
fn a_cgroup_that_cannot_be_joined_refuses_cleanly() {
    let _dog = watchdog(180);
    let refused =
        |way: Option<Way>, group: &dyn Fn(Spawn<'_>) -> Result<Child, SpawnError>, errno: &[i32]| {
            let spawn = Spawn::new("true");
            match group(way.map_or(spawn, |way| Spawn::new("true").way(way))) {
                Err(SpawnError::Create { source, .. }) => {
                    assert!(errno.contains(&source.errno), "{way:?}: {source}")
                }
                other => panic!("{way:?}: {other:?}"),
            }
        };
    let _alone = common::alone();
    let ways = [Some(Way::Fork), Some(Way::Vfork), Some(Way::Clone3), None];
    let own = match cgroup::own() {
        Ok(own) => own,
        Err(e) => kit::skip!("cgroup2", "{e}"),
    };
    {
        // As "nobody", for the checks of permission alone: in a thread of its own, for it stays so.
        let dir = File::open(&own).unwrap();
        let nobody = std::thread::scope(|s| {
            s.spawn(|| {
                nix::unistd::setfsuid(65534.into());
                ways.map(|way| refused(way, &|spawn| spawn.cgroup(&dir).spawn(), &[libc::EACCES]))
            })
            .join()
        });
        nobody.unwrap();
    }
    let name = format!("pidfd-spawn-test-{}-removed", std::process::id());
    match Cgroup::create(&own, &name) {
        Ok(group) => {
            std::fs::remove_dir(group.path()).unwrap();
            let gone = [libc::ENODEV, libc::ENOENT];
            let _ = ways.map(|way| refused(way, &|spawn| spawn.cgroup(&group).spawn(), &gone));
        }
        Err(e) => kit::skip!("cgroup2", "{e}"),
    }
    assert_eq!(common::children(), Vec::<i32>::new());
}
