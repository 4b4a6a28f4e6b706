//! The view `syscalls`: exactly what was called, by the kernel's count and by others'.

mod common;

use std::collections::BTreeMap;
use std::process::Command;

use bpf_trace::names;
use bpf_trace::syscalls::{By, Options, Syscalls};
use bpf_trace::workload::{Known, SLEEP};
use bpf_trace::{Filter, Means};
use common::{count, of, program, run, traced, words};
use kit::testing::watchdog;

const KNOWN: Known = Known { threads: 4, getppid: 5_000, bad_close: 300, sleeps: 5 };

#[test]
fn exactly_what_each_thread_called_is_counted() {
    let _dog = watchdog(180);
    needs_bpf!();
    let o = Options { by: By::Thread, timing: true, ..Options::default() };
    let rows = traced(&o, &KNOWN.command(program()));
    let getppid = of(&rows, "getppid");
    assert_eq!(getppid.iter().map(|r| r.count).collect::<Vec<_>>(), [5_000; 4]);
    assert!(getppid.iter().all(|r| r.failed == 0 && r.latency.count() == 5_000));
    let close = of(&rows, "close");
    let bad: Vec<_> = close.iter().map(|r| r.errors.clone()).collect();
    assert_eq!(bad, vec![vec![(libc::EBADF as u32, 300)]; 4]);
    for sleeper in of(&rows, "clock_nanosleep") {
        assert_eq!(sleeper.count, 5);
        // A bucket is a fifth wide, and a sleep never ends early.
        assert!(sleeper.latency.percentile(0.0) >= SLEEP.as_nanos() as u64 * 4 / 5);
        assert!(sleeper.latency.sum >= 5 * SLEEP.as_nanos() as u64);
    }
}

#[test]
fn threads_that_take_turns_in_the_places_kept_in_mind_are_counted_apart() {
    let _dog = watchdog(120);
    needs_bpf!();
    // Four kinds of calls each: several times what a CPU keeps in mind.
    let many = Known { threads: 300, getppid: 50, bad_close: 50, sleeps: 2 };
    for timing in [false, true] {
        let rows =
            traced(&Options { by: By::Thread, timing, ..Options::default() }, &many.command(program()));
        let counts = |name| of(&rows, name).iter().map(|r| (r.count, r.failed)).collect::<Vec<_>>();
        assert_eq!(counts("getppid"), [(50, 0); 300]);
        assert_eq!(counts("clock_nanosleep"), [(2, 0); 300]);
        let close = of(&rows, "close");
        assert_eq!(close.iter().filter(|r| r.errors == [(libc::EBADF as u32, 50)]).count(), 300);
    }
}

#[test]
fn by_process_and_all_together_give_the_same_sums() {
    let _dog = watchdog(180);
    needs_bpf!();
    for by in [By::Process, By::Syscall] {
        let rows = traced(&Options { by, ..Options::default() }, &KNOWN.command(program()));
        let getppid = of(&rows, "getppid");
        assert_eq!((getppid.len(), getppid[0].count), (1, 20_000));
        assert_eq!(getppid[0].id == 0, by == By::Syscall);
    }
}

#[test]
fn each_means_of_attaching_counts_the_same() {
    let _dog = watchdog(180);
    needs_bpf!();
    for means in [Means::TpBtf, Means::RawTp, Means::Tracepoint] {
        // What follows a command has only the first means: here the filter is a name, which is a program's file name.
        let copy = std::env::temp_dir().join(format!("dd-{}", std::process::id()));
        let name = copy.file_name().unwrap().to_string_lossy().into_owned();
        let filter = Filter { comm: Some(name), ..Filter::default() };
        let o = Options { filter, timing: true, means: Some(means), ..Options::default() };
        let view = Syscalls::start(&o).unwrap_or_else(|e| panic!("{means}: {e}"));
        assert!(view.tracer().attached().iter().all(|a| a.means == means));
        // By another process: what a test of ours has open for writing, a child of another test may inherit, and then
        // it cannot be executed (ETXTBSY).
        assert!(Command::new("cp").arg("/bin/dd").arg(&copy).status().unwrap().success());
        let arguments = ["if=/dev/zero", "of=/dev/null", "bs=1", "count=3000", "status=none"];
        let status = Command::new(&copy).args(arguments).status();
        std::fs::remove_file(&copy).unwrap();
        assert!(status.unwrap().success());
        view.tracer().stop();
        let rows = view.read().unwrap();
        assert_eq!(count(&rows, "write"), 3000, "{means}");
        assert_eq!(of(&rows, "write")[0].latency.count(), 3000, "{means}");
    }
}

/// `strace -f -c`: calls and errors by name.
fn strace(words: &[&str]) -> BTreeMap<String, (u64, u64)> {
    let out = std::env::temp_dir().join(format!("bpf-trace-strace-{}", std::process::id()));
    let status = Command::new("strace").args(["-f", "-c", "-o"]).arg(&out).args(words).output().unwrap();
    assert!(status.status.success() || status.status.code().is_some());
    let text = std::fs::read_to_string(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    text.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let calls = cells.get(3)?.parse().ok()?;
            let name = *cells.last()?;
            let errors = if cells.len() == 6 { cells[4].parse().ok()? } else { 0 };
            (name != "total").then(|| (name.to_owned(), (calls, errors)))
        })
        .collect()
}

#[test]
fn strace_counts_the_same() {
    let _dog = watchdog(180);
    needs_bpf!();
    if Command::new("strace").arg("-V").output().is_err() {
        kit::skip!("strace", "not installed");
    }
    let script =
        "for i in 1 2 3; do cat /nonexistent; ls / >/dev/null; done 2>/dev/null; trap : USR1; kill -USR1 $$";
    let command = ["sh", "-c", script];
    let theirs = strace(&command);
    let mut ours = BTreeMap::<String, (u64, u64)>::new();
    for row in traced(&Options::default(), &words(&command)) {
        let sum = ours.entry(names::syscall(row.nr)).or_default();
        *sum = (sum.0 + row.count, sum.1 + row.failed);
    }
    // One for the trap, and one for each child that dash hears of.
    assert!(count_of(&ours, "rt_sigreturn").0 >= 1);
    // strace writes the call before it returns: exit_group it counts, we cannot. And a wait for a child may be begun
    // again by a signal.
    for name in ["exit_group", "exit", "wait4", "restart_syscall"] {
        ours.remove(name);
    }
    let theirs: BTreeMap<_, _> = theirs.into_iter().filter(|(name, _)| ours.contains_key(name)).collect();
    assert_eq!(ours, theirs);
    assert!(count_of(&ours, "openat").1 >= 3 && ours.len() > 15, "{ours:?}");
}

/// Both in the same run: bpftrace starts the workload, and is traced itself.
#[test]
fn bpftrace_counts_the_same() {
    let _dog = watchdog(180);
    needs_bpf!();
    // A tracefs of its own, for machines that have none.
    let script = "mount -t tracefs none /sys/kernel/tracing; exec bpftrace -o \"$0\" -e \"$1\" -c \"$2\"";
    let count_all =
        "tracepoint:raw_syscalls:sys_exit /pid == cpid/ { @[args->id, args->ret < 0] = count(); }";
    let workload: Vec<String> =
        KNOWN.command(program()).iter().map(|w| w.to_str().unwrap().to_owned()).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts");
    let bpftrace =
        ["unshare", "-m", "sh", "-c", script, file.to_str().unwrap(), count_all, &workload.join(" ")];
    let rows = traced(&Options::default(), &words(&bpftrace));
    let said = std::fs::read_to_string(&file).unwrap_or_default();
    // Lines such as "@[110, 0]: 20000".
    let number = |text: &str| text.trim_end_matches(']').parse::<u32>().ok();
    let theirs: BTreeMap<(u32, bool), u64> = said
        .lines()
        .filter_map(|line| {
            let (key, n) = line.strip_prefix("@[")?.split_once(": ")?;
            let (nr, failed) = key.split_once(", ")?;
            Some(((number(nr)?, number(failed)? == 1), n.parse().ok()?))
        })
        .collect();
    if theirs.is_empty() {
        kit::skip!("bpftrace", "it is not installed, or counts nothing here: {said}");
    }
    // The workload's own process is the one that calls getppid in four threads.
    let id = of(&rows, "getppid").iter().max_by_key(|r| r.count).unwrap().id;
    for (name, failed, made) in
        [("getppid", false, 20_000), ("close", true, 1_200), ("clock_nanosleep", false, 20)]
    {
        let ours: u64 = of(&rows, name)
            .iter()
            .filter(|r| r.id == id)
            .map(|r| if failed { r.failed } else { r.count - r.failed })
            .sum();
        let nr = names::syscall_number(name).unwrap();
        assert_eq!((ours, theirs.get(&(nr, failed)).copied()), (made, Some(made)), "{name}: {said}");
    }
}

fn count_of(counts: &BTreeMap<String, (u64, u64)>, name: &str) -> (u64, u64) {
    counts.get(name).copied().unwrap_or_default()
}

#[test]
fn filters_hold() {
    let _dog = watchdog(180);
    needs_bpf!();
    let dd = words(&["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=500", "status=none"]);
    let only = Options { syscall: names::syscall_number("write"), ..Options::default() };
    let rows = traced(&only, &dd);
    assert_eq!((rows.len(), count(&rows, "write")), (1, 500));
    let failed = Options { failed: true, by: By::Syscall, ..Options::default() };
    let rows = traced(&failed, &KNOWN.command(program()));
    assert_eq!(of(&rows, "close")[0].errors, [(libc::EBADF as u32, 1200)]);
    assert!(rows.iter().all(|r| r.failed == r.count));
    let slow = Options { slower_than: 4_000_000, by: By::Syscall, ..Options::default() };
    let rows = traced(&slow, &KNOWN.command(program()));
    assert_eq!(count(&rows, "clock_nanosleep"), 20);
    assert!(rows.iter().all(|r| r.latency.percentile(0.0) >= 3_200_000));
}

#[test]
fn a_process_a_user_and_a_cgroup_can_be_singled_out() {
    let _dog = watchdog(180);
    needs_bpf!();
    if !nix::unistd::geteuid().is_root() {
        kit::skip!("root", "another user's process takes root");
    }
    let spin = "read x; i=0; while [ $i -lt 50 ]; do umask 22; i=$((i+1)); done";
    let child = |uid: u32| {
        use std::os::unix::process::CommandExt as _;
        Command::new("sh").args(["-c", spin]).stdin(std::process::Stdio::piped()).uid(uid).spawn().unwrap()
    };
    let (mut one, mut other) = (child(65_533), child(65_533));
    let by_pid = Filter { pid: Some(one.id()), ..Filter::default() };
    let by_tid = Filter { tid: Some(one.id()), ..Filter::default() };
    let by_uid = Filter { uid: Some(65_533), ..Filter::default() };
    let views = [by_pid, by_tid, by_uid]
        .map(|filter| Syscalls::start(&Options { filter, ..Options::default() }).unwrap());
    for child in [&mut one, &mut other] {
        use std::io::Write as _;
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert!(child.wait().unwrap().success());
    }
    let counts = views.map(|v| {
        v.tracer().stop();
        count(&v.read().unwrap(), "umask")
    });
    // Each umask with an argument is two calls in dash's way of setting it, or one: what matters is the proportion.
    assert!(counts[0] >= 50 && counts[0] == counts[1] && counts[2] == 2 * counts[0], "{counts:?}");
}

#[test]
fn a_cgroup_can_be_singled_out() {
    let _dog = watchdog(180);
    needs_bpf!();
    let Some(parent) = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .map(std::path::Path::new)
        .find(|p| p.join("cgroup.controllers").exists())
    else {
        kit::skip!("cgroup2", "no cgroup v2 is mounted");
    };
    let folder = parent.join(format!("bpf-trace-{}", std::process::id()));
    if let Err(e) = std::fs::create_dir(&folder) {
        kit::skip!("root", "cannot make a cgroup: {e}");
    }
    let filter = Filter { cgroup: Some(Filter::cgroup_id(&folder).unwrap()), ..Filter::default() };
    let view = Syscalls::start(&Options { filter, ..Options::default() }).unwrap();
    let inside = format!(
        "echo $$ > {}/cgroup.procs && exec dd if=/dev/zero of=/dev/null bs=1 count=700 status=none",
        folder.display()
    );
    let ended = run(&words(&["sh", "-c", &inside])).ending();
    run(&words(&["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=900", "status=none"]));
    view.tracer().stop();
    let counted = count(&view.read().unwrap(), "write");
    std::fs::remove_dir(&folder).unwrap();
    assert_eq!(ended, "exited with 0");
    // The shell's own write into cgroup.procs returns inside.
    assert!((700..=701).contains(&counted), "{counted}");
    assert!(Filter::cgroup_id(std::path::Path::new("/tmp")).is_err());
}

#[test]
fn a_full_map_says_how_many_it_dropped() {
    let _dog = watchdog(180);
    needs_bpf!();
    let filter = Filter { follow: true, ..Filter::default() };
    let o = Options { filter, by: By::Syscall, entries: 4, ..Options::default() };
    let view = Syscalls::start(&o).unwrap();
    run(&KNOWN.command(program()));
    view.tracer().stop();
    let (rows, lost) = (view.read().unwrap(), view.tracer().lost().unwrap());
    let kept: u64 = rows.iter().map(|r| r.count).sum();
    assert!(rows.len() <= 4 && lost.map_full > 0, "{} rows, {lost:?}", rows.len());
    let all: u64 = traced(&Options { by: By::Syscall, ..Options::default() }, &KNOWN.command(program()))
        .iter()
        .map(|r| r.count)
        .sum();
    // Starting a program is not the same to the last call each time (locks that wait or do not).
    assert!((kept + lost.map_full).abs_diff(all) < 50, "{kept} + {} of {all}", lost.map_full);
}

#[test]
fn calls_by_the_32_bit_entry_are_told_apart() {
    let _dog = watchdog(180);
    needs_bpf!();
    let folder = std::env::temp_dir().join(format!("bpf-trace-compat-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let source = folder.join("compat.c");
    let code = r#"int main(void) { for (int i = 0; i < 7; i++) { long n = 20; __asm__ volatile("int $0x80" : "+a"(n)); } return 0; }"#;
    std::fs::write(&source, code).unwrap();
    let built = Command::new("cc").arg("-o").arg(folder.join("compat")).arg(&source).status();
    if !built.is_ok_and(|s| s.success()) {
        kit::skip!("cc", "no C compiler");
    }
    let rows = traced(&Options::default(), &[folder.join("compat").into()]);
    std::fs::remove_dir_all(&folder).unwrap();
    let compat: Vec<_> = rows.iter().filter(|r| names::syscall(r.nr).starts_with("i386:")).collect();
    if compat.is_empty() {
        // Without CONFIG_IA32_EMULATION the program ends by a signal.
        kit::skip!("ia32", "this kernel has no 32-bit entry");
    }
    assert_eq!((names::syscall(compat[0].nr).as_str(), compat[0].count), ("i386:20", 7));
}

#[test]
fn descendants_are_followed_and_nobody_else() {
    let _dog = watchdog(180);
    needs_bpf!();
    let writes = "dd if=/dev/zero of=/dev/null bs=1 count=400 status=none";
    // A child, a grandchild, one in the background that outlives its parent, and a thread pool are all its own.
    let script = format!("{writes}; sh -c '{writes}'; (({writes}) & ); sleep 0.2; setsid {writes}");
    let stranger = std::thread::spawn(|| {
        let _ = Command::new("dd")
            .args(["if=/dev/zero", "of=/dev/null", "bs=1", "count=4000", "status=none"])
            .status();
    });
    let o = Options { syscall: names::syscall_number("write"), ..Options::default() };
    let rows = traced(&o, &words(&["sh", "-c", &script]));
    stranger.join().unwrap();
    assert_eq!(rows.iter().map(|r| r.count).collect::<Vec<_>>(), [400; 4]);
}
