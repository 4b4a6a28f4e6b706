//! `cargo xtask homework`, as a student and as an instructor use it, on a small lab.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use kit::testing::watchdog;
use tests::demo::demo;

/// The demo's checkout, and a watchdog; or the test is left.
macro_rules! demo {
    () => {
        match demo() {
            Ok(demo) => (watchdog(900), demo),
            Err(why) => kit::skip!("cargo", "{why}"),
        }
    };
}

#[test]
fn a_student_is_told_what_broke_and_where() {
    let (_dog, demo) = demo!();
    let check = |arguments: &[&str]| demo.homework(&[&["check", "demo", "ex1"], arguments].concat());

    // The starter.
    let (code, out, err) = check(&[]);
    assert_eq!(code, Some(1), "{out}{err}");
    for words in
        ["FAIL  adds", "property: small numbers are added", "not implemented", "exercises/ex1.rs:5", "0/6"]
    {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert!(!out.contains("wraps"), "it stops at the first that fails: {out}");

    // Wrong in one way: the rest counts. Random inputs are named, and drawn again.
    fs::copy(demo.exercise("wrong/ex1_saturates.rs"), demo.exercise("ex1.rs")).unwrap();
    let (code, out, _) = check(&["--all", "--seed", "77"]);
    assert_eq!(code, Some(1));
    for words in [
        "ok    adds",
        "FAIL  wraps",
        "expected: 1",
        "seen:     255",
        "what comes after 255?",
        "where:    labs/demo/tests/ex1.rs:",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert!(out.contains("3/6, 1 not gradable here") && out.contains("--seed 77"), "{out}");

    // Not Rust: rustc's own words, and the other exercise still works.
    fs::write(demo.exercise("ex1.rs"), "pub fn add(a: u8, b: u8) -> u8 { a + }").unwrap();
    let (code, out, _) = check(&[]);
    assert!(
        code == Some(1) && out.contains("expected expression") && out.contains("it does not compile"),
        "{out}"
    );
    assert!(out.contains("labs/demo/exercises/ex1.rs:1:"), "{out}");
    let (_, out, _) = demo.homework(&["check", "demo", "ex2"]);
    assert!(out.contains("FAIL  greets"), "{out}");

    fs::copy(demo.exercise("solutions/ex1.rs"), demo.exercise("ex1.rs")).unwrap();
    let (code, out, _) = check(&[]);
    assert!(code == Some(0) && out.contains("5/6, 1 not gradable here"), "{out}");
    let (_, status, _) = demo.homework(&["status"]);
    assert!(status.contains("done, 1 not checkable here") && status.contains("check demo ex2"), "{status}");
}

#[test]
fn whatever_a_student_does_ends_with_a_clear_result() {
    let (_dog, demo) = demo!();
    let cases = [
        ("loop {}", "still running after 3 s"),
        ("std::process::abort()", "SIGABRT"),
        ("std::process::exit(0)", "before the test reached its end"),
        ("add(a, b).wrapping_add(1)", "overflow"),
        ("{ let m = std::sync::Mutex::new(0); let _a = m.lock(); let _b = m.lock(); 0 }", "3 s"),
        ("panic!(\"my own {}\", a.wrapping_add(b) as u32 * 0)", "my own 0"),
        ("{ print!(\"test adds ... ok\"); 0 }", "expected: "),
    ];
    for (body, words) in cases {
        let text =
            format!("#[allow(unconditional_recursion)]\npub fn add(a: u8, b: u8) -> u8 {{ {body} }}\n");
        fs::write(demo.exercise("ex1.rs"), text).unwrap();
        let (code, out, err) = demo.homework(&["check", "demo", "1"]);
        assert!(code == Some(1) && out.contains(words), "{body}: {words}: {out}{err}");
    }
    // The same where the spec calls it before it has named what must hold.
    let named = "let sum = property(\"small numbers are added\", \"what does + do?\");\n";
    let called = "let seen: u8 = exercise::add(a, b);\n";
    let spec = fs::read_to_string(demo.root().join("labs/demo/tests/ex1.rs")).unwrap();
    let (named, called) = (format!("        {named}"), format!("        {called}"));
    demo.edit("labs/demo/tests/ex1.rs", &format!("{named}{called}"), &format!("{called}{named}"));
    fs::write(demo.exercise("ex1.rs"), "pub fn add(_: u8, _: u8) -> u8 { loop {} }\n").unwrap();
    let (_, out, err) = demo.homework(&["check", "demo", "1"]);
    for words in ["property: adds", "seen:     still running after 3 s"] {
        assert!(out.contains(words) && !out.contains("SIGABRT"), "{words}: {out}{err}");
    }
    fs::write(demo.root().join("labs/demo/tests/ex1.rs"), spec).unwrap();
    // Children that it starts do not stay, not even those that go away from their parent.
    let daemon = "{ let _ = std::process::Command::new(\"sh\").args([\"-c\", \"setsid sleep 7117 & exit\"]).status(); a }";
    fs::write(demo.exercise("ex1.rs"), format!("pub fn add(a: u8, _: u8) -> u8 {{ {daemon} }}")).unwrap();
    demo.homework(&["check", "demo", "1"]);
    assert_eq!(tests::processes("7117"), Vec::<String>::new());
}

#[test]
fn hints_list_and_reset() {
    let (_dog, demo) = demo!();
    let (code, out, _) = demo.homework(&["list"]);
    assert!(code == Some(0) && out.contains("ex1  Add") && out.contains("2 exercises"), "{out}");
    let (_, one, _) = demo.homework(&["hint", "demo", "ex1"]);
    assert!(one.contains("What is a byte?") && !one.contains("wrapping_add"), "{one}");
    let (_, three, _) = demo.homework(&["hint", "demo", "ex1", "3"]);
    assert!(three.contains("wrapping_add") && !three.contains("more:"), "{three}");
    assert_eq!(demo.homework(&["hint", "demo", "ex9"]).0, Some(2));
    assert_eq!(demo.homework(&["check", "demos"]).0, Some(2));

    // Neither git nor a handout: nothing is lost.
    assert_eq!(demo.homework(&["reset", "demo", "ex1"]).0, Some(2));
    let copy = demo.beside("copy");
    let (code, out, err) = demo.homework(&["handout", &copy.display().to_string()]);
    assert_eq!(code, Some(0), "{out}{err}");
    let file = copy.join("labs/demo/exercises/ex1.rs");
    let starter = fs::read_to_string(&file).unwrap();
    for mine in ["mine", "mine too"] {
        fs::write(&file, mine).unwrap();
        let (code, out, _) = tests::ran(demo.command(&copy, &["reset", "demo", "ex1"]));
        assert!(code == Some(0) && out.contains(".bak"), "{out}");
        assert_eq!(fs::read_to_string(&file).unwrap(), starter);
    }
    let kept = ["1", "2"].map(|n| fs::read_to_string(file.with_extension(format!("rs.{n}.bak"))).unwrap());
    assert_eq!(kept, ["mine", "mine too"]);
}

#[test]
fn watch_checks_what_is_saved() {
    let (_dog, demo) = demo!();
    for extra in [&[][..], &["--poll"]] {
        fs::write(demo.exercise("ex1.rs"), "pub fn add(_: u8, _: u8) -> u8 { 0 }").unwrap();
        let mut watch = demo.command(&demo.root(), &[&["watch", "demo"], extra].concat());
        let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(told.next().unwrap().unwrap().starts_with("waiting for demo ex1, ex2"));
        // As an editor saves: a new file in the old one's place.
        let new = demo.exercise("new");
        fs::copy(demo.exercise("solutions/ex1.rs"), &new).unwrap();
        fs::rename(&new, demo.exercise("ex1.rs")).unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            said += &(line + "\n");
            if said.contains("/6, ") {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(said.contains("demo ex1: Add") && said.contains("5/6") && !said.contains("ex2"), "{said}");
    }
}

#[test]
fn verify_finds_what_is_not_proven() {
    let (_dog, demo) = demo!();
    let (code, out, err) = demo.homework(&["verify"]);
    assert!(
        code == Some(0) && out.contains("2 exercises hold, but for tests that cannot run here: 1"),
        "{out}{err}"
    );

    let breaks: [(&str, &str, &str, &str); 14] = [
        ("exercises/exercises.toml", "random = true", "random = false", "draws inputs"),
        ("exercises/exercises.toml", "points = 3", "points = 4", "does not say \"7 points\""),
        ("exercises/exercises.toml", "\"wrapping_add\"", "\"b\", \"c\"", "has 4 hints"),
        ("exercises/exercises.toml", "name = \"adds\"", "name = \"sums\"", "the spec has"),
        ("exercises/exercises.toml", "random = true", "random = true\nmay_be_unsafe = true", "disagree"),
        (
            "exercises/ex1.rs",
            "unimplemented!(\"TO_DO(you): add\")",
            "_a.wrapping_add(_b) /* TO_DO(you) */",
            "the starter fails no test",
        ),
        ("exercises/ex1.rs", "-> u8", "-> u16", "starter does not compile"),
        ("exercises/solutions/ex1.rs", "wrapping", "saturating", "the solution fails wraps"),
        ("exercises/wrong/ex1_one_more.rs", ".wrapping_add(1)", "", "wrong-one_more passes adds"),
        ("exercises/wrong/ex1_one_more.rs", "pub", "pub pub", "wrong-one_more does not compile"),
        ("exercises/wrong/ex1_one_more.rs", "Fails `adds`", "fails", "does not say"),
        (
            "tests/ex1.rs",
            "#[ignore = \"exercise: edit labs/demo/exercises/ex1.rs\"]\nfn wraps",
            "fn wraps",
            "not every test has",
        ),
        ("exercises/ex2.txt", "TO_DO(you)", "soon", "ex2.txt has no"),
        ("README.md", "### Exercise 2: greet", "### Exercise 2", "has no heading"),
    ];
    for (file, from, to, words) in breaks {
        let path = format!("labs/demo/{file}");
        let before = fs::read(demo.root().join(&path)).unwrap();
        // The word is split in this source, which tidy reads as well.
        let [from, to] = [from, to].map(|t| t.replace("TO_DO", concat!("TO", "DO")));
        demo.edit(&path, &from, &to);
        let (code, out, err) = demo.homework(&[
            "verify",
            "demo",
            if file == "README.md" || file.contains("ex2") { "ex2" } else { "ex1" },
        ]);
        assert!(code == Some(1) && out.contains(words), "{file}: {words}: {out}{err}");
        fs::write(demo.root().join(&path), before).unwrap();
    }
}

#[test]
fn names_from_elsewhere_are_refused_by_all() {
    let (_dog, demo) = demo!();
    demo.edit(
        "labs/demo/exercises/exercises.toml",
        "random = true",
        "random = true\nonly_from = \"super::sync\"",
    );
    let unseen =
        "\nuse std::num::Wrapping;\npub fn add(a: u8, b: u8) -> u8 { (Wrapping(a) + Wrapping(b)).0 }\n";
    let starter = fs::read(demo.exercise("ex1.rs")).unwrap();
    fs::write(demo.exercise("ex1.rs"), unseen).unwrap();
    let (code, out, err) = demo.homework(&["check", "demo", "ex1"]);
    fs::write(demo.exercise("ex1.rs"), starter).unwrap();
    for words in ["ex1.rs:2: says std", "fix: use super::sync alone", "it is refused"] {
        assert!(code == Some(1) && out.contains(words), "{words}: {out}{err}");
    }
    let file = demo.beside("ex1.rs");
    fs::write(&file, unseen).unwrap();
    let file = file.display().to_string();
    let (_, out, err) =
        demo.homework(&["grade", "--lab", "demo", "--exercise", "1", "--format", "json", &file]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let exercise = &told["exercises"][0];
    assert_eq!((&exercise["state"], &told["points"]), (&"refused".into(), &0.into()), "{out}");
    assert!(exercise["why"].as_str().unwrap().contains("says std"), "{out}");

    // A wrong one that is meant to be refused is proven to be.
    for (wrong, why) in [(unseen, "is refused"), ("pub fn add(a: u8, _: u8) -> u8 { a }", "is not refused")] {
        let test = if why == "is refused" { "adds" } else { "only_from" };
        let says = format!("//! Fails `{test}`: it is not seen.\n{wrong}");
        fs::write(demo.exercise("wrong/ex1_unseen.rs"), says).unwrap();
        let (code, out, err) = demo.homework(&["verify", "demo", "ex1"]);
        assert!(code == Some(1) && out.contains(&format!("wrong-unseen {why}")), "{out}{err}");
    }
}

#[test]
fn points_are_told_in_all_formats() {
    let (_dog, demo) = demo!();
    let work = demo.beside("work/exercises");
    fs::create_dir_all(&work).unwrap();
    fs::copy(demo.exercise("wrong/ex1_saturates.rs"), work.join("ex1.rs")).unwrap();
    let folder = demo.beside("work").display().to_string();
    let grade = |format: &str| {
        let (code, out, err) =
            demo.homework(&["grade", "--lab", "demo", &folder, "--format", format, "--seed", "5"]);
        assert_eq!(code, Some(0), "{out}{err}");
        out
    };
    let text = grade("text");
    for words in [
        "work   3/10, 1 not gradable here",
        "ok    adds",
        "FAIL  wraps",
        "seen:     255",
        "--seed 5",
        "missing: ex2",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&grade("json")).unwrap();
    assert_eq!(
        (&json["points"], &json["of"], &json["not_gradable_here"]),
        (&3.into(), &10.into(), &1.into())
    );
    assert_eq!(json["exercises"][0]["tests"][2]["outcome"], "not_gradable_here");
    let theirs: serde_json::Value = serde_json::from_str(&grade("gradescope")).unwrap();
    let tests = theirs["tests"].as_array().unwrap();
    assert_eq!((&theirs["score"], tests.len()), (&3.into(), 4));
    assert_eq!((&tests[0]["status"], &tests[1]["status"]), (&"passed".into(), &"failed".into()));
    assert!(tests[2].get("status").is_none() && tests[2].get("score").is_none(), "{theirs}");
    let (code, _, err) =
        demo.homework(&["grade", "--lab", "demo", &folder, &folder, "--format", "gradescope"]);
    assert!(code == Some(2) && err.contains("of one submission"), "{err}");
    // Words that do not go together are refused before anything is built.
    fs::write(demo.beside("secret"), "0123456789abcdef").unwrap();
    let secret = demo.beside("secret").display().to_string();
    fs::create_dir_all(demo.beside("one/labs")).unwrap();
    let one = demo.beside("one").display().to_string();
    for (words, why) in [
        (&[&folder, "--secret", &secret][..], "needs --student"),
        (&[&folder, "--student", "s1"], "needs --secret"),
        (&["--class", &folder, "--secret", &secret, "--student", "s1"], "of one submission"),
        (&["--class", &folder, "--secret", &secret, "--seed", "1"], "give one of them"),
        (&["--class", &one], "is one submission"),
    ] {
        let (code, out, err) = demo.homework(&[&["grade"], words].concat());
        assert!(code == Some(2) && err.contains(why) && !err.contains("sandbox"), "{words:?}: {out}{err}");
    }
    let junit = grade("junit");
    assert!(junit.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{junit}");
    well_formed(&junit);
    let csv = grade("csv");
    assert!(csv.lines().nth(1).is_some_and(|l| l.starts_with("work,3,10,1,true,5,0,3,0")), "{csv}");

    // Hidden tests, with their own points.
    let hidden = demo.beside("hidden");
    fs::create_dir_all(&hidden).unwrap();
    let spec = fs::read_to_string(demo.root().join("labs/demo/tests/ex1.rs")).unwrap();
    fs::write(hidden.join("ex1.rs"), spec.replace("wraps()", "wraps_in_secret()")).unwrap();
    let list = fs::read_to_string(demo.exercise("exercises.toml")).unwrap();
    let list = list.replace("\"wraps\"", "\"wraps_in_secret\"").replace("points = 3", "points = 30");
    fs::write(hidden.join("exercises.toml"), list).unwrap();
    let file = work.join("ex1.rs").display().to_string();
    let hidden = hidden.display().to_string();
    let (_, out, err) =
        demo.homework(&["grade", "--lab", "demo", "--exercise", "1", "--tests", &hidden, &file]);
    assert!(out.contains("30/33, 1 not gradable here") && out.contains("wraps_in_secret"), "{out}{err}");
}

/// By Python, where it is there.
fn well_formed(xml: &str) {
    let code = "import sys, xml.dom.minidom; xml.dom.minidom.parseString(sys.stdin.buffer.read())";
    let python = std::process::Command::new("python3").args(["-c", code]).stdin(Stdio::piped()).spawn();
    let Ok(mut python) = python else { return };
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), xml.as_bytes()).unwrap();
    assert!(python.wait().unwrap().success(), "{xml}");
}

#[test]
fn a_class_is_graded_once_and_only_what_changed_again() {
    let (_dog, demo) = demo!();
    let class = demo.beside("class");
    let give = |student: &str, file: &str| {
        let folder = class.join(student).join("labs/demo/exercises");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(demo.exercise(file), folder.join("ex1.rs")).unwrap();
    };
    for n in 0..6 {
        give(&format!("s{n}"), ["solutions/ex1.rs", "wrong/ex1_saturates.rs", "ex1.rs"][n % 3]);
    }
    fs::write(demo.beside("secret"), "0123456789abcdef").unwrap();
    let out = demo.beside("out");
    let (class_dir, out_dir, secret) =
        (class.display().to_string(), out.display().to_string(), demo.beside("secret"));
    let grade = || {
        let secret = secret.display().to_string();
        demo.homework(&["grade", "--class", &class_dir, "--out", &out_dir, "--secret", &secret])
    };
    let (code, table, err) = grade();
    assert_eq!(code, Some(0), "{table}{err}");
    let csv = fs::read_to_string(out.join("grades.csv")).unwrap();
    let cell = |row: usize, column: usize| {
        csv.lines().nth(row + 1).and_then(|l| l.split(',').nth(column)).unwrap_or_default().to_owned()
    };
    assert_eq!([0, 1, 2, 3, 4, 5].map(|n| cell(n, 1)), ["5", "3", "0", "5", "3", "0"], "{csv}");
    // Each student has another seed, the same each time, and a report.
    assert_ne!(cell(0, 5), cell(1, 5));
    assert!(fs::read_to_string(out.join("s1.txt")).unwrap().contains(&format!("--seed {}", cell(1, 5))));

    give("s5", "solutions/ex1.rs");
    let (_, _, err) = grade();
    assert!(err.contains("5 of 6 are graded already"), "{err}");
    let again = fs::read_to_string(out.join("grades.csv")).unwrap();
    let (before, after): (Vec<_>, Vec<_>) = (csv.lines().collect(), again.lines().collect());
    assert_eq!(before[..6], after[..6]);
    assert!(after[6].starts_with("s5,5,10,1,"), "{again}");

    // What a spec takes in judges as well: grades by the old one do not stay.
    fs::create_dir_all(demo.root().join("labs/demo/tests/common")).unwrap();
    fs::write(demo.root().join("labs/demo/tests/common/mod.rs"), "// Mended.\n").unwrap();
    let (_, _, err) = grade();
    assert!(!err.contains("graded already"), "{err}");
}

#[test]
fn a_handout_has_no_answers_and_works() {
    let (_dog, demo) = demo!();
    let copy = demo.beside("handout");
    let (code, out, err) = demo.homework(&["handout", &copy.display().to_string()]);
    assert_eq!(code, Some(0), "{out}{err}");
    let mut folders = vec![copy.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.starts_with(copy.join("labs")) {
                let text = fs::read_to_string(&path).unwrap();
                assert!(!text.contains("SOLUTION-MARK") && !text.contains("Fails `"), "{}", path.display());
            }
        }
    }
    let homework = |arguments: &[&str]| tests::ran(demo.command(&copy, arguments));
    let (_, status, _) = homework(&["status"]);
    assert!(status.contains("not started") && status.contains("0/10 points"), "{status}");
    fs::copy(demo.exercise("solutions/ex1.rs"), copy.join("labs/demo/exercises/ex1.rs")).unwrap();
    let (code, out, err) = homework(&["check", "demo", "ex1"]);
    assert!(code == Some(0) && out.contains("5/6"), "{out}{err}");
    let (code, _, err) = homework(&["verify"]);
    assert!(code == Some(2) && err.contains("a student's copy"), "{err}");
    // Once made, it stays as it is; and nobody hands out what is solved.
    assert_eq!(demo.homework(&["handout", &copy.display().to_string()]).0, Some(2));
    fs::copy(demo.exercise("solutions/ex1.rs"), demo.exercise("ex1.rs")).unwrap();
    let (code, _, err) = demo.homework(&["handout", &demo.beside("other").display().to_string()]);
    assert!(code == Some(1) && err.contains("is the solution") && !demo.beside("other").exists(), "{err}");
}
