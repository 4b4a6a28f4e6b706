//! Gradescope's autograder archive, run as they run it: unpacked to `/autograder/source`, set up, and then, without a
//! network, given submissions in `/autograder/submission`. In namespaces, so that `/autograder` is only the test's.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use kit::testing::watchdog;
use tests::demo::{Demo, copy, demo};

/// Runs a script where `/autograder` is `folder`, with loopback and no other network.
fn there(folder: &Path, script: &str) -> (Option<i32>, String, String) {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--user",
        "--map-root-user",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-ec",
    ]);
    // A new root with /autograder in it: the machine's own folders, and nothing made on the machine.
    let root = folder.join("root");
    let setup = format!(
        "mount -t tmpfs none {root}; cd {root}\n\
         for d in /*; do case $d in /tmp|/proc|/autograder|/mnt) ;; *)\n\
           if [ -L $d ]; then cp -P $d .$d; elif [ -d $d ]; then mkdir .$d; mount --rbind $d .$d; fi ;; esac; done\n\
         mkdir tmp proc autograder; chmod 1777 tmp; mount -t proc proc proc; mount --bind {at} autograder\n\
         exec chroot . sh -ec \"$0\"",
        root = root.display(),
        at = folder.join("autograder").display()
    );
    fs::create_dir_all(&root).unwrap();
    unshare.args([&setup, script]).stdin(std::process::Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" || name == "CARGO"
        {
            unshare.env_remove(name);
        }
    }
    unshare.env("CARGO_NET_OFFLINE", "true").env("CARGO_HOME", cargo_home());
    // What was built for the tests is used there too, but for what is of the checkout itself.
    unshare.env("CARGO_TARGET_DIR", tests::target());
    unshare.env("BENCHTOP_HOMEWORK", Demo::kept());
    tests::ran(unshare)
}

fn cargo_home() -> std::path::PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, Into::into)
}

/// What the runner reads records by: its benches are of labs that are not in the demo.
fn benches_without_labs(demo: &Demo) {
    let (from, to) = (tests::root().join("benches"), demo.root().join("benches"));
    copy(&from.join("src"), &to.join("src"));
    let manifest = fs::read_to_string(from.join("Cargo.toml")).unwrap();
    let tables = manifest.split("\n[");
    let kept: Vec<_> =
        tables.filter(|t| !t.starts_with("dev-dependencies]") && !t.starts_with("[bench]]")).collect();
    fs::write(to.join("Cargo.toml"), kept.join("\n[")).unwrap();
}

/// `setup.sh` where nothing is installed: it asks for the right packages, and says it if Rust cannot be fetched.
fn bare(folder: &Path, setup: &Path) {
    let bin = folder.join("bare");
    fs::create_dir_all(&bin).unwrap();
    for tool in ["sh", "dirname", "chmod"] {
        let found = ["/usr/bin", "/bin"].map(|d| Path::new(d).join(tool)).into_iter().find(|p| p.exists());
        symlink(found.unwrap(), bin.join(tool)).unwrap();
    }
    // What it installs: a curl that has no network.
    let apt = format!(
        "#!/bin/sh\necho \"apt-get $*\" >>{0}/log\n\
         case $1 in install) printf '#!/bin/sh\\necho \"curl $*\" >>{0}/log\\nexit 6\\n' >{0}/curl; chmod 755 {0}/curl ;; esac\n",
        bin.display()
    );
    fs::write(bin.join("apt-get"), apt).unwrap();
    fs::set_permissions(bin.join("apt-get"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = Command::new("/bin/sh");
    run.arg(setup).env_clear().env("PATH", &bin).env("CARGO_HOME", bin.join("cargo"));
    let (code, out, err) = tests::ran(run);
    let log = fs::read_to_string(bin.join("log")).unwrap();
    assert!(log.contains("--no-install-recommends build-essential curl ca-certificates"), "{log}");
    assert!(log.contains("https://sh.rustup.rs"), "{log}");
    assert_eq!((code, out.as_str(), err.as_str()), (Some(6), "", ""), "it goes on without Rust");
}

#[test]
fn the_archive_grades_as_on_gradescope() {
    let _dog = watchdog(1800);
    let demo = match demo() {
        Ok(demo) => demo,
        Err(why) => kit::skip!("cargo", "{why}"),
    };
    // Their containers have no solutions to find: but a checkout that builds must have its runner.
    copy(&tests::root().join("xtask"), &demo.root().join("xtask"));
    benches_without_labs(&demo);
    fs::create_dir_all(demo.root().join(".cargo")).unwrap();
    fs::copy(tests::root().join(".cargo/config.toml"), demo.root().join(".cargo/config.toml")).unwrap();
    demo.edit(
        "Cargo.toml",
        "members = [\"kit\", \"xtask\", \"labs/*\", \"benches\", \"tests\"]",
        "members = [\"kit\", \"xtask\", \"labs/*\", \"benches\"]",
    );

    let zip = demo.beside("demo.zip").display().to_string();
    let secret = demo.beside("secret").display().to_string();
    fs::write(&secret, "0123456789abcdef").unwrap();
    let (code, out, err) = demo.homework(&["gradescope-zip", "demo", "--out", &zip, "--secret", &secret]);
    assert!(
        code == Some(0) && out.contains("10 points") && out.contains("ex1.rs, ex2.rs, ex2.txt"),
        "{out}{err}"
    );
    let folder = demo.beside("theirs");
    let source = folder.join("autograder/source");
    fs::create_dir_all(&source).unwrap();
    let unpack = "import sys, zipfile, os\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
        for i in z.infolist():\n    p = z.extract(i, sys.argv[2])\n    os.chmod(p, i.external_attr >> 16 & 0o777)";
    let unpacked = Command::new("python3").args(["-c", unpack, &zip]).arg(&source).status();
    match unpacked {
        Ok(status) => assert!(status.success(), "Python cannot read the archive"),
        Err(e) => kit::skip!("python3", "{e}"),
    }
    assert!(source.join("setup.sh").is_file() && source.join("run_autograder").is_file());
    assert!(!source.join("benchtop/labs/demo/exercises/solutions").exists());

    bare(&folder, &source.join("setup.sh"));
    let (code, _, why) = there(&folder, "true");
    if code != Some(0) {
        kit::skip!("userns", "unshare: {why}");
    }
    let (code, out, err) =
        there(&folder, "cp /autograder/source/run_autograder /autograder; /autograder/source/setup.sh");
    assert_eq!(code, Some(0), "{out}{err}");

    let results = |files: &[(&str, &str)]| -> serde_json::Value {
        let submission = folder.join("autograder/submission");
        let _ = fs::remove_dir_all(&submission);
        let _ = fs::remove_dir_all(folder.join("autograder/results"));
        fs::create_dir_all(&submission).unwrap();
        let metadata = r#"{"id": 5, "users": [{"email": "a@example.com", "id": 1234, "name": "A"}]}"#;
        fs::write(folder.join("autograder/submission_metadata.json"), metadata).unwrap();
        for (from, to) in files {
            fs::copy(demo.exercise(from), submission.join(to)).unwrap();
        }
        let (code, out, err) = there(&folder, "/autograder/run_autograder");
        assert_eq!(code, Some(0), "{out}{err}");
        let text = fs::read_to_string(folder.join("autograder/results/results.json"));
        serde_json::from_str(&text.unwrap_or_else(|e| panic!("{e}: {out}{err}"))).expect("JSON")
    };
    let solved = results(&[
        ("solutions/ex1.rs", "ex1.rs"),
        ("solutions/ex2.rs", "ex2.rs"),
        ("solutions/ex2.txt", "ex2.txt"),
    ]);
    assert_eq!(solved["score"], 9, "{solved}");
    let half = results(&[("wrong/ex1_saturates.rs", "ex1.rs")]);
    assert_eq!(half["score"], 3, "{half}");
    let tests = half["tests"].as_array().unwrap();
    for (name, status) in
        [("demo ex1: adds", "passed"), ("demo ex1: wraps", "failed"), ("demo ex2: greets", "failed")]
    {
        assert!(tests.iter().any(|t| t["name"] == name && t["status"] == status), "{half}");
    }
    let none = results(&[]);
    assert_eq!(none["score"], 0);
    // Whatever they hand in, a student has the same inputs.
    let drawn = |r: &serde_json::Value| {
        r["output"]
            .as_str()
            .and_then(|o| o.split("--seed ").nth(1))
            .unwrap_or_else(|| panic!("{r}"))
            .to_owned()
    };
    assert_eq!((drawn(&solved), drawn(&half)), (drawn(&none), drawn(&none)));
}
