//! Stacks and their names, held against programs whose functions are known.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use bpf_trace::Filter;
use bpf_trace::command::{Wait, Wake};
use bpf_trace::kallsyms::Kallsyms;
use bpf_trace::offcpu::{self, Offcpu, State};
use bpf_trace::profile::{self, Profile};
use bpf_trace::stacks::{Kind, Stack};
use kit::testing::watchdog;
use std::os::fd::AsFd as _;

fn has_bpf() -> bool {
    kit::probe::finding("bpf.tp_btf").is_some_and(|f| f.works())
        && kit::probe::finding("perf_event").is_some_and(|f| f.works())
}

/// Works or sleeps, each in functions of a known name, when it is told to by a word on its standard input.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <string.h>
#include <sys/mman.h>
#define KEEP __attribute__((noinline))
/* push %rbp; mov %rsp,%rbp; 1: dec %rdi; jnz 1b; pop %rbp; ret */
static const unsigned char loop[] = { 0x55, 0x48, 0x89, 0xe5, 0x48, 0xff, 0xcf, 0x75, 0xfb, 0x5d, 0xc3 };
static void *made;
static volatile unsigned long n;
KEEP void known_busy(void) { for (unsigned long i = 0; i < 50000000; i++) n += i; n++; }
KEEP void known_middle(void) { for (int i = 0; i < 3; i++) known_busy(); n++; }
KEEP void known_worker(void) { for (int i = 0; i < 2; i++) known_middle(); n++; }
KEEP void known_nap(void) { struct timespec t = { 0, 50000000 }; clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0); n++; }
KEEP void known_sleeper(void) { for (int i = 0; i < 10; i++) known_nap(); n++; }
int main(void)
{
	char c;
	while (read(0, &c, 1) == 1) {
		if (c == 'w') known_worker();
		if (c == 's') known_sleeper();
		if (c == 'm') { /* makes a function, and says where it is */
			made = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			memcpy(made, loop, sizeof(loop));
			printf("%lx\n", (long)made);
			fflush(stdout);
		}
		if (c == 'c') ((void (*)(long))made)(1000000000);
		if (c == 'd') { write(1, "done\n", 5); }
	}
	return 0;
}
"#;

struct Program {
    child: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    path: PathBuf,
}

impl Program {
    /// Compiles it, with frame pointers; `None` without a compiler.
    fn start(folder: &Path, options: &[&str]) -> Option<Self> {
        let (source, path) = (folder.join("known.c"), folder.join("known"));
        std::fs::write(&source, PROGRAM).unwrap();
        let compiled = Command::new("cc")
            .args(["-O1", "-w", "-fno-optimize-sibling-calls"])
            .args(["-fno-omit-frame-pointer", "-o"])
            .args([&path, &source])
            .args(options)
            .status();
        if !compiled.is_ok_and(|s| s.success()) {
            return None;
        }
        let mut child = Command::new(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let words = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, words, answers, path })
    }

    fn filter(&self) -> Filter {
        Filter { pid: Some(self.child.id()), ..Filter::default() }
    }

    fn tell(&mut self, words: &str) {
        self.words.as_mut().unwrap().write_all(words.as_bytes()).unwrap();
    }

    fn hear(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.words = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes samples in while the program works, as the lab itself does.
fn sampled(program: Program, frequency: u64) -> (Vec<Stack>, Profile, Program) {
    sampled_at(program, frequency, "wd")
}

fn sampled_at(mut program: Program, frequency: u64, words: &str) -> (Vec<Stack>, Profile, Program) {
    let options = profile::Options { filter: program.filter(), frequency };
    let mut view = Profile::start(&options).unwrap();
    program.tell(words);
    let heard = std::thread::spawn(move || {
        program.hear();
        program
    });
    while !heard.is_finished() {
        view.take();
        std::thread::sleep(Duration::from_millis(5));
    }
    let program = heard.join().unwrap();
    view.take();
    assert_eq!(view.tracer().lost().unwrap().events(), 0);
    (view.stacks(&Kallsyms::read(), Some(program.child.id())), view, program)
}

#[test]
fn bpftrace_finds_the_same_function() {
    let _dog = watchdog(180);
    if !has_bpf() {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(mut program) = Program::start(folder.path(), &[]) else {
        kit::skip!("cc", "no C compiler");
    };
    let script = format!(
        "profile:hz:199 /pid == {}/ {{ @[ustack(1)] = count(); @n++; if (@n == 50) {{ exit(); }} }}",
        program.child.id()
    );
    let other =
        Command::new("bpftrace").args(["-e", &script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut other) = other else {
        kit::skip!("bpftrace", "it is not installed");
    };
    // It works until bpftrace has seen enough of it.
    while other.try_wait().unwrap().is_none() {
        program.tell("wd");
        program.hear();
    }
    let mut said = String::new();
    std::io::Read::read_to_string(&mut other.stdout.take().unwrap(), &mut said).unwrap();
    if !said.contains("@[") {
        kit::skip!("bpftrace", "it took no sample here: {said}");
    }
    let (stacks, ..) = sampled(program, 199);
    // Its counts: lines of a function and its offset, then "]: 12".
    let mut theirs = std::collections::BTreeMap::<&str, u64>::new();
    let mut at = "";
    for line in said.lines().map(str::trim) {
        match line.strip_prefix("]: ") {
            Some(n) => *theirs.entry(at).or_default() += n.parse::<u64>().unwrap(),
            None => at = line.split('+').next().unwrap_or(line),
        }
    }
    let (name, _) = theirs.iter().max_by_key(|(_, n)| **n).unwrap();
    let leaves = bpf_trace::stacks::leaves(&stacks);
    assert_eq!((*name, leaves[0].0.name.as_str()), ("known_busy", "known_busy"), "{said}");
}

fn has(stack: &Stack, name: &str) -> bool {
    stack.frames.iter().any(|f| f.name == name)
}

fn weight(stacks: &[Stack], wanted: impl Fn(&Stack) -> bool) -> u64 {
    stacks.iter().filter(|s| wanted(s)).map(|s| s.weight).sum()
}

#[test]
fn a_busy_function_is_found_with_its_callers() {
    let _dog = watchdog(180);
    if !has_bpf() {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = Program::start(folder.path(), &[]) else {
        kit::skip!("cc", "no C compiler");
    };
    let (stacks, view, _program) = sampled(program, 499);
    let all = weight(&stacks, |_| true);
    assert_eq!(all, view.count());
    assert!(all > 0, "it was on a CPU for longer than a tick");
    let busy = weight(&stacks, |s| {
        let of = |name| s.frames.iter().position(|f| f.name == name && f.kind == Kind::User);
        let (main, worker, busy) = (of("main"), of("known_worker"), of("known_busy"));
        // known_busy calls nobody, so it may be without a frame and hide its caller, but not that one's callers.
        main.is_some() && main < worker && worker < busy
    });
    assert!(busy * 2 > all, "{busy} of {all}: {stacks:#?}");
    assert!(stacks.iter().all(|s| s.frames[0].name == "known" && s.frames[0].kind == Kind::Thread));
}

#[test]
fn names_of_what_is_gone_deleted_or_stripped() {
    let _dog = watchdog(180);
    if !has_bpf() {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    let folder = tempfile::tempdir().unwrap();
    // Deleted before the trace begins: still there by way of the process's mapping.
    let Some(program) = Program::start(folder.path(), &[]) else {
        kit::skip!("cc", "no C compiler");
    };
    std::fs::remove_file(&program.path).unwrap();
    let (stacks, ..) = sampled(program, 499);
    assert!(weight(&stacks, |s| has(s, "known_busy")) * 2 > weight(&stacks, |_| true), "{stacks:#?}");

    // Stripped: the file and where in it the function begins, one place for all samples in it.
    let program = Program::start(folder.path(), &["-s"]).unwrap();
    std::fs::remove_file(&program.path).unwrap();
    let (stacks, view, program) = sampled(program, 499);
    let leaves = bpf_trace::stacks::leaves(&stacks);
    let (first, n) = &leaves[0];
    assert!(first.name.starts_with("known (deleted)+0x") && first.kind == Kind::Nameless, "{first:?}");
    assert!(n * 2 > view.count(), "{leaves:?}");

    // The process is gone: what has been seen of it stays.
    let pid = program.child.id();
    drop(program);
    assert_eq!(view.stacks(&Kallsyms::read(), Some(pid)), stacks);
}

/// One nap of the program.
const NAP: u64 = 50_000_000;

fn in_nap(row: &offcpu::Row) -> bool {
    let has = |part: &str| row.frames.iter().any(|f| f.name.contains(part));
    has("known_sleeper") && has("nanosleep")
}

#[test]
fn a_sleeper_is_found_where_it_sleeps() {
    let _dog = watchdog(180);
    if !has_bpf() {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(mut program) = Program::start(folder.path(), &[]) else {
        kit::skip!("cc", "no C compiler");
    };
    let mut view =
        Offcpu::start(&offcpu::Options { filter: program.filter(), ..Default::default() }).unwrap();
    // It sleeps ten times, and is then asleep until the end.
    program.tell("sd");
    let mut wait = Wait::new(None, Duration::from_secs(60)).unwrap();
    assert_eq!(wait.next(Some(program.answers.get_ref().as_fd()), None).unwrap(), Wake::Events);
    program.hear();
    while !std::fs::read_to_string(format!("/proc/{}/status", program.child.id()))
        .unwrap()
        .contains("State:\tS")
    {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_nanos(2 * NAP));
    view.take().unwrap();
    view.tracer().stop();
    view.sweep().unwrap();
    let rows = view.read(Some(&Kallsyms::read())).unwrap();
    let (notes, lost) = (view.notes().unwrap(), view.tracer().lost().unwrap());
    assert_eq!((lost.events(), notes.stacks_lost), (0, 0));
    assert!(rows.iter().all(|r| r.comm == "known" && r.max <= r.ns && r.ns <= r.count * r.max), "{rows:#?}");
    // Each nap is one time or more: it may be preempted on its way to bed, after its alarm has been set, and is then
    // away for two times that are shorter.
    let naps: u64 = rows.iter().filter(|r| in_nap(r)).map(|r| r.count).sum();
    assert!(naps + notes.unseen >= 10, "{rows:#?}");
    let time: u64 = rows.iter().filter(|r| in_nap(r)).map(|r| r.ns).sum();
    assert!(time + notes.unseen * NAP >= 5 * NAP, "{rows:#?}");
    assert!(rows.iter().any(|r| in_nap(r) && r.state == State::Sleeping), "{rows:#?}");
    // The last wait, for a word, had not ended.
    let open: Vec<_> = rows.iter().filter(|r| r.open > 0).collect();
    let [wait] = open.as_slice() else { panic!("{rows:#?}") };
    assert!(wait.open == 1 && wait.state == State::Sleeping && wait.max >= NAP, "{wait:#?}");
}

#[test]
fn bounds_leave_out_what_is_outside() {
    let _dog = watchdog(180);
    if !has_bpf() {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(mut program) = Program::start(folder.path(), &[]) else {
        kit::skip!("cc", "no C compiler");
    };
    let bound = NAP / 2;
    let long = offcpu::Options { filter: program.filter(), slower_than: bound, faster_than: None };
    let short = offcpu::Options { slower_than: 0, faster_than: Some(bound), ..long.clone() };
    let (mut long, mut short) = (Offcpu::start(&long).unwrap(), Offcpu::start(&short).unwrap());
    program.tell("sdd");
    program.hear();
    program.hear();
    let kernel = Kallsyms::read();
    let (long, short) = (long.read(Some(&kernel)).unwrap(), short.read(Some(&kernel)).unwrap());
    assert!(long.iter().any(|r| r.count > 0), "ten naps, and none as long as half of one");
    assert!(long.iter().all(|r| r.ns >= r.count * bound), "{long:#?}");
    assert!(short.iter().all(|r| r.max <= bound), "{short:#?}");
}

/// A file in /tmp that goes with the test.
struct Left(PathBuf);

impl Drop for Left {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn code_made_at_run_time_has_the_name_that_its_maker_tells() {
    let _dog = watchdog(240);
    if !has_bpf() {
        kit::skip!("bpf.tp_btf", "cannot load a tracing program here");
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(mut program) = Program::start(folder.path(), &[]) else {
        kit::skip!("cc", "no C compiler");
    };
    program.tell("m");
    let mut at = String::new();
    program.answers.read_line(&mut at).unwrap();
    let leaf = |stacks: &[Stack]| bpf_trace::stacks::leaves(stacks)[0].0.clone();
    let (stacks, _, program) = sampled_at(program, 499, "cd");
    let nameless = leaf(&stacks);
    assert_eq!((nameless.kind, nameless.name.as_str()), (Kind::Nameless, "[code made at run time]"));

    let map = Left(format!("/tmp/perf-{}.map", program.child.id()).into());
    std::fs::write(&map.0, format!("{} b a name; with \x1b[2J in it\n", at.trim())).unwrap();
    let (stacks, view, program) = sampled_at(program, 499, "cd");
    let named = leaf(&stacks);
    assert_eq!((named.kind, named.name.as_str()), (Kind::User, "a name; with \x1b[2J in it"));
    let folded = bpf_trace::stacks::folded(&stacks, 1);
    assert!(folded.contains(";a name: with ?[2J in it "), "{folded}");
    // What is appended while it is traced holds, too.
    std::fs::write(&map.0, format!("{} b old\n{0} b new\n", at.trim())).unwrap();
    assert_eq!(leaf(&view.stacks(&Kallsyms::read(), Some(program.child.id()))).name, "new");
}
