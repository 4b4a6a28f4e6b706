//! The view `open`, held against strace in the same run, and against what a command is known to open.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use bpf_trace::command::{Running, Wait, Wake};
use bpf_trace::open::{Open, Opens, Options};
use bpf_trace::{Filter, Lost, names, workload};
use kit::testing::watchdog;

/// An event that has left the ring.
#[derive(Debug, Clone, PartialEq)]
struct Opened {
    pid: u32,
    tid: u32,
    at: u64,
    ns: u64,
    path: Option<Vec<u8>>,
    folder: Option<String>,
    cut: bool,
    errno: Option<u32>,
    /// As strace writes it, flags in the order of the alphabet.
    text: String,
}

impl Opened {
    fn of(e: &Open<'_>) -> Self {
        let dirfd = if e.dirfd == libc::AT_FDCWD { "AT_FDCWD".into() } else { e.dirfd.to_string() };
        let path = String::from_utf8_lossy(e.path.unwrap_or(b"?"));
        let flags = sorted(&names::open_flags(e.flags));
        let mode = if e.makes() { format!(", {:#05o}", e.mode).replace("0o", "0") } else { String::new() };
        let result = e.errno().map_or_else(|| e.result.to_string(), |e| format!("-1 {}", names::errno(e)));
        let text = match names::open_call(e.call) {
            "openat" => format!("openat({dirfd}, \"{path}\", {flags}{mode}) = {result}"),
            "creat" => format!("creat(\"{path}\"{mode}) = {result}"),
            "openat2" => {
                let resolve = names::resolve_flags(e.resolve);
                format!("openat2({dirfd}, \"{path}\", {{flags={flags}, resolve={resolve}}}, 24) = {result}")
            }
            call => format!("{call}(\"{path}\", {flags}{mode}) = {result}"),
        };
        Self {
            pid: e.pid,
            tid: e.tid,
            at: e.at,
            ns: e.ns,
            path: e.path.map(<[u8]>::to_vec),
            folder: e.folder().map(|f| String::from_utf8_lossy(&f).into_owned()),
            cut: e.is_cut(),
            errno: e.errno(),
            text,
        }
    }

    fn is(&self, path: &str) -> bool {
        self.path.as_deref() == Some(path.as_bytes())
    }
}

/// `O_B|O_A` in the order of the alphabet.
fn sorted(flags: &str) -> String {
    let mut flags: Vec<&str> = flags.split('|').collect();
    flags.sort_unstable();
    flags.join("|")
}

/// What a command and its descendants open.
fn traced(o: &Options, words: &[OsString]) -> (Vec<Opened>, Lost) {
    let o = Options { filter: Filter { follow: true, ..o.filter.clone() }, ..o.clone() };
    let mut view = Opens::start(&o).unwrap();
    let mut command = Running::start(words, true).unwrap();
    let mut wait = Wait::new(None, Duration::from_secs(3600)).unwrap();
    let mut events = Vec::new();
    while wait.next(Some(view.ring()), Some(&mut command)).unwrap() != Wake::Ended {
        view.take(|e| events.push(Opened::of(&e)));
    }
    view.tracer().stop();
    view.take(|e| events.push(Opened::of(&e)));
    (events, view.tracer().lost().unwrap())
}

fn shell(script: &str) -> Vec<OsString> {
    common::words(&["sh", "-c", script])
}

/// A folder of the test's own.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("benchtop-open-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Calls by PID from what `strace -f -o` wrote, in the form of [`Opened::text`].
fn calls_of_strace(text: &str) -> BTreeMap<u32, Vec<String>> {
    let mut calls: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut unfinished: BTreeMap<u32, String> = BTreeMap::new();
    for line in text.lines() {
        let (pid, rest) = line.split_once(' ').unwrap();
        let (pid, mut rest) = (pid.parse().unwrap(), rest.trim_start().to_owned());
        if let Some(begin) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, begin.to_owned());
            continue;
        }
        if rest.starts_with("<...") {
            let end = rest.split_once("resumed>").unwrap().1.to_owned();
            rest = unfinished.remove(&pid).unwrap() + &end;
        }
        let Some((call, result)) = rest.rsplit_once(" = ") else { continue }; // +++ exited, --- SIGCHLD
        // strace lines the results up, and explains errors in brackets.
        let result = result.split(" (").next().unwrap();
        let words: Vec<String> = call.trim_end().split(", ").map(in_order).collect();
        calls.entry(pid).or_default().push(format!("{} = {result}", words.join(", ")));
    }
    calls
}

/// A word of strace's, its flags in the order of the alphabet.
fn in_order(word: &str) -> String {
    if word.starts_with('"') || !word.contains('|') {
        return word.to_owned();
    }
    let begin = word.find(|c: char| c.is_ascii_uppercase()).unwrap();
    let end = word.trim_end_matches(')').len();
    format!("{}{}{}", &word[..begin], sorted(&word[begin..end]), &word[end..])
}

#[test]
fn strace_sees_the_same_in_the_same_run() {
    let _dog = watchdog(180);
    needs_bpf!();
    if !has("strace") {
        kit::skip!("strace", "nothing to compare with");
    }
    let folder = Folder::new("strace");
    let file = folder.0.join("calls");
    let script = format!(
        "cd {}; cat /etc/passwd /no/such ./nope & ls -l / & find /etc -maxdepth 1 -name 'p*'; \
         echo a >made; echo b >>made; cat <made; : >/no/such/place; wait",
        folder.path()
    );
    let trace = "trace=open,openat,openat2,creat";
    let mut words = common::words(&["strace", "-f", "-s", "4096", "-e", trace, "-o"]);
    words.extend([file.clone().into(), "sh".into(), "-c".into(), script.into()]);
    let (events, lost) = traced(&Options::default(), &words);
    assert_eq!(lost, Lost::default());
    let theirs = calls_of_strace(&fs::read_to_string(&file).unwrap());
    assert!(theirs.len() >= 4 && theirs.values().map(Vec::len).sum::<usize>() > 30, "{theirs:?}");
    for (pid, calls) in theirs {
        let ours: Vec<String> = events.iter().filter(|e| e.pid == pid).map(|e| e.text.clone()).collect();
        assert_eq!(ours, calls, "process {pid}");
    }
    let nope = events.iter().find(|e| e.is("./nope")).unwrap();
    assert_eq!(nope.folder.as_deref(), Some(folder.path()));
}

#[test]
fn each_of_the_four_calls_is_decoded() {
    let _dog = watchdog(180);
    needs_bpf!();
    if !has("perl") {
        kit::skip!("perl", "the calls are made by it");
    }
    let folder = Folder::new("calls");
    let d = folder.path();
    fs::create_dir_all(folder.0.join("deep/er")).unwrap();
    // Numbers of arch/x86/entry/syscalls/syscall_64.tbl. Descriptors are handed out from the lowest on.
    let script = format!(
        r#"chdir "{d}/deep"; my $dir = "{d}/deep/er\0"; my $name = "made\0"; my $bad = "bad\0"; my $up = "../x\0";
        my $null = "/dev/null\0";
        my $fd = syscall(2, $dir, 0200000);
        syscall(85, $name, 0640);
        syscall(257, $fd, $name, 0302, 0600);
        syscall(257, $fd, $name, 0302, 0600);
        my $how = pack("QQQ", 010000000, 0, 8);
        syscall(437, $fd, $up, $how, 24);
        my $in = pack("QQQ", 0, 0, 16);
        syscall(437, $fd, $null, $in, 24);
        syscall(257, 99, $bad, 0);
        syscall(257, -100, 1, 0);"#
    );
    let (events, lost) = traced(&Options::default(), &common::words(&["perl", "-e", &script]));
    let own: Vec<_> = events.iter().skip_while(|e| !e.is(&format!("{d}/deep/er"))).collect();
    let texts: Vec<&str> = own.iter().map(|e| e.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            &format!("open(\"{d}/deep/er\", O_DIRECTORY|O_RDONLY) = 3"),
            "creat(\"made\", 0640) = 4",
            "openat(3, \"made\", O_CREAT|O_EXCL|O_RDWR, 0600) = 5",
            "openat(3, \"made\", O_CREAT|O_EXCL|O_RDWR, 0600) = -1 EEXIST",
            "openat2(3, \"../x\", {flags=O_PATH|O_RDONLY, resolve=RESOLVE_BENEATH}, 24) = -1 EXDEV",
            "openat2(3, \"/dev/null\", {flags=O_RDONLY, resolve=RESOLVE_IN_ROOT}, 24) = -1 ENOENT",
            "openat(99, \"bad\", O_RDONLY) = -1 EBADF",
            "openat(AT_FDCWD, \"?\", O_RDONLY) = -1 EFAULT",
        ]
    );
    let (deep, deeper) = (format!("{d}/deep"), format!("{d}/deep/er"));
    let folders: Vec<Option<&str>> = own.iter().map(|e| e.folder.as_deref()).collect();
    let inside = Some(deeper.as_str());
    assert_eq!(folders, [None, Some(&*deep), inside, inside, inside, inside, None, None]);
    assert_eq!(own[7].path, None);
    assert_eq!((lost.unread, lost.events()), (1, 0), "the one at address 1");
}

#[test]
fn a_folder_is_named_across_mounts_and_below_a_root() {
    let _dog = watchdog(180);
    needs_bpf!();
    let folder = Folder::new("mounts");
    let probe = Command::new("unshare").args(["--mount", "true"]).status();
    if !probe.is_ok_and(|s| s.success()) {
        kit::skip!("root", "unshare --mount does not work here");
    }
    let d = folder.path();
    let deep: String = (0..70).map(|n| format!("/{n}")).collect();
    let script = format!(
        "mkdir -p {d}/a && mount -t tmpfs none {d}/a && mkdir -p {d}/a/b/c && cd {d}/a/b/c && cat one; \
         mount --bind . {d}/a/b && cd {d}/a/b && cat two; cd / && cat three; \
         mkdir -p {d}/a/deep{deep} && cd {d}/a/deep{deep} && cat four; \
         cd /proc/self && cat five"
    );
    let (events, _) = traced(
        &Options { failed: true, ..Options::default() },
        &common::words(&["unshare", "--mount", "sh", "-c", &script]),
    );
    let of = |path: &str| events.iter().find(|e| e.is(path)).unwrap().folder.clone().unwrap();
    assert_eq!(of("one"), format!("{d}/a/b/c"));
    assert_eq!(of("two"), format!("{d}/a/b"));
    assert_eq!(of("three"), "/");
    let four = of("four");
    // Deeper than the program climbs: the end of it, and a mark.
    let end = four.strip_prefix('\u{2026}').unwrap();
    assert!(deep.ends_with(end) && end.matches('/').count() == 64, "{four}");
    assert!(of("five").strip_prefix("/proc/").is_some_and(|pid| pid.parse::<u32>().is_ok()));
}

#[test]
fn paths_are_whole_whatever_is_in_them() {
    let _dog = watchdog(180);
    needs_bpf!();
    let odd: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
    let longest = [&b"/"[..], &b"./".repeat(2045), b"nope"].concat();
    assert_eq!(longest.len(), 4095, "PATH_MAX, the NUL included, is 4096");
    let too_long = [&longest[..], b"X"].concat();
    let as_word = |b: &[u8]| -> OsString { std::os::unix::ffi::OsStringExt::from_vec(b.to_vec()) };
    let mut words = common::words(&["cat", "--"]);
    words.extend([as_word(&odd), as_word(&longest), as_word(&too_long), "".into()]);
    let (events, lost) = traced(&Options { failed: true, ..Options::default() }, &words);
    assert_eq!(lost, Lost::default());
    let of = |path: &[u8], errno: i32| {
        let found = events.iter().find(|e| e.path.as_deref() == Some(path) && e.errno == Some(errno as u32));
        found.unwrap_or_else(|| panic!("{}", path.escape_ascii())).cut
    };
    assert!(!of(&odd, libc::ENOENT));
    assert!(!of(&longest, libc::ENOENT));
    assert!(of(&longest, libc::ENAMETOOLONG), "one byte more: cut, and said so");
    assert!(!of(b"", libc::ENOENT));
}

#[test]
fn exactly_what_was_opened_is_told_of_each_thread() {
    let _dog = watchdog(180);
    needs_bpf!();
    let (events, lost) = traced(&Options::default(), &workload::opener(common::program(), 3, 5000));
    assert_eq!(lost, Lost::default());
    let own: Vec<_> = events.iter().filter(|e| e.is(workload::NOWHERE)).collect();
    let mut by_thread: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for e in &own {
        assert_eq!(e.errno, Some(libc::EINVAL as u32));
        by_thread.entry(e.tid).or_default().push(e.at);
    }
    assert_eq!(by_thread.values().map(Vec::len).collect::<Vec<_>>(), [5000; 3]);
    assert!(by_thread.values().all(|at| at.is_sorted()), "of one thread, in the order in which it called");
    assert_eq!(own.iter().map(|e| e.pid).collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn of_a_million_none_is_missed_or_it_is_said() {
    let _dog = watchdog(300);
    needs_bpf!();
    let o =
        Options { filter: Filter { follow: true, ..Filter::default() }, failed: true, ..Options::default() };
    let mut view = Opens::start(&o).unwrap();
    let words = workload::opener(common::program(), 2, 500_000);
    let mut command = Running::start(&words, true).unwrap();
    let mut wait = Wait::new(None, Duration::from_secs(3600)).unwrap();
    let mut seen = 0_u64;
    let mut take =
        |view: &mut Opens| view.take(|e| seen += u64::from(e.path == Some(workload::NOWHERE.as_bytes())));
    while wait.next(Some(view.ring()), Some(&mut command)).unwrap() != Wake::Ended {
        take(&mut view);
    }
    view.tracer().stop();
    take(&mut view);
    let lost = view.tracer().lost().unwrap();
    assert_eq!((lost.map_full, lost.unread, lost.recursion), (0, 0, 0));
    // Whatever else fails to open in it (the C library looks here and there) may be among the lost.
    let missing = 1_000_000 - seen;
    assert!(missing <= lost.ring_full && lost.ring_full <= missing + 100, "{seen} seen, {lost:?}");
}

#[test]
fn a_full_ring_is_told() {
    let _dog = watchdog(180);
    needs_bpf!();
    let filter = Filter { follow: true, ..Filter::default() };
    let mut view = Opens::start(&Options { filter, failed: true, ring: 4096, ..Options::default() }).unwrap();
    // Nobody reads while it runs.
    common::run(&workload::opener(common::program(), 1, 1000));
    view.tracer().stop();
    let mut there = 0;
    view.take(|_| there += 1);
    let lost = view.tracer().lost().unwrap();
    assert!(there > 0 && there < 100, "{there} in 4096 bytes");
    assert!(there + lost.ring_full >= 1000, "{there} and {lost:?}");
    assert_eq!(lost.events(), lost.ring_full);
}

#[test]
fn only_failures_and_only_slow_ones() {
    let _dog = watchdog(180);
    needs_bpf!();
    let folder = Folder::new("slow");
    let d = folder.path();
    let script = format!("mkfifo {d}/pipe; cat {d}/pipe & sleep 0.2; echo >{d}/pipe; cat /no/such; wait");
    let slow = Options { slower_than: 50_000_000, ..Options::default() };
    let (events, lost) = traced(&slow, &shell(&script));
    assert_eq!(lost, Lost::default());
    // A FIFO's reader waits in open until there is a writer.
    assert!(events.iter().any(|e| e.is(&format!("{d}/pipe")) && e.errno.is_none()));
    assert!(events.iter().all(|e| e.ns >= slow.slower_than), "{events:?}");
    fs::remove_file(folder.0.join("pipe")).unwrap();
    let (events, _) = traced(&Options { failed: true, ..Options::default() }, &shell(&script));
    assert!(events.iter().any(|e| e.is("/no/such")));
    assert!(events.iter().all(|e| e.errno.is_some()));
}

/// Runs the lab on a command that opens a thousand times; its exit code, output and errors.
fn lab(options: &str, redirect: &str) -> (i32, String, String) {
    let program = common::program().display();
    let opener = workload::opener(common::program(), 1, 1000);
    let opener: Vec<&str> = opener.iter().map(|w| w.to_str().unwrap()).collect();
    let line = format!("{program} {options} -- {} {redirect}", opener.join(" "));
    let out = Command::new("bash").args(["-o", "pipefail", "-c", &line]).output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn a_line_of_json_an_event_and_the_document_last() {
    let _dog = watchdog(180);
    needs_bpf!();
    let (code, out, err) = lab("open --failed --json", "");
    assert_eq!(code, 0, "{err}");
    let at = out.find("\n{\n").unwrap() + 1;
    let document: serde_json::Value = serde_json::from_str(&out[at..]).unwrap();
    let events: Vec<serde_json::Value> =
        out[..at].lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let own: Vec<_> = events.iter().filter(|e| e["path"] == workload::NOWHERE).collect();
    assert_eq!(own.len(), 1000);
    assert_eq!((&own[0]["error"], &own[0]["call"]), (&"EINVAL".into(), &"openat".into()));
    assert_eq!(own[0]["flags"], "O_RDONLY|O_TMPFILE");
    let metric = |name: &str| document["metrics"][name]["value"].as_f64().unwrap() as usize;
    assert_eq!((metric("events"), metric("lost")), (events.len(), 0));
    assert_eq!(document["ok"], true);
}

#[test]
fn a_reader_that_leaves_is_success_and_a_full_disk_is_not() {
    let _dog = watchdog(180);
    needs_bpf!();
    for view in ["open", "open --json"] {
        let (code, out, err) = lab(view, "| head -n 1");
        assert_eq!((code, out.lines().count()), (0, 1), "{view}: {err}");
        let (code, _, err) = lab(view, "> /dev/full");
        assert_eq!(code, 1, "{view}: {err}");
        assert!(err.contains("No space left on device"), "{err}");
    }
}

#[test]
fn a_narrow_terminal_folds_lines() {
    let _dog = watchdog(180);
    needs_bpf!();
    if !has("script") {
        kit::skip!("script", "no terminal to show it on");
    }
    let folder = Folder::new("narrow");
    let long = format!("{}/{}", folder.path(), "long".repeat(30));
    // The command is silent: what it writes to the same terminal is not folded.
    let cat = format!("sh -c 'cat {long} 2>/dev/null'");
    let inner = format!("stty cols 40; {} open --failed -- {cat}", common::program().display());
    let typescript = folder.0.join("typescript");
    let out = Command::new("script").args(["-qec", &inner]).arg(&typescript).stdin(Stdio::null()).output();
    assert!(out.unwrap().status.success());
    let text = fs::read_to_string(&typescript).unwrap().replace('\r', "");
    let begin = text.find("at s").unwrap();
    let end = begin + text[begin..].find("\n   opens ").unwrap();
    let lines = &text[begin..end];
    assert!(lines.lines().all(|l| l.chars().count() <= 40), "{lines}");
    assert!(lines.replace("\n      ", "").contains(&long), "{lines}");
}
