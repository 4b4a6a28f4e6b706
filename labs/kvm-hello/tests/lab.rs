//! Invariants of the machine, and the command line. What a run shows is held against something that
//! knows the answer another way: KVM's own walk, a byte-by-byte comparison, the generator run here.
#![cfg(target_arch = "x86_64")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use kit::skip;
use kit::testing::watchdog;
use kvm_hello::cost::{self, Way};
use kvm_hello::devices::{self, PROMPT, TYPED, multiplier};
use kvm_hello::dirty::{self, Method};
use kvm_hello::exits::{NoBus, Why};
use kvm_hello::hello::{self, Watch};
use kvm_hello::machine::Machine;
use kvm_hello::misbehave::{self, Wrong};
use kvm_hello::mode::Mode;
use kvm_hello::paging::Tables;
use kvm_hello::snapshot::{Snapshot, clones};
use kvm_hello::stats::Stats;
use kvm_hello::{layout, s4_long, s5_user};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Leaves the test where no machine can be made.
macro_rules! need_kvm {
    () => {
        if let Err(e) = Machine::new() {
            skip!("kvm", "{e}");
        }
    };
}

#[test]
fn every_mode_says_hello_and_computes() {
    let _dog = watchdog(60);
    need_kvm!();
    for mode in Mode::ALL {
        for watch in [Watch::Nothing, Watch::Exits, Watch::Steps] {
            let hello = hello::run(mode, watch, TIMEOUT).expect("the calls work");
            if hello.kvm_cannot() {
                continue; // 32-bit paging, where KVM emulates it; no other mode is excused
            }
            assert!(hello.said_hello(), "{mode:?} {watch:?}: {:?} {}", hello.said, hello.last);
            assert!(hello.in_memory() && hello.in_register(), "{mode:?} {watch:?}: {}", hello.in_memory);
            if watch == Watch::Exits {
                assert_eq!(hello.exit_count as usize, mode.hello().len() + 1, "a letter an exit, and hlt");
                assert!(hello.exits.iter().all(|e| e.line.is_some()), "every exit has its instruction");
            }
        }
    }
}

#[test]
fn single_steps_follow_the_listing() {
    let _dog = watchdog(30);
    need_kvm!();
    let hello = hello::run(Mode::Long, Watch::Steps, TIMEOUT).expect("the calls work");
    let lines = hello::program_lines(Mode::Long);
    for pair in hello.exits.windows(2) {
        let (from, to) = (pair[0].rip, pair[1].rip);
        if from == to {
            continue; // the exit of an `out`, and the step that ends it
        }
        let line = lines.iter().find(|l| l.at == from).expect("each step is at an instruction");
        let jumps = line.text.starts_with('j');
        assert!(to == line.end() || jumps, "{from:#x} {} -> {to:#x}", line.text);
    }
}

#[test]
fn our_walk_and_kvms_agree() {
    let _dog = watchdog(30);
    need_kvm!();
    let machine = Mode::Long.machine().expect("the calls work");
    let tables = Tables::existing(machine.memory(), kvm_hello::paging::Format::FourLevels);
    let mut random = kit::stats::SplitMix(7);
    let mut addresses = vec![0, layout::MMIO, s4_long::WINDOW];
    for _ in 0..100 {
        addresses.push(random.next_u64() & 0x3fff_ffff);
        addresses.push(s4_long::WINDOW - 0x1000 + random.next_u64() % 0x3000);
    }
    for virt in addresses {
        let kvm = machine.translate(virt).expect("KVM_TRANSLATE");
        assert_eq!(tables.walk(virt).physical, kvm, "{virt:#x}");
    }
}

#[test]
fn ring_3_faults_once_and_is_served() {
    let _dog = watchdog(30);
    need_kvm!();
    let hello = hello::run(Mode::User, Watch::Nothing, TIMEOUT).expect("the calls work");
    assert!(hello.said_hello());
    // Bit 1: a write. Bit 2: from ring 3. Bit 0 clear: the page was not there.
    assert_eq!(hello.page_fault, (s5_user::LAZY_PAGE + layout::RESULT, 0b110));
}

#[test]
fn every_event_of_every_way_arrives() {
    let _dog = watchdog(60);
    need_kvm!();
    for way in Way::ALL {
        let cost = cost::measure(way, 20).unwrap_or_else(|e| panic!("{way:?}: {e}"));
        assert_eq!(cost.samples.len(), 20);
        assert_eq!((cost.events, cost.arrived), (20 * u64::from(way.batch()), cost.events), "{way:?}");
    }
}

#[test]
fn kvm_counts_our_exits() {
    let _dog = watchdog(30);
    need_kvm!();
    let mut machine = Mode::Real.machine().expect("the calls work");
    let stats = match Stats::of_vcpu(&machine) {
        Ok(stats) => stats,
        Err(e) => skip!("kvm", "{e}"),
    };
    let before = stats.get("exits").expect("every KVM counts exits");
    for _ in 0..5 {
        machine.run(&mut NoBus).expect("KVM_RUN");
    }
    let after = stats.get("exits").expect("every KVM counts exits");
    assert!(after - before >= 5, "five letters, and {before} to {after} exits");
    assert_eq!(stats.get("no such counter").expect_err("there is none").errno, libc::ENOENT);
}

#[test]
fn devices_do_their_work() {
    let _dog = watchdog(60);
    need_kvm!();
    let report = devices::run(TIMEOUT).expect("the driver gets through");
    assert_eq!(report.said, format!("{PROMPT}{}", TYPED.to_uppercase()));
    assert_eq!(
        report.serial_interrupts,
        1 + PROMPT.len() as u64,
        "turned on, and each byte sent by interrupt"
    );
    assert_eq!((report.identity, report.product), (multiplier::IDENTITY, layout::ANSWER));
    assert!(report.ticks >= 20);
    assert_eq!(report.multiplier_exits, 4);
}

#[test]
fn dirty_pages_are_exactly_those_written() {
    let _dog = watchdog(60);
    need_kvm!();
    let predicted = dirty::predicted();
    for method in [Method::Log, Method::Ring] {
        let tracked = match dirty::track(method) {
            Ok(tracked) => tracked,
            Err(e) if method == Method::Ring => skip!("kvm.dirty_ring", "{e}"),
            Err(e) => panic!("{e}"),
        };
        assert_eq!(tracked.differ, predicted, "the program writes what it is bound to write");
        assert!(tracked.exact(), "{method:?}: {:?} instead of {:?}", tracked.pages, tracked.differ);
    }
}

#[test]
fn clones_share_what_they_do_not_write() {
    let _dog = watchdog(60);
    need_kvm!();
    let mut machine = dirty::booted(Method::Nothing).expect("boots");
    let snapshot = Snapshot::take(&mut machine).expect("freezes");
    // The original goes on; the snapshot must not notice.
    dirty::work(&mut machine).expect("works");
    for clone in clones(&snapshot, 4).expect("clones") {
        assert_eq!(clone.result, clone.id * clone.id);
        assert!((2..=dirty::STORES as usize + 1).contains(&clone.own_pages), "{}", clone.own_pages);
    }
    let mut copy = snapshot.restore_copy().expect("restores");
    assert_eq!(snapshot.pages_changed(&copy).expect("compares"), 0);
    dirty::work(&mut copy).expect("works");
    assert_eq!(snapshot.pages_changed(&copy).expect("compares"), dirty::predicted().len());
    let mut cow = snapshot.restore_cow().expect("restores");
    for _ in 0..3 {
        dirty::work(&mut cow).expect("works");
        assert_eq!(cow.read_u64(layout::RESULT), 1);
        snapshot.reset(&mut cow).expect("resets");
        assert_eq!(cow.read_u64(layout::RESULT), 0, "the write is forgotten");
        assert_eq!(snapshot.pages_changed(&cow).expect("compares"), 0);
    }
}

#[test]
fn no_misbehaviour_hangs_the_host() {
    let _dog = watchdog(60);
    need_kvm!();
    for wrong in Wrong::ALL {
        // Only the loop waits for its time to be up; all others leave by themselves.
        let timeout = if wrong == Wrong::Loop { Duration::from_millis(50) } else { Duration::from_secs(20) };
        let autopsy = misbehave::run(wrong, timeout).expect("the calls work");
        let why = &autopsy.exit.why;
        assert!(wrong.explains(why), "{wrong:?}: {why}");
        assert_eq!(*why == Why::Interrupted, wrong == Wrong::Loop, "{wrong:?}: {why}");
    }
}

/// A guest that never leaves: real mode, and a jump to itself.
fn looping() -> Machine {
    let machine = Mode::Real.machine().expect("the calls work");
    machine.memory().write(layout::CODE as usize, &[0xeb, 0xfe]);
    machine
}

#[test]
fn two_deadlines_in_one_thread_are_both_kept() {
    let _dog = watchdog(30);
    need_kvm!();
    let soon = Some(Duration::from_millis(5));
    for drop_first in [true, false] {
        let (mut first, mut second) = (looping(), looping());
        first.vcpu.set_deadline(soon).expect("timer");
        second.vcpu.set_deadline(soon).expect("timer");
        for machine in [&mut first, &mut second] {
            assert_eq!(machine.run(&mut NoBus).expect("KVM_RUN").why, Why::Interrupted);
        }
        // Whichever goes, the other's timer still gets it out, and its signals write to no page that is gone.
        let mut left = if drop_first {
            drop(first);
            second
        } else {
            drop(second);
            first
        };
        for _ in 0..3 {
            assert_eq!(left.run(&mut NoBus).expect("KVM_RUN").why, Why::Interrupted);
        }
    }
}

fn lab(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kvm-hello")).args(args).output().expect("the lab's own binary starts")
}

fn shown(args: &[&str]) -> String {
    let output = lab(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("--json prints one document")
}

#[test]
fn the_default_run_tells_its_metrics_and_checks() {
    let _dog = watchdog(60);
    need_kvm!();
    let output = lab(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let run = json(&output);
    for metric in ["vm_create_us", "first_exit_us", "pio_exit_ns", "mmio_exit_ns"] {
        assert!(run["metrics"][metric]["value"].as_f64() > Some(0.0), "{metric}");
    }
    let checks: Vec<_> = run["checks"].as_array().expect("checks").iter().map(|c| &c["name"]).collect();
    for check in ["hello_text", "result_in_memory", "result_in_register"] {
        assert!(checks.iter().any(|c| *c == check), "{check}");
    }
}

#[test]
fn every_view_runs() {
    let _dog = watchdog(120);
    need_kvm!();
    // Generous times: this is about what is shown, and the machine may be busy.
    let views: [&[&str]; 8] = [
        &["--quick"],
        &["--mode", "all", "--timeout", "20000"],
        &["--mode", "user", "--trace", "--timeout", "20000"],
        &["--mode", "real", "--single-step", "--timeout", "20000"],
        &["--exits", "--samples", "50"],
        &["--devices", "--timeout", "20000"],
        &["--dirty", "--clones", "2"],
        &["--misbehave", "--timeout", "3000"],
    ];
    for view in views {
        for line in shown(view).lines() {
            assert!(line.chars().count() <= 80, "{view:?}: wider than 80 columns: {line}");
        }
    }
}

#[test]
fn ring_3_never_leaves_the_machine_by_itself() {
    let _dog = watchdog(60);
    need_kvm!();
    let text = shown(&["--mode", "user", "--timeout", "20000"]);
    let marked = |mark: &str| -> Vec<&str> {
        let lines = text.lines().filter(|l| l.ends_with(mark));
        lines.filter_map(|l| l.split_whitespace().next()).collect()
    };
    assert_eq!(marked("<- leaves the machine"), ["110b"]);
    assert_eq!(marked("<- leaves it for the last time"), ["1118"]);
    assert_eq!(marked("<- #GP: to ring 0"), ["2010", "2028"]);
}

#[test]
fn a_guest_cut_short_is_said_to_be_and_fails() {
    let _dog = watchdog(60);
    need_kvm!();
    // No driver waits for 20 ticks of a millisecond in one.
    let output = lab(&["--devices", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--timeout") && said.contains("after 1 ms"), "{said}");
}

#[test]
fn options_that_shape_a_run_are_recorded() {
    let _dog = watchdog(60);
    need_kvm!();
    let run = json(&lab(&["--mode", "long", "--single-step", "--timeout", "20000", "--json"]));
    let params = &run["params"];
    assert_eq!((&params["mode"], &params["single_step"]), (&"long".into(), &true.into()));
    assert_eq!((&params["trace"], &params["timeout_ms"]), (&false.into(), &20_000.into()));
}

#[test]
fn the_bare_run_tells_what_the_framed_one_does() {
    let _dog = watchdog(60);
    need_kvm!();
    // The figure differs from run to run.
    let without_figures = |text: String| text.replace(|c: char| c.is_ascii_digit(), "");
    let (bare, framed) = (shown(&["--quick"]), shown(&["--quick", "--no-color"]));
    assert!(bare.contains("first exit after "), "{bare}");
    assert!(without_figures(framed).ends_with(&without_figures(bare)));
}

#[test]
fn a_full_disk_is_a_failure() {
    let _dog = watchdog(60);
    need_kvm!();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let output = Command::new(env!("CARGO_BIN_EXE_kvm-hello")).arg("--quick").stdout(full).output();
    let output = output.expect("the lab's own binary starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write"));
}

#[test]
fn a_signal_ends_a_run_that_is_inside_the_guest() {
    let _dog = watchdog(30);
    need_kvm!();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvm-hello"))
        .args(["--misbehave", "loop", "--timeout", "25000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the lab's own binary starts");
    // The step's title is told before the guest runs.
    let mut told = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("endless loop") {
        line.clear();
        assert_ne!(told.read_line(&mut line).expect("reads"), 0, "the step is told");
    }
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

#[test]
fn wrong_options_are_usage_errors() {
    let _dog = watchdog(30);
    let wrong: [&[&str]; 14] = [
        &["--timeout", "0"],
        &["--samples", "1"],
        &["--dirty", "--clones", "100000"],
        &["--no-such-option"],
        &["--mode", "vax"],
        &["--exits", "--devices"],
        &["--dirty", "--mode", "long"],
        &["--dirty", "--samples", "50"],
        &["--samples", "50"],
        &["--clones", "2"],
        &["--exits", "--timeout", "500"],
        &["--dirty", "--timeout", "500"],
        &["--misbehave", "--trace"],
        &["--mode", "all", "--single-step"],
    ];
    for args in wrong {
        assert_eq!(lab(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn the_bundled_recordings_replay() {
    let _dog = watchdog(30);
    for name in ["default", "modes", "exits", "devices", "dirty", "misbehave"] {
        let output = lab(&["--replay", name, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert_eq!(json(&output)["recorded"], true);
    }
}

#[test]
fn without_permission_it_says_so_and_exits_4() {
    let _dog = watchdog(30);
    let mode = std::fs::metadata("/dev/kvm").map(|m| m.permissions().mode());
    if !mode.is_ok_and(|m| m & 0o006 == 0) || !nix::unistd::geteuid().is_root() {
        skip!("root", "needs root, to run as one who may not open /dev/kvm");
    }
    // A folder that everyone can enter: the target folder may not be one.
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    let binary = folder.path().join("kvm-hello");
    std::fs::copy(env!("CARGO_BIN_EXE_kvm-hello"), &binary).expect("copy");
    for args in [&["--quick"][..], &[], &["--exits"]] {
        let output = Command::new(&binary)
            .args(args)
            .uid(65534)
            .gid(65534)
            .stdin(Stdio::null())
            .output()
            .expect("the copy starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{args:?}: {said}");
        assert!(said.contains("/dev/kvm") && said.contains("EACCES"), "{said}");
    }
}
