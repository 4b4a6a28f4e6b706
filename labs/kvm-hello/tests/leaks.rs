//! Machines leave nothing behind. Alone in its process: other tests open descriptors of their own.
#![cfg(target_arch = "x86_64")]

use std::time::Duration;

use kit::skip;
use kit::testing::watchdog;
use kvm_hello::cost::{self, Way};
use kvm_hello::dirty::{self, Method};
use kvm_hello::hello::{self, Watch};
use kvm_hello::machine::Machine;
use kvm_hello::misbehave::{self, Wrong};
use kvm_hello::mode::Mode;
use kvm_hello::snapshot::{Snapshot, clones};

#[test]
fn no_descriptor_thread_or_mapping_is_left() {
    let _dog = watchdog(180);
    if let Err(e) = Machine::new() {
        skip!("kvm", "{e}");
    }
    // Once before counting: the first time may set up something for good.
    all();
    let before = held();
    for _ in 0..3 {
        all();
    }
    let after = held();
    assert_eq!(before.descriptors, after.descriptors, "descriptors");
    assert_eq!(before.threads, after.threads, "threads");
    assert!(after.mappings <= before.mappings + 4, "{} mappings, then {}", before.mappings, after.mappings);
}

fn all() {
    for mode in Mode::ALL {
        hello::run(mode, Watch::Exits, Duration::from_secs(20)).expect("the calls work");
    }
    for way in Way::ALL {
        cost::measure(way, 3).expect("the guest leaves as it should");
    }
    misbehave::run(Wrong::Loop, Duration::from_millis(5)).expect("the calls work");
    let mut machine = dirty::booted(Method::Nothing).expect("boots");
    let snapshot = Snapshot::take(&mut machine).expect("freezes");
    clones(&snapshot, 2).expect("clones");
}

struct Held {
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

fn held() -> Held {
    let count = |folder: &str| std::fs::read_dir(folder).map_or(0, Iterator::count);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    Held {
        descriptors: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
        mappings: maps.lines().count(),
    }
}
