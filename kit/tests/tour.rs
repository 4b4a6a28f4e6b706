//! Drives the entry point as a user does, through the example that shows everything.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use kit::testing::watchdog;
use serde_json::Value;

/// The example, built beside this test by `cargo test -p kit`.
fn tour() -> Command {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test.ancestors().nth(2).unwrap().join("examples/tour");
    assert!(path.exists(), "{} is missing: run cargo test -p kit, which builds it", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

fn run(args: &[&str]) -> Output {
    tour().args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn narration_is_at_most_80_columns_and_plain_when_piped() {
    let _dog = watchdog(180);
    for (args, width) in [(&[][..], 80), (&["--big"][..], 60)] {
        let out = run(args);
        assert_eq!(out.status.code(), Some(0));
        let told = text(&out.stdout);
        for line in told.lines() {
            assert!(line.chars().count() <= width, "{} columns: {line}", line.chars().count());
        }
        assert!(!told.contains('\x1b'));
        assert!(out.stderr.is_empty(), "{}", text(&out.stderr));
    }
}

#[test]
fn json_is_one_document_and_the_narration_goes_to_stderr() {
    let _dog = watchdog(180);
    let out = run(&["--json"]);
    let run: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(run["schema"], 1);
    assert_eq!(run["lab"], "kit");
    assert_eq!(run["ok"], true);
    assert_eq!(run["metrics"]["answer"], serde_json::json!({"value": 42.0, "unit": "1"}));
    assert_eq!(run["metrics"]["letter_us"]["spread"]["n"], 101);
    assert_eq!(run["checks"][0]["name"], "answer");
    assert_eq!(run["checks"][0]["ok"], true);
    assert_eq!(run["steps"].as_array().unwrap().len(), 4);
    assert_eq!(run["steps"][0]["predict"]["answer"], 1);
    assert!(run["steps"][0]["at"].as_str().unwrap().starts_with("kit/examples/tour.rs:"));
    assert!(text(&out.stderr).contains("So: "));
}

#[test]
fn exit_codes_tell_what_happened() {
    let _dog = watchdog(180);
    let cases: [(&[&str], i32, &str); 8] = [
        (&[], 0, ""),
        (&["--help"], 0, ""),
        (&["--fail"], 1, ""),
        (&["--error", "sys"], 1, "kit: open(\"/nowhere\"): ENOENT"),
        (&["--error", "usage"], 2, "--error wants something else"),
        (&["--no-such-option"], 2, "--no-such-option"),
        (&["--replay", "--fail"], 2, "--fail has no say in it"),
        (&["--error", "unavailable"], 4, "cannot open /dev/kvm: EACCES\n  fix: sudo usermod"),
    ];
    for (args, code, says) in cases {
        let out = run(args);
        let stderr = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    let out = run(&["--fail"]);
    assert!(text(&out.stdout).contains("FAILED  answer: 41 is not 42"), "{}", text(&out.stdout));
}

#[test]
fn json_of_a_run_that_failed_is_still_one_document() {
    let _dog = watchdog(180);
    let out = run(&["--json", "--error", "sys"]);
    let run: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(run["ok"], false);
    assert!(run["error"].as_str().unwrap().contains("ENOENT"));
}

#[test]
fn a_saved_run_replays_to_the_same_telling_and_says_that_it_is_recorded() {
    let _dog = watchdog(180);
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("run.json");
    let saved = saved.to_str().unwrap();
    let live = run(&["--save", saved]);
    let again = run(&["--replay", saved]);
    let (live, again) = (text(&live.stdout), text(&again.stdout));
    assert!(again.contains("RECORDED 20"), "{again}");
    assert!(again.contains("nothing was measured now"), "{again}");
    let body = |t: &str| {
        t.lines()
            .filter(|l| !l.contains("RECORDED") && !l.contains("recorded;"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(body(&live), body(&again));
    // And what was replayed can be kept, with nothing lost but the label gained.
    let out = run(&["--replay", saved, "--json"]);
    let mut json: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json.as_object_mut().unwrap().remove("recorded"), Some(Value::Bool(true)));
    let original: Value = serde_json::from_reader(File::open(saved).unwrap()).unwrap();
    assert_eq!(json, original);
}

#[test]
fn a_bad_recording_is_refused_with_its_reason() {
    let _dog = watchdog(180);
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = run(&["--json"]).stdout;
    let truncated = write("truncated.json", &good[..good.len() / 2]);
    let empty = write("empty.json", b"");
    let binary = write("binary.json", &[0xff, 0xfe, 0, 1]);
    let future = write("future.json", text(&good).replace("\"schema\": 1", "\"schema\": 99").as_bytes());
    let other = write("other.json", text(&good).replace("\"lab\": \"kit\"", "\"lab\": \"else\"").as_bytes());
    let cases = [
        (truncated.as_str(), "not a saved run"),
        (&empty, "not a saved run"),
        (&binary, "cannot read"),
        (&future, "schema 99"),
        (&other, "a recording of \"else\""),
        ("/no/such/file", "cannot read"),
        ("/", "cannot read"),
        ("/dev/zero", "larger than"),
    ];
    for (path, says) in cases {
        let out = run(&["--replay", path]);
        let stderr = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{path}: {stderr}");
        assert!(stderr.contains(says), "{path}: {stderr}");
    }
}

#[test]
fn a_closed_pipe_is_success_and_a_full_disk_is_not() {
    let _dog = watchdog(180);
    let mut child = tour().args(["--lines", "5000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("kit"));
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let full = || File::options().write(true).open("/dev/full").unwrap();
    for args in [&[][..], &["--json"]] {
        let out = tour().args(args).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        assert!(text(&out.stderr).contains("No space left"), "{}", text(&out.stderr));
    }
    for option in ["--save", "--report"] {
        let out = run(&[option, "/dev/full"]);
        assert_eq!(out.status.code(), Some(1));
        assert!(text(&out.stderr).contains(option), "{}", text(&out.stderr));
    }
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one() {
    let _dog = watchdog(180);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone/run.json");
    let out = run(&["--save", path.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("cannot write"), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("So: "), "the telling itself goes on");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing half-written stays");
}

#[test]
fn help_fits_and_a_link_stays_a_link() {
    let _dog = watchdog(180);
    let help = text(&run(&["--help"]).stdout);
    assert!(help.lines().all(|l| l.chars().count() <= 80), "{help}");

    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file.json"), dir.path().join("link.json"));
    std::fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(run(&["--save", link.to_str().unwrap()]).status.code(), Some(0));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&file).unwrap().contains("schema"));
}

#[test]
fn step_mode_asks_and_tells_how_many_guesses_were_right() {
    let _dog = watchdog(180);
    let mut child = tour().arg("--step").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"b\n\n\n\n").unwrap();
    let out = child.wait_with_output().unwrap();
    let told = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0));
    for says in [
        "Predict: how many",
        "b) one: KVM_RUN",
        "Yes: one: KVM_RUN",
        "[Enter to go on]",
        "You predicted 1 of 1",
    ] {
        assert!(told.contains(says), "{says:?} is missing:\n{told}");
    }
    // Without anybody there, it goes through by itself.
    let out = run(&["--step"]);
    assert_eq!(out.status.code(), Some(0));
    assert!(text(&out.stdout).contains("It is: one: KVM_RUN"));
}

#[test]
fn ctrl_c_cleans_up_and_exits_with_130() {
    let _dog = watchdog(180);
    let dir = tempfile::tempdir().unwrap();
    for signal in [nix::sys::signal::SIGINT, nix::sys::signal::SIGTERM, nix::sys::signal::SIGHUP] {
        let made = dir.path().join(signal.as_str());
        let mut child = tour()
            .args(["--hang", made.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !std::fs::read_to_string(&made).is_ok_and(|t| t == "here") {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{signal}: {:?}", status.signal());
        assert!(!made.exists(), "{signal}: left behind");
    }
}

#[test]
fn the_report_is_one_file_without_script() {
    let _dog = watchdog(180);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    assert_eq!(run(&["--report", path.to_str().unwrap()]).status.code(), Some(0));
    let page = std::fs::read_to_string(&path).unwrap();
    for part in ["<svg", "<details", "Predict:", "&quot;schema&quot;: 1", "Linux"] {
        assert!(page.contains(part), "{part} is missing");
    }
    assert!(!page.contains("<script"));
}
