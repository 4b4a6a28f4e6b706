//! The view `exec`, held against what a command is known to do.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use bpf_trace::command::{Running, Wait, Wake};
use bpf_trace::exec::{Ending, Event, Exec, Options, What};
use bpf_trace::{Filter, Lost};
use kit::testing::watchdog;

struct Traced {
    events: Vec<Event>,
    lost: Lost,
}

/// What a command and its descendants do, read while they do it.
fn traced(o: &Options, words: &[&str]) -> Traced {
    let words: Vec<OsString> = words.iter().map(Into::into).collect();
    traced_words(o, &words)
}

fn traced_words(o: &Options, words: &[OsString]) -> Traced {
    let o = Options { filter: Filter { follow: true, ..o.filter.clone() }, ..o.clone() };
    let mut view = Exec::start(&o).unwrap();
    let mut command = Running::start(words, true).unwrap();
    let mut wait = Wait::new(None, Duration::from_secs(3600)).unwrap();
    let mut events = Vec::new();
    while wait.next(Some(view.ring()), Some(&mut command)).unwrap() != Wake::Ended {
        view.take(|e| events.push(e));
    }
    view.tracer().stop();
    view.take(|e| events.push(e));
    Traced { events, lost: view.tracer().lost().unwrap() }
}

impl Traced {
    /// The command: what happens first is its exec.
    fn pid(&self) -> u32 {
        assert!(is_exec(&self.events[0]));
        self.events[0].pid
    }

    fn args(&self) -> Vec<Vec<String>> {
        let text = |a: &Vec<u8>| String::from_utf8_lossy(a).into_owned();
        self.events
            .iter()
            .filter_map(|e| match &e.what {
                What::Exec { args, .. } => Some(args.iter().map(text).collect()),
                _ => None,
            })
            .collect()
    }

    /// Endings by PID.
    fn endings(&self) -> BTreeMap<u32, Ending> {
        let ending = |e: &Event| match e.what {
            What::Exit(ending) => Some((e.pid, ending)),
            _ => None,
        };
        self.events.iter().filter_map(ending).collect()
    }
}

#[test]
fn none_of_ten_thousand_processes_is_missed() {
    let _dog = watchdog(600);
    needs_bpf!();
    let script = "seq 1 10000 | xargs -P 8 -n 1 /bin/true first \"two words\"";
    let t = traced(&Options::default(), &["sh", "-c", script]);
    assert_eq!(t.lost, Lost::default());
    let (mut numbers, mut pids, mut parents) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for e in &t.events {
        let What::Exec { path, args } = &e.what else { continue };
        if path != b"/bin/true" {
            continue;
        }
        assert_eq!(args[..3], [&b"/bin/true"[..], b"first", b"two words"]);
        assert_eq!((args.len(), e.cut), (4, 0));
        numbers.insert(String::from_utf8(args[3].clone()).unwrap().parse::<u32>().unwrap());
        assert!(pids.insert(e.pid) || t.events.len() > 32768, "{} twice", e.pid);
        parents.insert(e.parent);
        assert_eq!(e.parent_comm, "xargs");
    }
    assert_eq!(numbers, (1..=10_000).collect());
    assert_eq!(parents.len(), 1);
    let ended = |e: &&Event| e.comm == "true" && e.what == What::Exit(Ending::Code(0));
    assert_eq!(t.events.iter().filter(ended).count(), 10_000);
}

#[test]
fn arguments_are_whole_or_marked_as_cut() {
    let _dog = watchdog(180);
    needs_bpf!();
    // The buffer holds 16384 bytes: "/bin/true", NUL, the argument, NUL.
    for (len, cut) in [(0, 0), (1, 0), (4096, 0), (16373, 0), (16374, 1), (100_000, 83_627)] {
        let long = "x".repeat(len);
        let t = traced(&Options::default(), &["/bin/true", &long]);
        assert_eq!(t.lost, Lost::default());
        let exec = t.events.iter().find(|e| matches!(e.what, What::Exec { .. })).unwrap();
        assert_eq!(exec.cut, cut, "{len}");
        let What::Exec { args, .. } = &exec.what else { unreachable!() };
        assert_eq!(args.len(), 2);
        let kept = len.min(16374);
        assert!(args[1] == long.as_bytes()[..kept], "{len}: {} kept", args[1].len());
    }
}

#[test]
fn odd_bytes_come_as_they_are() {
    let _dog = watchdog(180);
    needs_bpf!();
    let odd: Vec<Vec<u8>> = vec![
        (1..=255).collect(),
        vec![],
        b"\n\t\"\\\x1b[2J".to_vec(),
        vec![],
        "\u{4e2d}\u{202e}".into(),
        vec![0xff],
        vec![],
    ];
    let mut words: Vec<OsString> = vec!["/bin/true".into()];
    words.extend(odd.iter().cloned().map(OsString::from_vec));
    let t = traced_words(&Options::default(), &words);
    let What::Exec { args, .. } = &t.events[0].what else { panic!("{:?}", t.events[0]) };
    assert_eq!(args[1..], odd);
}

#[test]
fn endings_and_parents_are_right() {
    let _dog = watchdog(180);
    needs_bpf!();
    let script = "(exit 3) ; /bin/sh -c 'kill -9 $$' ; /bin/sh -c 'kill -TERM $$'; (/bin/sh -c 'exit 255'; exit 1); \
                  ./no-such-program; exec /bin/sh -c 'exit 42'";
    let t = traced(&Options::default(), &["sh", "-c", script]);
    assert_eq!(t.lost, Lost::default());
    let endings = t.endings();
    assert_eq!(endings[&t.pid()], Ending::Code(42));
    let mut others: Vec<String> =
        endings.iter().filter(|(p, _)| **p != t.pid()).map(|(_, e)| e.to_string()).collect();
    others.sort();
    // The subshell of the program that is not there ends with 127 (dash) where the shell forks for it.
    others.retain(|e| e != "127");
    assert_eq!(others, ["1", "255", "3", "SIGKILL", "SIGTERM"]);
    // The tracer is the command's parent; the command that of its children.
    assert_eq!(t.events[0].parent, std::process::id());
    for e in &t.events {
        let child = endings.iter().any(|(pid, _)| *pid == e.parent && e.parent != e.pid);
        assert!(child || e.pid == t.pid(), "{e:?}");
    }
    // One process, two programs: the last is the command's own exec.
    let execs: Vec<_> = t.events.iter().filter(|e| e.pid == t.pid() && is_exec(e)).collect();
    assert_eq!(execs.len(), 2);
    assert!(execs[1].age > execs[0].age && execs[1].at > execs[0].at);
    let failed: Vec<_> = t.events.iter().filter(|e| matches!(e.what, What::Failed { .. })).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].what, What::Failed { path: b"./no-such-program".to_vec(), errno: 2 });
}

fn is_exec(e: &Event) -> bool {
    matches!(e.what, What::Exec { .. })
}

#[test]
fn only_failures_means_no_others() {
    let _dog = watchdog(180);
    needs_bpf!();
    let o = Options { failed: true, ..Options::default() };
    let t = traced(&o, &["sh", "-c", "true; /bin/true; (exit 7); /no/such/thing; exit 0"]);
    for e in &t.events {
        assert!(!is_exec(e) && e.what != What::Exit(Ending::Code(0)), "{e:?}");
    }
    assert!(t.endings().values().any(|e| *e == Ending::Code(7)));
    assert!(t.events.iter().any(|e| matches!(&e.what, What::Failed { errno: 2, .. })));
}

#[test]
fn a_process_has_a_number_inside_its_namespace_and_one_outside() {
    let _dog = watchdog(180);
    needs_bpf!();
    let probe = std::process::Command::new("unshare").args(["--pid", "--fork", "true"]).status();
    if !probe.is_ok_and(|s| s.success()) {
        kit::skip!("root", "unshare --pid does not work here");
    }
    let script = "/bin/echo $$ one; /bin/true";
    let t = traced(&Options::default(), &["unshare", "--pid", "--fork", "sh", "-c", script]);
    let of = |name: &str| {
        t.events
            .iter()
            .find(|e| matches!(&e.what, What::Exec { args, .. } if args[0] == name.as_bytes()))
            .unwrap_or_else(|| panic!("{name}"))
    };
    assert_eq!(of("unshare").inside, of("unshare").pid);
    let (shell, echo) = (of("sh"), of("/bin/echo"));
    assert_eq!((shell.inside, echo.inside), (1, 2));
    assert!(shell.pid > 2 && echo.parent == shell.pid);
    // What the shell itself sees is what we see as inside.
    assert_eq!(t.args().into_iter().find(|a| a[0] == "/bin/echo").unwrap()[1], "1");
    let exit = t.events.iter().find(|e| e.pid == echo.pid && matches!(e.what, What::Exit(_))).unwrap();
    assert_eq!(exit.inside, 2);
}

#[test]
fn a_process_ends_once_whoever_of_its_threads_is_last() {
    let _dog = watchdog(180);
    needs_bpf!();
    if std::process::Command::new("python3").args(["-c", ""]).status().is_err() {
        kit::skip!("python3", "the program with threads is written in it");
    }
    // The first thread leaves by itself (exit, system call 60); another goes on, and ends the process with 9 (exit_group).
    let script = "import ctypes,os,threading,time\n\
                  def f(): time.sleep(0.1); os._exit(9)\n\
                  [threading.Thread(target=time.sleep,args=(5,)).start() for _ in range(3)]\n\
                  threading.Thread(target=f).start()\n\
                  ctypes.CDLL(None).syscall(60, 0)";
    let t = traced(&Options::default(), &["python3", "-c", script]);
    let own = |e: &&Event| e.pid == t.pid() && matches!(e.what, What::Exit(_));
    let exits: Vec<_> = t.events.iter().filter(own).collect();
    assert_eq!(exits.len(), 1, "{exits:?}");
    assert_eq!(exits[0].what, What::Exit(Ending::Code(9)));
    assert!(exits[0].age >= 100_000_000, "it lived for as long as its last thread");
}

#[test]
fn a_full_ring_is_told() {
    let _dog = watchdog(180);
    needs_bpf!();
    let filter = Filter { follow: true, ..Filter::default() };
    let mut view = Exec::start(&Options { filter, ring: 4096, ..Options::default() }).unwrap();
    let script = "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done";
    let mut command = Running::start(&["sh", "-c", script].map(Into::into), true).unwrap();
    // Nobody reads while it runs.
    let mut wait = Wait::new(None, Duration::from_secs(3600)).unwrap();
    assert_eq!(wait.next(None, Some(&mut command)).unwrap(), Wake::Ended);
    view.tracer().stop();
    let mut there = 0;
    view.take(|_| there += 1);
    let lost = view.tracer().lost().unwrap();
    // An exec and an exit of each, and of the shell.
    assert_eq!(there + lost.ring_full, 202);
    assert!(there > 0 && lost.ring_full > 100, "{there} of them there");
    assert_eq!(lost.events(), lost.ring_full);
}
