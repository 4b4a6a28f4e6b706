//! Every way of creating a process, held to the same rules.
#![cfg(target_arch = "x86_64")]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;

use common::{Base, each_way, scratch};
use kit::testing::watchdog;
use nix::sys::signal::{SigSet, Signal};
use pidfd_spawn::error::{SpawnError, Step};
use pidfd_spawn::pidfd::End;
use pidfd_spawn::process::Child;
use pidfd_spawn::spawn::Spawn;
use pidfd_spawn::ways::Way;

/// What the child prints on its standard output, with the child reaped.
fn output(spawn: impl FnOnce(&OwnedFd) -> Result<Child, SpawnError>) -> (String, End) {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut child = spawn(&write).unwrap();
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    (text, child.wait().unwrap().end)
}

#[test]
fn runs_a_program_and_tells_how_it_ended() {
    let _dog = watchdog(180);
    each_way(|way, base| {
        let mut child = base(Spawn::new("sh").args(["-c", "exit 7"])).spawn().unwrap();
        let exit = child.wait().unwrap();
        assert_eq!(exit.end, End::Exited(7), "{way}");
        assert_eq!(child.wait().unwrap(), exit, "{way}: a second wait returns the same");
        assert!(exit.max_rss_kib > 0, "{way}");
        let mut child = base(Spawn::new("sh").args(["-c", "kill -TERM $$"])).spawn().unwrap();
        assert!(matches!(child.wait().unwrap().end, End::Killed { signal: 15, .. }), "{way}");
    });
}

#[test]
fn arguments_environment_and_directory_arrive() {
    let _dog = watchdog(180);
    each_way(|way, base| {
        let (text, end) = output(|out| {
            base(Spawn::new("/bin/sh").args(["-c", "echo \"$1|$A|$HOME|$(pwd)\"", "sh", "an arg"]))
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("A", "1 2")
                .cwd("/")
                .fd(1, out)
                .spawn()
        });
        assert_eq!((text.as_str(), end), ("an arg|1 2||/\n", End::Exited(0)), "{way}");
    });
}

#[test]
fn descriptors_are_mapped_also_in_a_cycle() {
    let _dog = watchdog(180);
    each_way(|way, base| {
        // Files with known contents at numbers a, b, c, which the child gets rotated, and one doubled.
        let files: Vec<File> = (0..3)
            .map(|i| {
                let mut f = tempfile::tempfile().unwrap();
                write!(f, "file {i}").unwrap();
                f.rewind().unwrap();
                f
            })
            .collect();
        let [a, b, c] = [&files[0], &files[1], &files[2]].map(|f| f.as_raw_fd());
        // Read by path: /proc/self/fd/N opens anew, so that doubled ones do not share a position.
        let script = format!("for n in {a} {b} {c} 0; do cat /proc/self/fd/$n; echo; done");
        let (text, _) = output(|out| {
            base(Spawn::new("sh").arg("-c").arg(&script))
                .fd(a, &files[1])
                .fd(b, &files[2])
                .fd(c, &files[0])
                .fd(0, &files[2])
                .fd(1, out)
                .spawn()
        });
        assert_eq!(text, "file 1\nfile 2\nfile 0\nfile 2\n", "{way}");
    });
}

/// The numbers open in a child that lists its own /proc/self/fd (without the one used to list).
fn open_in_child(base: Base<'_>, nine: &File) -> String {
    let (text, _) = output(|out| {
        let list = Spawn::new("sh").args(["-c", "cd /proc/self/fd && echo *"]);
        base(list).fd(1, out).fd(9, nine).spawn()
    });
    text.trim().to_owned()
}

#[test]
fn no_descriptor_leaks_while_others_open_and_spawn() {
    let _dog = watchdog(180);
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let stop = AtomicBool::new(false);
    each_way(|way, base| {
        stop.store(false, Relaxed);
        let file = tempfile::tempfile().unwrap();
        let quiet = open_in_child(base, &file);
        std::thread::scope(|s| {
            // One thread opens without close-on-exec, as C libraries do; one spawns.
            s.spawn(|| {
                while !stop.load(Relaxed) {
                    let f = File::open("/dev/null").unwrap();
                    let _inheritable = nix::unistd::dup(&f).unwrap();
                }
            });
            s.spawn(|| {
                while !stop.load(Relaxed) {
                    Spawn::new("/bin/true").spawn().unwrap().wait().unwrap();
                }
            });
            for _ in 0..25 {
                let noisy = open_in_child(base, &file);
                if noisy != quiet {
                    stop.store(true, Relaxed);
                }
                assert_eq!(noisy, quiet, "{way}");
            }
            stop.store(true, Relaxed);
        });
        // dash lists with a descriptor of its own (3); nothing else is there.
        assert!(matches!(quiet.as_str(), "0 1 2 3 9" | "0 1 2 9"), "{way}: {quiet}");
    });
}

/// The control: std's child shows what is looked for.
#[test]
fn what_std_lets_through_is_kept_out() {
    let _dog = watchdog(180);
    each_way(|way, base| {
        let inheritable = nix::unistd::dup(File::open("/dev/null").unwrap()).unwrap();
        let number = inheritable.as_raw_fd().to_string();
        let sees = |list: &str| list.split_whitespace().any(|n| n == number);
        // Read by path, without a descriptor of the shell's own that might have the same number.
        let script = format!("test -e /proc/self/fd/{number} && echo {number}");
        let theirs = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(sees(&String::from_utf8_lossy(&theirs.stdout)), "the control shows nothing");
        let (ours, _) = output(|out| base(Spawn::new("sh").args(["-c", &script])).fd(1, out).spawn());
        assert!(!sees(&ours), "{way}");
    });
}

#[test]
fn session_group_mask_and_signals() {
    let _dog = watchdog(180);
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR1);
    each_way(|way, base| {
        let status = |spawn: Base<'_>| {
            let (text, _) =
                output(|out| spawn(base(Spawn::new("cat").arg("/proc/self/status"))).fd(1, out).spawn());
            text.lines()
                .filter_map(|l| l.split_once(":\t"))
                .map(|(k, v)| (k.to_owned(), v.trim().to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let plain = status(&|s| s);
        assert_eq!(plain["SigBlk"], "0000000000000000", "{way}");
        let ignored = u64::from_str_radix(&plain["SigIgn"], 16).unwrap();
        assert_eq!(ignored >> (libc::SIGPIPE - 1) & 1, 0, "{way}: SIGPIPE is inherited as ignored");
        let masked = status(&|s| s.mask(set));
        assert_eq!(masked["SigBlk"], "0000000000000200", "{way}");
        let leader = status(&|s| s.session());
        assert_eq!(leader["NSsid"], leader["Pid"], "{way}");
        let group = status(&|s| s.group(0));
        assert_eq!(group["NSpgid"], group["Pid"], "{way}");
        assert_ne!(group["NSsid"], group["Pid"], "{way}");
        // Asked in this thread's name: the mask here is what it was.
        assert_eq!(SigSet::thread_get_mask().unwrap(), SigSet::empty(), "{way}");
    });
}

#[test]
fn parent_death_and_ids_work_or_are_refused_by_name() {
    let _dog = watchdog(180);
    each_way(|way, base| {
        match base(Spawn::new("true")).parent_death(Signal::SIGKILL).spawn() {
            Ok(mut child) => assert!(child.wait().unwrap().end.success(), "{way}"),
            Err(e) => {
                assert_eq!(way, Way::PosixSpawn);
                assert!(matches!(e, SpawnError::Unsupported { .. }), "{e}");
            }
        }
        let root = nix::unistd::geteuid().is_root();
        let (uid, gid) = (65534, 65534);
        match base(Spawn::new("sh").args(["-c", "test $(id -u)$(id -g)$(id -G) = 655346553465534"]))
            .ids(uid, gid)
            .spawn()
        {
            Ok(mut child) => assert!(root && child.wait().unwrap().end.success(), "{way}"),
            Err(SpawnError::Child { step, source, .. }) => {
                assert!(!root);
                assert_eq!((step, source.errno), (Step::Ids, libc::EPERM), "{way}");
            }
            Err(e) => assert!(matches!(e, SpawnError::Unsupported { .. }) && way == Way::PosixSpawn, "{e}"),
        }
    });
}

/// The step, or "not told" by posix_spawn, and the errno.
fn expect(way: Way, got: Result<Child, SpawnError>, step: Step, errno: i32) {
    match got {
        Err(SpawnError::Child { step: s, source, way: w }) => {
            let told = if way == Way::PosixSpawn { Step::NotTold } else { step };
            assert_eq!((w, s, source.errno), (way, told, errno), "{way}: {source}");
        }
        other => panic!("{way}: expected {step:?}/{errno}, got {other:?}"),
    }
}

#[test]
fn errors_in_the_child_come_back_exactly() {
    let _dog = watchdog(180);
    let dir = scratch();
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let lost = file("lost", "#!/no/such/interpreter\n", 0o755);
    let guess = file("guess", "echo no interpreter line\n", 0o755);
    let huge = "x".repeat(3 << 20);
    each_way(|way, base| {
        let before = common::open_fds();
        expect(way, base(Spawn::new("/no/such/program")).spawn(), Step::Exec, libc::ENOENT);
        expect(
            way,
            base(Spawn::new("no-such-program").env("PATH", "/usr/bin:/bin")).spawn(),
            Step::Exec,
            libc::ENOENT,
        );
        expect(way, base(Spawn::new(&plain)).spawn(), Step::Exec, libc::EACCES);
        expect(way, base(Spawn::new("/")).spawn(), Step::Exec, libc::EACCES);
        expect(way, base(Spawn::new(&lost)).spawn(), Step::Exec, libc::ENOENT);
        expect(way, base(Spawn::new(&guess)).spawn(), Step::Exec, libc::ENOEXEC);
        expect(way, base(Spawn::new("true").arg(&huge)).spawn(), Step::Exec, libc::E2BIG);
        expect(way, base(Spawn::new("true").cwd("/no/such/dir")).spawn(), Step::Cwd, libc::ENOENT);
        expect(way, base(Spawn::new("true").cwd("/proc/version")).spawn(), Step::Cwd, libc::ENOTDIR);
        let null = File::open("/dev/null").unwrap();
        for number in [1 << 30, -1] {
            let bad = base(Spawn::new("true")).fd(number, &null).spawn();
            assert!(matches!(bad, Err(SpawnError::Invalid(_))), "{way}: {bad:?}");
        }
        drop(null);
        let bad = base(Spawn::new("true").arg("a\0b")).spawn();
        assert!(matches!(bad, Err(SpawnError::Invalid(_))), "{way}: {bad:?}");
        // Someone else's session leader cannot be joined.
        expect(way, base(Spawn::new("true")).group(1).spawn(), Step::Group, libc::EPERM);
        assert_eq!(common::open_fds(), before, "{way}: a descriptor is left");
    });
}

#[test]
fn dropping_a_child_ends_and_reaps_it() {
    let _dog = watchdog(180);
    each_way(|way, base| {
        let child = base(Spawn::new("sleep").arg("1000")).spawn().unwrap();
        let handle = child.pidfd().try_clone().unwrap();
        assert!(handle.exists(), "{way}");
        drop(child);
        assert!(!handle.exists(), "{way}");
    });
}
