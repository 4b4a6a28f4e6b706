//! Where programs can be attached, and what is said where they cannot: to whom, on which kernel.

use std::path::PathBuf;
use std::process::{Command, Output};

use bpf_trace::attach_points::{self, Kind};
use bpf_trace::{TraceError, tasks};
use kit::testing::watchdog;
use tempfile::TempDir;

fn works(name: &str) -> bool {
    kit::probe::finding(name).is_some_and(|f| f.works())
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The lab's program where anybody can run it.
fn program() -> (TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("bpf-trace");
    // By another process: a descriptor of ours, open for writing, might be inherited by a child that another test
    // starts just then, and a file that is being written cannot be executed (ETXTBSY).
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_bpf-trace")).arg(&path).status().unwrap();
    assert!(copied.success());
    (folder, path)
}

/// Runs it as nobody, with these capabilities: `None` if there is no way to.
fn as_nobody(capabilities: &str, arguments: &[&str]) -> Option<Output> {
    let (_folder, path) = program();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups"]);
    if !capabilities.is_empty() {
        command.args([format!("--inh-caps={capabilities}"), format!("--ambient-caps={capabilities}")]);
    }
    command.arg(path).args(arguments).output().ok().filter(|_| is_root())
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn each_attach_point_counts_or_says_why_not() {
    let _dog = watchdog(180);
    if !works("bpf.raw_tp") {
        kit::skip!("bpf.raw_tp", "cannot load a program here");
    }
    for kind in Kind::ALL {
        let probe = format!("bpf.{}", kind.name());
        let known = kit::probe::finding(&probe).map(|f| f.works());
        match kind.attempt() {
            Ok(ran) => {
                assert!(ran.runs >= ran.passages && ran.runs > 0, "{kind:?}: {ran:?}");
                // Nobody else passes by a function of this program.
                assert!(kind != Kind::Uprobe || ran.runs == 1000, "{ran:?}");
                assert_ne!(known, Some(false), "{kind:?} works, but the doctor says that it does not");
            }
            Err(TraceError::Sys(e)) => {
                assert_ne!(e.errno, 0, "{kind:?}");
                assert_ne!(known, Some(true), "{kind:?}: {e}, but the doctor says that it works");
            }
            Err(e @ (TraceError::NoBtf(_) | TraceError::Object(_))) => {
                assert!(matches!(kind, Kind::TpBtf | Kind::Fentry | Kind::IterTask), "{kind:?}: {e}");
            }
            Err(e) => panic!("{kind:?}: {e}"),
        }
    }
}

#[test]
fn costs_are_measured_for_each_that_is_asked_for() {
    let _dog = watchdog(180);
    if !works("bpf.raw_tp") {
        kit::skip!("bpf.raw_tp", "cannot load a program here");
    }
    let mut rounds = 0;
    let costs = attach_points::costs(&[Kind::RawTp], 3, 2, || rounds += 1).unwrap();
    assert_eq!(rounds, 3);
    assert_eq!(costs.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [None, Some(Kind::RawTp)]);
    assert!(
        costs.iter().all(|(_, times)| times.len() == 3 && times.iter().all(|t| *t > 0.0 && t.is_finite()))
    );
}

#[test]
fn the_kernels_list_has_this_process_and_its_threads_and_child() {
    let _dog = watchdog(180);
    if !works("bpf.tp_btf") {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let (tid, tid_of) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("listed".into()).spawn(move || {
        tid.send(nix::unistd::gettid().as_raw() as u32).unwrap();
        let _ = told.recv();
    });
    let tid = tid_of.recv().unwrap();
    // The child's name is its program's once its exec is through.
    while std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    let list = tasks::list();
    drop(tell);
    thread.unwrap().join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let list = list.unwrap();
    let me = std::process::id();
    let thread = list.iter().find(|t| t.tid == tid).unwrap();
    assert_eq!((thread.pid, thread.comm.as_str()), (me, "listed"));
    let sleep = list.iter().find(|t| t.pid == child.id()).unwrap();
    assert_eq!((sleep.tid, sleep.comm.as_str()), (child.id(), "sleep"));
    assert!(list.iter().filter(|t| t.pid == me).all(|t| t.inside == thread.inside));
    let mut tids: Vec<u32> = list.iter().map(|t| t.tid).collect();
    tids.sort_unstable();
    tids.dedup();
    assert_eq!(tids.len(), list.len(), "a thread is listed twice");
}

#[test]
fn a_process_in_a_namespace_of_its_own_has_two_numbers() {
    let _dog = watchdog(180);
    if !works("bpf.tp_btf") || !is_root() {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    // unshare forks: the shell is 1 inside, and says its number outside by way of its own /proc entry.
    let script = "readlink /proc/self >&2; read wait";
    let mut unshare = Command::new("unshare")
        .args(["--pid", "--fork", "sh", "-c", script])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(unshare.stderr.as_mut().unwrap()), &mut line)
        .unwrap();
    let list = tasks::list();
    drop(unshare.stdin.take());
    unshare.wait().unwrap();
    let list = list.unwrap();
    let parent = list.iter().find(|t| t.pid == unshare.id()).unwrap();
    let nested: Vec<_> =
        list.iter().filter(|t| t.inside == 1 && t.pid > parent.pid && t.comm == "sh").collect();
    assert_eq!(nested.len(), 1, "{nested:?}");
    assert_ne!(nested[0].outermost, 1);
}

#[test]
fn without_rights_it_says_which_and_how_to_get_them() {
    let _dog = watchdog(180);
    for arguments in [&["syscalls"][..], &["--inside"], &["--verifier"], &["--attach-points"], &["exec"], &[]]
    {
        let Some(out) = as_nobody("", arguments) else {
            kit::skip!("setpriv", "takes root, to become nobody");
        };
        let text = said(&out);
        assert_eq!(out.status.code(), Some(4), "{arguments:?}: {text}");
        for word in ["EPERM", "CAP_BPF and CAP_PERFMON", "unprivileged_bpf_disabled", "--elevate"] {
            assert!(text.contains(word), "{arguments:?}: no {word} in {text}");
        }
    }
}

#[test]
fn two_capabilities_are_enough() {
    let _dog = watchdog(180);
    if !works("bpf.tp_btf") {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    let both = "+bpf,+perfmon";
    for arguments in
        [&["--json", "--inside"][..], &["--json", "--verifier"], &["--json", "syscalls", "--", "/bin/true"]]
    {
        let Some(out) = as_nobody(both, arguments) else {
            kit::skip!("setpriv", "takes root, to become nobody");
        };
        assert_eq!(out.status.code(), Some(0), "{arguments:?}: {}", said(&out));
    }
    // What takes more says what: tracefs is root's.
    let out = as_nobody(both, &["syscalls", "--attach", "tracepoint"]).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(said(&out).contains("tracepoint: fsopen(\"tracefs\"): EPERM"), "{}", said(&out));
    // So does a breakpoint, in newer kernels.
    let out = as_nobody(both, &["uprobe", "c:malloc", "--", "/bin/true"]).unwrap();
    if out.status.code() != Some(0) {
        for word in ["perf_event_open(uprobe)", "CAP_SYS_ADMIN", "--elevate"] {
            assert!(said(&out).contains(word), "no {word} in {}", said(&out));
        }
    }
}

#[test]
fn without_the_kernels_types_it_says_so_and_shows_what_needs_none() {
    let _dog = watchdog(180);
    if !is_root() || !works("bpf.raw_tp") {
        kit::skip!("bpf.raw_tp", "takes root, to hide /sys/kernel/btf from a process");
    }
    let run = |arguments: &str| {
        let script = format!("mount -t tmpfs none /sys/kernel/btf && exec \"$0\" {arguments}");
        let bin = env!("CARGO_BIN_EXE_bpf-trace");
        Command::new("unshare").args(["-m", "sh", "-c", &script, bin]).output().unwrap()
    };
    for arguments in ["syscalls", "--verifier", "--inside syscalls", "uprobe c:malloc"] {
        let out = run(arguments);
        assert_eq!(out.status.code(), Some(4), "{arguments}: {}", said(&out));
        assert!(said(&out).contains("CONFIG_DEBUG_INFO_BTF"), "{arguments}: {}", said(&out));
    }
    let out = run("--inside");
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
}
