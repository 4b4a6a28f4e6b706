//! A class of fifty, graded in one command that is interrupted midway and started again: everybody has a report, a row
//! and the points that are due, whatever the others handed in.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use kit::testing::watchdog;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::demo::{Demo, demo};

const STUDENTS: usize = 50;

/// What somebody handed in.
enum Work<'a> {
    /// A file of the demo lab's.
    Like(&'a str),
    /// What `add` does.
    Body(&'a str),
    Bytes(&'a [u8]),
    Link,
    Nothing,
}

/// Most of a class, again and again; and what it comes to.
const USUAL: [(Work<'static>, &str); 5] = [
    (Work::Like("solutions/ex1.rs"), "5,6,1,true"),
    (Work::Like("wrong/ex1_saturates.rs"), "3,6,1,true"),
    (Work::Like("ex1.rs"), "0,6,0,true"),
    (Work::Like("solutions/ex1.rs"), "5,6,1,true"),
    (Work::Like("solutions/ex2.rs"), "0,6,0,true"),
];

/// One of each, among them.
const ODD: [(Work<'static>, &str); 8] = [
    (Work::Body("std::process::exit(0)"), "0,6,1,true"),
    (Work::Body("std::process::abort()"), "0,6,1,true"),
    (Work::Body("loop {}"), "0,6,1,true"),
    (
        Work::Body(
            r#"loop { let _ = std::process::Command::new("/bin/sh").args(["-c", "f() { f | f & }; f; sleep 7120"]).spawn(); }"#,
        ),
        "0,6,1,true",
    ),
    (Work::Body("this is not Rust"), "0,6,0,true"),
    (Work::Bytes(&[0xff, 0xfe]), "0,6,0,true"),
    (Work::Link, "0,6,0,true"),
    (Work::Nothing, "0,6,0,true"),
];

/// Hands in, for everybody; and what each is to get.
fn hand_in(demo: &Demo, class: &Path) -> BTreeMap<String, &'static str> {
    (0..STUDENTS)
        .map(|n| {
            let odd = (n % 6 == 5).then(|| &ODD[n / 6 % ODD.len()]);
            let (work, due) = odd.unwrap_or(&USUAL[n % USUAL.len()]);
            let name = format!("student-{n:02}");
            let folder = class.join(&name).join("labs/demo/exercises");
            fs::create_dir_all(&folder).unwrap();
            let file = folder.join("ex1.rs");
            match work {
                Work::Like(other) => drop(fs::copy(demo.exercise(other), file).unwrap()),
                Work::Body(body) => {
                    let text = format!("#![allow(warnings)]\npub fn add(a: u8, b: u8) -> u8 {{ {body} }}\n");
                    fs::write(file, text).unwrap();
                }
                Work::Bytes(bytes) => fs::write(file, bytes).unwrap(),
                Work::Link => symlink(demo.exercise("solutions/ex1.rs"), file).unwrap(),
                Work::Nothing => (),
            }
            (name, *due)
        })
        .collect()
}

/// Names of files with this ending, without it.
fn reports(out: &Path, ending: &str) -> Vec<String> {
    let mut found: Vec<_> = fs::read_dir(out)
        .into_iter()
        .flatten()
        .filter_map(|e| Some(e.ok()?.file_name().to_str()?.strip_suffix(ending)?.to_owned()))
        .collect();
    found.sort();
    found
}

#[test]
fn a_class_of_fifty_is_graded_though_interrupted() {
    let _dog = watchdog(1800);
    let demo = match demo() {
        Ok(demo) => demo,
        Err(why) => kit::skip!("cargo", "{why}"),
    };
    let (class, out) = (demo.beside("class"), demo.beside("out"));
    let due = hand_in(&demo, &class);
    let (class_dir, out_dir) = (class.display().to_string(), out.display().to_string());
    let words = ["grade", "--lab", "demo", "--exercise", "ex1", "--class", &class_dir, "--out", &out_dir];

    // Ctrl-C, when some are done.
    let mut first = demo.command(&demo.root(), &words);
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while reports(&out, ".json").len() < 12 {
        assert_eq!(first.try_wait().unwrap(), None, "it ended before all were graded");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(first.id() as i32), Signal::SIGINT).unwrap();
    let ended = first.wait().unwrap();
    assert!(ended.signal() == Some(Signal::SIGINT as i32) || ended.code() == Some(130), "{ended}");
    let kept = reports(&out, ".json");
    assert!((12..STUDENTS).contains(&kept.len()), "{kept:?}");
    let stamp = |name: &str| fs::metadata(out.join(format!("{name}.json"))).unwrap().modified().unwrap();
    let before: Vec<_> = kept.iter().map(|name| stamp(name)).collect();

    // The same command again.
    let (code, table, err) = demo.homework(&words);
    assert_eq!(code, Some(0), "{table}{err}");
    assert!(err.contains(&format!("{} of {STUDENTS} are graded already", kept.len())), "{err}");
    assert_eq!(kept.iter().map(|name| stamp(name)).collect::<Vec<_>>(), before, "graded twice");

    let names: Vec<String> = due.keys().cloned().collect();
    assert_eq!((&reports(&out, ".txt"), &reports(&out, ".json")), (&names, &names));
    let csv = fs::read_to_string(out.join("grades.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + STUDENTS, "{csv}");
    for ((name, due), row) in due.iter().zip(csv.lines().skip(1)) {
        assert!(row.starts_with(&format!("{name},{due},")), "{due}: {row}\n{csv}");
        let points = due.split(',').next().unwrap();
        let line = table.lines().find(|l| l.starts_with(&format!("{name} "))).unwrap();
        assert!(line.contains(&format!(" {points}/6")), "{line}");
        let report = fs::read_to_string(out.join(format!("{name}.txt"))).unwrap();
        assert!(report.starts_with(&format!("{name}   {points}/6")), "{report}");
    }
    assert_eq!(tests::processes("7120"), Vec::<String>::new());
}
