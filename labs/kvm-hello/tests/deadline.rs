//! A deadline that cannot be set leaves nothing behind. Alone in its process: it lowers a limit.
#![cfg(target_arch = "x86_64")]

use std::time::Duration;

use kit::skip;
use kit::testing::watchdog;
use kvm_hello::exits::{NoBus, Why};
use kvm_hello::layout;
use kvm_hello::machine::Machine;
use kvm_hello::mode::Mode;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn a_timer_that_is_refused_leaves_no_pointer_behind() {
    let _dog = watchdog(180);
    if let Err(e) = Machine::new() {
        skip!("kvm", "{e}");
    }
    let (mut stays, mut goes) = (Mode::Real.machine().expect("calls"), Mode::Real.machine().expect("calls"));
    // A jump to itself: only the timer gets this guest out.
    stays.memory().write(layout::CODE as usize, &[0xeb, 0xfe]);
    stays.vcpu.set_deadline(Some(Duration::from_millis(5))).expect("a timer");

    let (soft, hard) = getrlimit(Resource::RLIMIT_SIGPENDING).expect("getrlimit");
    setrlimit(Resource::RLIMIT_SIGPENDING, 0, hard).expect("setrlimit");
    let refused = goes.vcpu.set_deadline(Some(Duration::from_secs(20)));
    setrlimit(Resource::RLIMIT_SIGPENDING, soft, hard).expect("setrlimit");
    assert_eq!(refused.expect_err("no room for its signal").call, "timer_create");
    drop(goes);

    // The first one's signals keep coming: one that wrote to the second's kvm_run would end this process.
    for _ in 0..3 {
        assert_eq!(stays.run(&mut NoBus).expect("KVM_RUN").why, Why::Interrupted);
    }
}
