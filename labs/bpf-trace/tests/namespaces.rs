//! Numbers of processes: the tracer tells, and is asked for, those of its own PID namespace.

mod common;

use std::process::{Command, Output, Stdio};

use bpf_trace::perf_map::PerfMap;
use kit::testing::watchdog;

/// Runs a script of `sh` as the first process of a PID namespace, $LAB being the lab's program.
fn inside(script: &str) -> Output {
    let unshare = ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", script];
    Command::new("unshare").args(unshare).env("LAB", common::program()).stdin(Stdio::null()).output().unwrap()
}

macro_rules! needs_namespaces {
    () => {
        needs_bpf!();
        if !Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "true"])
            .status()
            .is_ok_and(|s| s.success())
        {
            kit::skip!("root", "unshare --pid does not work here");
        }
    };
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Events, one a line, and the document behind them.
fn json(out: &Output) -> (Vec<serde_json::Value>, serde_json::Value) {
    let said = text(&out.stdout);
    let at = said.find("{\n").unwrap_or_else(|| panic!("{said} {}", text(&out.stderr)));
    let events = said[..at].lines().filter(|l| l.starts_with('{')).map(|l| serde_json::from_str(l).unwrap());
    (events.collect(), serde_json::from_str(&said[at..]).unwrap())
}

#[test]
fn a_process_is_singled_out_by_its_number_in_the_tracers_namespace() {
    let _dog = watchdog(180);
    needs_namespaces!();
    // Busy with umask(2), which nobody else calls all the time; the other one with chdir(2).
    let busy = "sh -c 'while :; do umask; done' >/dev/null & busy=$!; sh -c 'while :; do cd /; done' &";
    for option in ["--pid $busy", "--tid $busy"] {
        let out = inside(&format!(
            "{busy} $LAB syscalls --json --duration 0.3 {option}; echo $busy >&2; kill $(jobs -p)"
        ));
        let (_, shown) = json(&out);
        let calls = shown["steps"][0]["items"].to_string();
        assert!(calls.contains("umask") && !calls.contains("chdir"), "{option}: {shown}");
        assert_eq!(shown["ok"], true, "{option}");
    }
    let out = inside(&format!("{busy} $LAB runq --json --duration 0.3 --pid $busy; kill $(jobs -p)"));
    let (_, shown) = json(&out);
    assert!(shown["metrics"]["events"]["value"].as_f64().is_some_and(|n| n > 0.0), "{shown}");
}

#[test]
fn events_tell_the_number_that_the_process_itself_knows() {
    let _dog = watchdog(180);
    needs_namespaces!();
    let out =
        inside("$LAB open --json --failed -- sh -c 'cat /no/such/$$; exec cat /no/such/$$' 2>/dev/null");
    let (events, _) = json(&out);
    let path =
        |e: &serde_json::Value| e["path"].as_str().and_then(|p| p.strip_prefix("/no/such/")?.parse().ok());
    let own: Vec<(u64, u64)> = events.iter().filter_map(|e| Some((path(e)?, e["pid"].as_u64()?))).collect();
    let [(shell, child), (same, itself)] = own[..] else { panic!("{events:?}") };
    assert!(shell == same && itself == shell && child > shell && child < 100, "{own:?}");
    let out = inside("$LAB exec --json -- sh -c '/bin/echo $$; /bin/true'");
    let (events, _) = json(&out);
    let echo = events.iter().find(|e| e["args"][0] == "/bin/echo").unwrap();
    assert_eq!(echo["args"][1], echo["parent"].to_string());
    // Its innermost number, told where it is another one.
    assert_eq!(echo.get("pid_inside"), None);
}

#[test]
fn who_is_outside_has_no_number_here() {
    let _dog = watchdog(180);
    needs_namespaces!();
    let mut outside = Command::new("sh")
        .args(["-c", "while :; do true </no/such/outside; done"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let opens = inside("$LAB open --json --failed --duration 0.3");
    let calls = inside("$LAB syscalls --json --duration 0.3 --syscall openat --failed");
    outside.kill().unwrap();
    outside.wait().unwrap();
    let (events, _) = json(&opens);
    let seen: Vec<_> = events.iter().filter(|e| e["path"] == "/no/such/outside").collect();
    assert!(!seen.is_empty() && seen.iter().all(|e| e["pid"] == 0 && e["comm"] == "sh"), "{seen:?}");
    assert!(json(&calls).1["steps"][0]["items"].to_string().contains("(outside)"));
}

#[test]
fn functions_have_names_in_a_container_whose_files_are_not_ours() {
    let _dog = watchdog(180);
    needs_namespaces!();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let text =
        "static void __attribute__((noinline)) turns(void) { for (volatile long i = 0; i < 1000000; i++); }
                int main(void) { for (int i = 0; i < 400; i++) turns(); }";
    std::fs::write(path("busy.c"), text).unwrap();
    let arguments = ["-O1", "-fno-omit-frame-pointer", &path("busy.c"), "-o", &path("busy")];
    let Ok(compiled) = Command::new("cc").args(arguments).status() else {
        kit::skip!("cc", "no C compiler");
    };
    assert!(compiled.success());
    std::fs::create_dir(path("hidden")).unwrap();
    // The program is in a file system that only its own namespace has mounted, and has a number of its own.
    let script =
        format!("mount -t tmpfs none {0}; cp {1} {0}/busy; exec {0}/busy", path("hidden"), path("busy"));
    let unshare = ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", &script];
    let out = Command::new(common::program())
        .args(["profile", "--frequency", "499", "--folded", &path("folded"), "--"])
        .args(unshare)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text_of(&out));
    assert!(!std::path::Path::new(&path("hidden/busy")).exists());
    let folded = std::fs::read_to_string(path("folded")).unwrap();
    let samples = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        let lines = folded.lines().filter(|l| wanted(l));
        lines.map(|l| l.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    };
    let busy = samples(&|l| l.starts_with("busy;"));
    let named = samples(&|l| l.starts_with("busy;") && l.contains(";turns"));
    assert!(busy > 0 && named * 2 > busy, "{folded}");
}

fn text_of(out: &Output) -> String {
    text(&out.stdout) + &text(&out.stderr)
}

#[test]
fn the_map_of_code_made_at_run_time_is_the_one_that_the_process_sees() {
    use std::io::BufRead as _;
    let _dog = watchdog(60);
    needs_namespaces!();
    // Its own /tmp, in which it is process 1.
    let script = "mount -t tmpfs none /tmp; echo '1000 10 inner' >/tmp/perf-1.map; echo ready; read line";
    let mut unshare = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount", "sh", "-ec", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(unshare.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    let shell: u32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let name = PerfMap::open(shell).and_then(|mut map| map.function(0x1000).map(str::to_owned));
    drop(unshare.stdin.take());
    unshare.wait().unwrap();
    assert_eq!(name.as_deref(), Some("inner"));
}
