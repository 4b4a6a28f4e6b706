//! Submissions that want points, or to harm the grader. None gets a point, none harms, and the honest one among them gets
//! all of hers.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kit::testing::watchdog;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tests::demo::{Demo, demo};

/// What a submission's `add` does instead of adding, and what the report must say of it.
struct Hostile {
    name: &'static str,
    /// `BODY` of `pub fn add(a: u8, b: u8) -> u8 { BODY }`, or a whole file.
    text: String,
    says: &'static str,
}

fn body(name: &'static str, body: &str, says: &'static str) -> Hostile {
    let text = format!("#![allow(warnings)]\npub fn add(a: u8, b: u8) -> u8 {{ {body} }}\n");
    Hostile { name, text, says }
}

fn file(name: &'static str, text: String, says: &'static str) -> Hostile {
    Hostile { name, text, says }
}

/// What runs, and what it tries.
fn at_run_time(demo: &Demo, port: u16) -> Vec<Hostile> {
    let solution = demo.exercise("solutions/ex1.rs").display().to_string();
    let checkout = demo.root().display().to_string();
    let room = Demo::kept().display().to_string();
    vec![
        body("exits", "std::process::exit(0)", "before the test reached its end"),
        body(
            "prints",
            r#"println!("test adds ... ok\ntest result: ok. 1 passed"); print!("end "); std::process::exit(0)"#,
            "before the test reached its end",
        ),
        // The way to the runner is some descriptor: all of them are tried, for reading and for writing.
        body(
            "answers",
            r#"{ for fd in 0..64 { let path = format!("/proc/self/fd/{fd}");
                let read = std::fs::File::open(&path);
                if let Ok(mut f) = std::fs::File::options().write(true).open(&path) {
                    use std::io::Write; let _ = f.write_all(&[b"end ".as_slice(), &[0; 32]].concat()); } }
                std::process::exit(0) }"#,
            "before the test reached its end",
        ),
        body(
            "hangs",
            "loop { std::thread::sleep(std::time::Duration::from_secs(1)) }",
            "still running after",
        ),
        body("aborts", "std::process::abort()", "SIGABRT"),
        body(
            "overflows",
            "{ #[allow(unconditional_recursion)] fn f(n: u64) -> u64 { f(n + 1) + std::hint::black_box(1) } f(0) as u8 }",
            "SIGABRT",
        ),
        body(
            "forks",
            r#"{ let me = std::env::current_exe().unwrap();
                loop { let _ = std::process::Command::new("/bin/sh").args(["-c", "f() { f | f & }; f; sleep 7119"]).spawn();
                       let _ = std::process::Command::new("/bin/sleep").arg("7119").spawn(); } }"#,
            "",
        ),
        body(
            "stays",
            r#"{ let _ = std::process::Command::new("/bin/sh").args(["-c", "setsid setsid sleep 7119 & exit"]).status(); 0 }"#,
            "expected",
        ),
        body(
            "fills",
            r#"{ use std::io::Write;
                let mut files: Vec<_> = (0..1000).filter_map(|n| std::fs::File::create(std::env::temp_dir().join(format!("f{n}"))).ok()).collect();
                let block = vec![7; 1 << 20];
                for _ in 0..100 { for f in &mut files { let _ = f.write_all(&block); } }
                let whole: u64 = files.iter().map(|f| f.metadata().unwrap().len()).sum();
                panic!("wrote {} MB", whole >> 20) }"#,
            "",
        ),
        body(
            "talks",
            r#"{ let line = "x".repeat(1 << 16); loop { println!("{line}"); eprintln!("{line}"); } }"#,
            "",
        ),
        body("eats", r#"{ let mut all = Vec::new(); loop { all.push(vec![1_u8; 64 << 20]); } }"#, ""),
        body(
            "reads",
            &format!(
                r#"{{ fn look(at: &std::path::Path, left: &mut u32) {{
                    for e in std::fs::read_dir(at).into_iter().flatten().flatten() {{
                        if *left == 0 {{ return }} *left -= 1;
                        let p = e.path();
                        if p.starts_with("/proc") || p.starts_with("/usr") || p.ends_with("build") || p.ends_with(".rustup") || p.starts_with("/sys") || p.is_symlink() {{ continue }}
                        if p.is_dir() {{ look(&p, left) }}
                        else if p.is_file() && std::fs::read_to_string(&p).unwrap_or_default().contains(concat!("SOLUTION-", "MARK")) {{ panic!("FOUND {{p:?}}") }} }} }}
                look("/".as_ref(), &mut 5_000);
                if let Ok(t) = std::fs::read_to_string({solution:?}) {{ panic!("FOUND {{t}}") }}
                for p in [{checkout:?}, "/root/.ssh", "/etc/shadow", "/home"] {{ if std::fs::read_dir(p).is_ok() || std::fs::read(p).is_ok() {{ panic!("FOUND {{p}}") }} }}
                panic!("nothing to be seen") }}"#
            ),
            "nothing to be seen",
        ),
        body(
            "peeks",
            r#"{ for file in ["/proc/self/mem", "/proc/thread-self/mem"] { if std::fs::File::open(file).is_ok() { panic!("FOUND {file}") } }
                let look = format!("exec 2>/dev/null; head -c 1 /proc/{0}/environ || ls /proc/{0}/fd/0", std::process::id());
                if std::process::Command::new("/bin/sh").args(["-c", &look]).status().unwrap().success() { panic!("FOUND our own process") }
                panic!("no way in") }"#,
            "no way in",
        ),
        body(
            "inherits",
            r#"{ let look = "for f in /proc/self/fd/*; do ls $f/labs >/dev/null 2>&1 && exit 9; done; exit 0";
                if std::process::Command::new("/bin/sh").args(["-c", look]).status().unwrap().code() == Some(9) { panic!("FOUND an open folder") }
                panic!("nothing inherited") }"#,
            "nothing inherited",
        ),
        body(
            "writes",
            &format!(
                r#"{{ let here = env!("CARGO_MANIFEST_DIR");
                let all = [format!("{{here}}/tests/ex1.rs"), format!("{{here}}/out/x"), format!("{{here}}/exercises/ex1.rs"),
                    "{room}/x".into(), "{room}/room/Cargo.toml".into(), "{room}/build/x".into(),
                    "/usr/x".into(), "/x".into(), "/etc/x".into(), "{checkout}/x".into()];
                for p in all {{ if std::fs::write(&p, "mine").is_ok() {{ panic!("WROTE {{p}}") }} }}
                let _ = std::fs::remove_dir_all(here);
                panic!("nothing to be written") }}"#
            ),
            "nothing to be written",
        ),
        body(
            "calls",
            &format!(
                r#"{{ if std::net::TcpStream::connect(("127.0.0.1", {port})).is_ok() {{ panic!("CONNECTED") }} panic!("nobody there") }}"#
            ),
            "nobody there",
        ),
        body(
            "kills",
            r#"{ for pid in ["-1", "1", "2", "3"] { let _ = std::process::Command::new("/bin/sh").args(["-c", &format!("kill -9 {pid}")]).status(); } 0 }"#,
            "",
        ),
        body(
            "mounts",
            r#"{ for c in ["mount -t tmpfs x /tmp", "unshare -r true", "chroot / true", "mknod /tmp/x b 8 0"] {
                if std::process::Command::new("/bin/sh").args(["-c", c]).stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success()) { panic!("COULD {c}") } }
                panic!("may not") }"#,
            "may not",
        ),
    ]
}

/// What tries something when it is built.
fn at_compile_time(demo: &Demo) -> Vec<Hostile> {
    let solution = demo.exercise("solutions/ex1.rs").display().to_string();
    vec![
        file("includes", format!("include!({solution:?});\n"), "couldn't read"),
        file("embeds", format!("pub fn add(_: u8, _: u8) -> u8 {{ panic!(include_str!({solution:?})) }}\n"), "couldn't read"),
        file(
            "computes",
            "#![allow(long_running_const_eval)]\nconst N: u8 = { let mut n = 0_u64; loop { n = n.wrapping_add(1); if n == u64::MAX { break } } n as u8 };\n\
             pub fn add(_: u8, _: u8) -> u8 { N }\n"
                .into(),
            "ran into the limit of 30 s",
        ),
        file(
            "expands",
            "macro_rules! twice { ($($t:tt)*) => { twice!($($t)* $($t)*); } }\ntwice!(x x);\npub fn add(_: u8, _: u8) -> u8 { 0 }\n"
                .into(),
            "does not compile",
        ),
        file("macros", "#[macro_export]\nmacro_rules! assert { ($($t:tt)*) => {} }\npub fn add(_: u8, _: u8) -> u8 { 0 }\n".into(), "macro_export"),
        file("returns", "#![macro_use]\nmacro_rules! assert_eq { ($($t:tt)*) => { return } }\npub fn add(_: u8, _: u8) -> u8 { 0 }\n".into(), "macro_use"),
        file("hides", "#! [cfg_attr(\n all(), r#macro_escape )]\nmacro_rules! format { ($($t:tt)*) => { return } }\npub fn add(_: u8, _: u8) -> u8 { 0 }\n".into(), "macro_escape"),
        file("links", "#[unsafe(no_mangle)]\npub extern \"C\" fn write() -> isize { 0 }\npub fn add(_: u8, _: u8) -> u8 { 0 }\n".into(), "no_mangle"),
        file("unsafe", "#![allow(unsafe_code)]\npub fn add(_: u8, _: u8) -> u8 { unsafe { std::mem::zeroed() } }\n".into(), "unsafe"),
        // rust-lang/rust#25860: what it gets is gone by the time that it is read.
        file(
            "stretches",
            "static U: &'static &'static () = &&();\n\
             fn longer<'a, 'b, T>(_: &'a &'b (), v: &'b T) -> &'a T { v }\n\
             fn for_ever<'a, T>(v: &T) -> &'a T { let f: for<'x> fn(_, &'x T) -> &'a T = longer; f(U, v) }\n\
             pub fn add(_: u8, _: u8) -> u8 { let sum: &'static u8 = { let gone = 255; for_ever(&gone) }; println!(\"{sum}\"); std::process::exit(0) }\n"
                .into(),
            "before the test reached its end",
        ),
        file("asks", "pub fn add(a: u8, b: u8) -> u8 { super::spec_sum(a, b) }\n".into(), "spec_sum"),
        file("empty", String::new(), "cannot find function `add`"),
    ]
}

/// Where a submission's exercise goes.
fn place(class: &Path, name: &str) -> PathBuf {
    let folder = class.join(name).join("labs/demo/exercises");
    fs::create_dir_all(&folder).unwrap();
    folder.join("ex1.rs")
}

/// What is no text, or no file.
fn odd_files(demo: &Demo, class: &Path) {
    fs::write(place(class, "not-utf8"), [b'/', b'/', 0xff, b'\n']).unwrap();
    fs::File::create(place(class, "huge")).unwrap().set_len(1 << 40).unwrap();
    symlink(demo.exercise("solutions/ex1.rs"), place(class, "link")).unwrap();
    let fifo = place(class, "fifo");
    assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
    fs::create_dir_all(class.join("missing")).unwrap();
    symlink(demo.root(), class.join("whole-link")).unwrap();
    let within = class.join("folder-link/labs/demo");
    fs::create_dir_all(&within).unwrap();
    symlink(demo.exercise("solutions"), within.join("exercises")).unwrap();
}

/// Everything else that a submission may bring is not looked at.
fn edited_tests(class: &Path, mark: &Path) {
    let exercise = place(class, "edits");
    fs::write(&exercise, "pub fn add(_: u8, _: u8) -> u8 { 0 }\n").unwrap();
    let lab = class.join("edits/labs/demo");
    let script =
        format!("fn main() {{ std::fs::write({:?}, \"\").unwrap(); }}\n", mark.display().to_string());
    for (file, text) in [
        ("tests/ex1.rs", "#[test]\nfn adds() {}\n#[test]\nfn wraps() {}\n"),
        ("exercises/exercises.toml", "[[exercise]]\nid = \"ex1\"\n"),
        ("build.rs", script.as_str()),
        ("Cargo.toml", "[package]\nname = \"demo\"\nbuild = \"build.rs\"\n"),
        ("../../.cargo/config.toml", "[build]\nrustc = \"/bin/true\"\n"),
        ("../../rust-toolchain.toml", "[toolchain]\nchannel = \"none\"\n"),
    ] {
        let path = lab.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn nobody_gains_a_point_or_harms_the_grader() {
    let _dog = watchdog(1800);
    let demo = match demo() {
        Ok(demo) => demo,
        Err(why) => kit::skip!("cargo", "{why}"),
    };
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let class = demo.beside("class");
    let mut all = at_run_time(&demo, host.local_addr().unwrap().port());
    all.extend(at_compile_time(&demo));
    for hostile in &all {
        fs::write(place(&class, hostile.name), &hostile.text).unwrap();
    }
    odd_files(&demo, &class);
    let mark = demo.beside("build-script-ran");
    edited_tests(&class, &mark);
    fs::copy(demo.exercise("solutions/ex1.rs"), place(&class, "honest")).unwrap();

    let (class_dir, out) = (class.display().to_string(), demo.beside("out"));
    let out_dir = out.display().to_string();
    let words = [
        "grade",
        "--lab",
        "demo",
        "--exercise",
        "ex1",
        "--class",
        &class_dir,
        "--out",
        &out_dir,
        "--compile-limit",
        "30",
    ];
    // Who starts the grader may have left a folder open, and not said that it is to be closed.
    let left_open = open(&demo.root(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    let (code, table, err) = demo.homework(&words);
    assert_eq!(code, Some(0), "{table}{err}");
    drop(left_open);

    let csv = fs::read_to_string(out.join("grades.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + all.len() + 9, "{csv}");
    for line in csv.lines().skip(1) {
        let honest = line.starts_with("honest,");
        assert!(
            line.contains(if honest { ",5,6,1,true," } else { ",0,6," }) && line.contains(",true,"),
            "{line}"
        );
    }
    let report = |name: &str| fs::read_to_string(out.join(format!("{name}.txt"))).unwrap();
    for hostile in &all {
        let text = report(hostile.name);
        for never in ["FOUND", "WROTE", "CONNECTED", "COULD", "SOLUTION-MARK"] {
            assert!(!text.contains(never), "{}: {text}", hostile.name);
        }
        assert!(text.contains(hostile.says), "{}: {:?}: {text}", hostile.name, hostile.says);
        assert!(text.len() < 20_000, "{}: {} bytes", hostile.name, text.len());
    }
    // What a grader should read is named.
    for (name, what) in
        [("exits", "(exit)"), ("answers", "(/proc/)"), ("stretches", "(&&())"), ("asks", "(spec_sum)")]
    {
        assert!(report(name).contains(what), "{name}: {what}: {}", report(name));
    }
    for (name, why) in [
        ("not-utf8", "is not UTF-8"),
        ("huge", "is larger than 1 MB"),
        ("link", "is a symbolic link"),
        ("fifo", "is not a file"),
        ("missing", "is not in the submission"),
        ("whole-link", "is a symbolic link"),
        ("folder-link", "is a symbolic link"),
    ] {
        assert!(report(name).contains(why), "{}", report(name));
    }
    assert!(!mark.exists(), "a submission's build script ran");
    assert!(host.accept().is_err(), "somebody got out to the host's network");

    // Nothing stays: no process, no temporary folder, no place in the room.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(tests::processes("7119"), Vec::<String>::new());
    let room = Demo::kept();
    let left = fs::read_dir(room.join("variants/demo")).unwrap();
    let left: Vec<_> =
        left.map(|e| e.unwrap().file_name()).filter(|n| n.to_string_lossy().contains("submission")).collect();
    assert!(left.is_empty(), "{left:?}");
    // And the next one is graded as if nobody had been there.
    let (_, again, err) = demo.homework(&[
        "grade",
        "--lab",
        "demo",
        "--exercise",
        "1",
        &class.join("honest").display().to_string(),
    ]);
    assert!(again.contains("5/6, 1 not gradable here"), "{again}{err}");
}

#[test]
fn a_checkout_may_be_below_tmp() {
    let _dog = watchdog(600);
    let demo = match demo() {
        Ok(demo) => demo,
        Err(why) => kit::skip!("cargo", "{why}"),
    };
    let here = demo.root();
    fs::write(here.join("word"), "to be seen").unwrap();
    fs::write(demo.beside("other"), "not to be seen").unwrap();
    let plan = serde_json::json!({
        "program": "/bin/sh", "arguments": ["-c", "cat word; ls .."], "variables": { "PATH": "/usr/bin:/bin" },
        "folder": here, "seconds": 20, "limits": null, "view": { "read": [here], "write": [], "devices": [] },
        "namespaces": true, "landlock": false, "user": null, "cgroups": [],
        "may_nest": false, "may_look": false, "privileged": false,
    });
    let (code, out, err) = demo.homework(&["sandbox", &plan.to_string()]);
    if err.contains("unshare(") {
        kit::skip!("userns", "{err}");
    }
    assert_eq!((code, out.as_str()), (Some(0), "to be seencheckout\n"), "{err}");
}
