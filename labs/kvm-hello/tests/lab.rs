//! Invariants of the machine. What a run comes to is held against something that
//! knows the answer another way: KVM's own walk, a byte-by-byte comparison, the generator run here.
#![cfg(target_arch = "x86_64")]

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
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
    need_kvm!();
    let hello = hello::run(Mode::User, Watch::Nothing, TIMEOUT).expect("the calls work");
    assert!(hello.said_hello());
    // Bit 1: a write. Bit 2: from ring 3. Bit 0 clear: the page was not there.
    assert_eq!(hello.page_fault, (s5_user::LAZY_PAGE + layout::RESULT, 0b110));
}

#[test]
fn every_event_of_every_way_arrives() {
    let _dog = watchdog(180);
    need_kvm!();
    for way in Way::ALL {
        let cost = cost::measure(way, 20).unwrap_or_else(|e| panic!("{way:?}: {e}"));
        assert_eq!(cost.samples.len(), 20);
        assert_eq!((cost.events, cost.arrived), (20 * u64::from(way.batch()), cost.events), "{way:?}");
    }
}

#[test]
fn kvm_counts_our_exits() {
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
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
    let _dog = watchdog(180);
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
