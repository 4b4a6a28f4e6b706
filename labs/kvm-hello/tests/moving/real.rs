//! A guest under KVM, as exercise 3 sees it.

use std::sync::Arc;
use std::time::Duration;

use kit::spec::property;
use kvm_bindings::kvm_regs;
use kvm_hello::exits::{NoBus, Why};
use kvm_hello::machine::{Machine, Plan};
use kvm_hello::sys::mem::Mapping;
use kvm_hello::{dirty, layout, s4_long};

use super::{Guest, PAGE, Place};
use crate::guests;

/// Steps of the guest in all; it leaves at every 256th.
const STEPS: u64 = 1 << 18;

/// A machine with the guest of `guests/moving.s`, which does a slice of its work in each call.
pub struct Real {
    pub machine: Machine,
    pub slices: u64,
    pub running: bool,
}

impl Real {
    /// At its start.
    pub fn new() -> Self {
        let mut machine = Machine::build(&Plan { cpuid: true, ..Plan::default() }).expect("KVM");
        machine.vcpu.set_deadline(Some(Duration::from_secs(8))).expect("timer");
        machine.memory().write(layout::CODE as usize, guests::moving());
        let regs = kvm_regs { rip: layout::CODE, r8: 42, r9: STEPS, ..Default::default() };
        s4_long::enter_ring3(&mut machine, regs).expect("ring 3");
        Self { machine, slices: 0, running: true }
    }

    /// Until it leaves; whether it is at its end.
    pub fn slice(&mut self) -> bool {
        self.slices += 1;
        match self.machine.run(&mut NoBus).expect("KVM_RUN").why {
            Why::PortOut { port: 0x12, .. } => false,
            Why::PortOut { port: 0x10, .. } => true,
            why => panic!("the guest left for {why} after {} slices", self.slices),
        }
    }

    fn live(&mut self) {
        if self.running {
            let end = self.slice();
            property("the guest is stopped before its work is done", "how long does it take you?").holds(
                !end,
                "a stop",
                "the end of its work",
            );
        }
    }
}

impl Guest for Real {
    fn pages(&self) -> u64 {
        (self.machine.memory().len() / PAGE) as u64
    }
    fn log(&mut self, on: bool) {
        self.machine.vm.log_dirty(on).expect("KVM_SET_USER_MEMORY_REGION");
    }
    fn take_log(&mut self) -> Vec<u64> {
        self.live();
        dirty::log(&self.machine).expect("KVM_GET_DIRTY_LOG")
    }
    fn read(&mut self, page: u64, to: &mut [u8; PAGE]) {
        self.live();
        self.machine.memory().read(page as usize * PAGE, to);
    }
    fn pause(&mut self) -> Vec<u8> {
        self.live();
        self.running = false;
        // Finishes the `out`, so that the registers say "behind it".
        self.machine.vcpu.settle().expect("KVM_RUN");
        let r = self.machine.regs().expect("KVM_GET_REGS");
        [r.rip, r.rsp, r.rflags, r.rax, r.rbx, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11]
            .iter()
            .flat_map(|register| register.to_le_bytes())
            .collect()
    }
    fn resume(&mut self) {
        self.running = true;
    }
}

/// A machine's memory.
pub struct Memory(pub Arc<Mapping>);

impl Place for Memory {
    fn pages(&self) -> u64 {
        (self.0.len() / PAGE) as u64
    }
    fn write(&mut self, page: u64, from: &[u8; PAGE]) {
        self.0.write(page as usize * PAGE, from);
    }
}
