//! From `new-lab` to a lab that runs, in a copy of the checkout; then what `tidy` and `doctor` say of broken ones.
//!
//! One test, as one step needs the other; a program of its own, as it builds in the same folder.

use std::fs::{self, File};
use std::path::Path;

use kit::testing::watchdog;
use tests::{cargo, obstacle, ran, root, target, xtask};

#[test]
fn a_new_lab_builds_runs_passes_and_is_listed() {
    let _dog = watchdog(1800);
    if let Some(why) = obstacle() {
        kit::skip!("cargo", "{why}");
    }
    let temp = tempfile::tempdir().unwrap();
    let copy = temp.path().join("checkout");
    copy_checkout(&root(), &copy);
    let name = "demo-of-tests";

    made_and_listed(&copy, name);
    runs_and_passes(&copy, name);
    refuses_to_overwrite(&copy, name);
    missing_need_is_exit_4(&copy, name);
    planted_violations_are_found(&copy, name);
}

fn made_and_listed(copy: &Path, name: &str) {
    let tidy_before = ran(xtask(copy, &["tidy"])).1;
    let (code, stdout, stderr) = ran(xtask(copy, &["new-lab", name]));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let (_, list, _) = ran(xtask(copy, &["list"]));
    assert!(list.lines().any(|l| l.contains(name) && l.contains(" full ")), "{list}");
    // No new violation; and the book's generated files are fresh.
    assert_eq!(ran(xtask(copy, &["tidy"])).1, tidy_before);
    let chapter = format!("labs/{name}.md");
    assert!(fs::read_to_string(copy.join("docs/SUMMARY.md")).unwrap().contains(&chapter));
    assert!(fs::read_to_string(copy.join("README.md")).unwrap().contains(&format!("[{name}](labs/{name})")));
}

fn runs_and_passes(copy: &Path, name: &str) {
    let (code, stdout, stderr) = ran(xtask(copy, &["run", name, "--json", "--", "--quick"]));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let run: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON document on stdout");
    assert_eq!((&run["lab"], &run["ok"]), (&name.into(), &true.into()));
    let (code, stdout, _) = ran(xtask(copy, &["run", name, "--replay"]));
    assert!(code == Some(0) && stdout.contains("RECORDED"), "{stdout}");
    assert_eq!(ran(xtask(copy, &["run", name, "--no-such-option"])).0, Some(2));

    // The second time nothing is built, and nothing is said of building.
    let (_, _, stderr) = ran(xtask(copy, &["run", name, "--quick"]));
    assert_eq!(stderr, "");

    let mut test = std::process::Command::new(cargo());
    test.args(["test", "--quiet", "--package", name]).current_dir(copy).env("CARGO_TARGET_DIR", target());
    let (code, stdout, stderr) = ran(test);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

fn refuses_to_overwrite(copy: &Path, name: &str) {
    let marker = copy.join("labs").join(name).join("marker");
    fs::write(&marker, "mine").unwrap();
    let (code, _, stderr) = ran(xtask(copy, &["new-lab", name]));
    assert!(code == Some(2) && stderr.contains("is there already"), "{stderr}");
    assert_eq!(fs::read_to_string(&marker).unwrap(), "mine");
    // A near miss names it.
    let (code, _, stderr) = ran(xtask(copy, &["run", "demo-of-test"]));
    assert!(code == Some(2) && stderr.contains(&format!("did you mean {name}?")), "{stderr}");
}

/// Needs something that this machine has not, where there is such a thing.
fn missing_need_is_exit_4(copy: &Path, name: &str) {
    let Some(missing) = kit::probe::findings(&kit::probe::NAMES).into_iter().find(|f| !f.works()) else {
        return;
    };
    let manifest = copy.join("labs").join(name).join("Cargo.toml");
    let before = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, before.replace("needs = []", &format!("needs = [\"{}\"]", missing.name))).unwrap();
    let (code, stdout, _) = ran(xtask(copy, &["doctor", name]));
    assert!(code == Some(4) && stdout.contains(&format!("{name} does not run")), "{stdout}");
    let (code, list, _) = ran(xtask(copy, &["list"]));
    assert!(code == Some(0) && list.contains("unavailable"), "{list}");

    let wants = format!("wants = [\"{0}\"]\nwithout = {{ \"{0}\" = \"does it by hand\" }}\n", missing.name);
    fs::write(&manifest, before.replace("wants = []\n", &wants)).unwrap();
    let (code, list, _) = ran(xtask(copy, &["list"]));
    assert!(code == Some(0) && list.contains("reduced") && list.contains("does it by hand"), "{list}");
    fs::write(&manifest, before).unwrap();
}

/// Breaks one thing at a time; each is found, with file and line, and with what to do.
fn planted_violations_are_found(copy: &Path, name: &str) {
    let planted: [(&str, &str, &str, &str); 12] = [
        ("Cargo.toml", "cost?\"\ntrack", "cost\"\ntrack", "Cargo.toml:12: the question does not fit"),
        ("Cargo.toml", "track = \"processes\"", "track = \"magic\"", "Cargo.toml:13: no such track"),
        ("Cargo.toml", "needs = []", "needs = [\"kvn\"]", "doctor has no finding \"kvn\""),
        ("Cargo.toml", "topics = []", "topics = [999]", "there is no topic 999"),
        ("Cargo.toml", "libc.workspace = true", "libc = \"0.2\"", "libc has a version of its own"),
        ("Cargo.toml", "[lints]\nworkspace = true", "", "the lints are not the workspace's"),
        ("Cargo.toml", "minutes = 5", "minuets = 5", "unknown field `minuets`"),
        ("README.md", "## Run", "## Running", "README.md:7: \"## Running\" stands where \"## Run\" should"),
        ("README.md", "cargo xtask run", "cargo run", "README.md:7: does not say how to run it"),
        ("recordings/default.json", "\"schema\": 1", "\"schema\": 7", "has schema 7"),
        (
            "src/cost.rs",
            "use std",
            "#![allow(unsafe_code)]\nuse std",
            "cost.rs:3: allows unsafe code outside sys.rs",
        ),
        ("src/main.rs", "kit::main!", "// FIX-ME\nkit::main!", "says FIX-ME"),
    ];
    let clean = ran(xtask(copy, &["tidy"])).1;
    for (file, from, to, expected) in planted {
        let path = copy.join("labs").join(name).join(file);
        let before = fs::read_to_string(&path).unwrap();
        // The word is split in this source, which tidy reads as well.
        let word = |text: &str| text.replace("FIX-ME", concat!("FIX", "ME"));
        let after = before.replacen(from, &word(to), 1);
        assert_ne!(before, after, "{file} has no {from:?}");
        fs::write(&path, after).unwrap();
        let (code, stdout, stderr) = ran(xtask(copy, &["tidy"]));
        assert_eq!(code, Some(1), "{file}: {to}: {stdout}{stderr}");
        let found = stdout.lines().find(|line| line.contains(&word(expected)));
        assert!(found.is_some_and(|l| l.starts_with(&format!("labs/{name}/{file}"))), "{expected}: {stdout}");
        assert!(stdout.contains("fix: "), "{stdout}");
        fs::write(&path, before).unwrap();
    }
    assert_eq!(ran(xtask(copy, &["tidy"])).1, clean);
}

/// Everything but what is built and git's own; as old as it is, so that nothing of it is built again.
fn copy_checkout(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let target = to.join(entry.file_name());
        if entry.file_name() == "target" || entry.file_name() == ".git" || path.ends_with("docs/book") {
            continue;
        }
        if kind.is_dir() {
            copy_checkout(&path, &target);
        } else if kind.is_file() {
            fs::copy(&path, &target).unwrap();
            let changed = entry.metadata().unwrap().modified().unwrap();
            File::options().write(true).open(&target).unwrap().set_modified(changed).unwrap();
        }
    }
}
