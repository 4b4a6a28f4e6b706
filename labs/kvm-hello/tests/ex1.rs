//! Spec of exercise 1: a counter with a reset and an interrupt.

#![allow(missing_docs, reason = "test")]
#![cfg(target_arch = "x86_64")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex1.rs"]
mod exercise;
#[path = "guests/sys.rs"]
mod guests;

/// The registers, as the README draws them.
mod map {
    pub const BASE: u64 = 0x1000_0000;
    /// Bytes.
    pub const SIZE: u64 = 20;

    pub const IDENTITY: u64 = 0;
    pub const CONTROL: u64 = 4;
    pub const COUNT: u64 = 8;
    pub const LIMIT: u64 = 12;
    pub const STATUS: u64 = 16;

    /// What the identity reads.
    pub const NAME: u32 = u32::from_le_bytes(*b"CNT!");
    /// Control: ticks are counted.
    pub const RUN: u32 = 1;
    /// Control: the line goes up when the status has [`EXPIRED`].
    pub const INTERRUPT: u32 = 2;
    /// Control, only to be written.
    pub const RESET: u32 = 4;
    /// Status; to write it clears it.
    pub const EXPIRED: u32 = 1;
}

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use exercise::{Board, Counter};
use kit::spec::property;
use kit::stats::SplitMix;
use kvm_hello::devices::Device;
use kvm_hello::exits::{Bus, Why};
use kvm_hello::layout;
use kvm_hello::machine::{Machine, Plan};
use kvm_hello::s4_long;
use kvm_hello::segments::write_idt;
use map::{BASE, CONTROL, COUNT, EXPIRED, IDENTITY, INTERRUPT, LIMIT, NAME, RESET, RUN, SIZE, STATUS};

fn read(counter: &mut Counter, offset: u64) -> u32 {
    let mut data = [0xa5; 4];
    counter.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(counter: &mut Counter, offset: u64, value: u32) {
    counter.write(offset, &value.to_le_bytes());
}

/// A counter that counts to `limit`.
fn running(limit: u32, control: u32) -> Counter {
    let mut counter = Counter::default();
    write(&mut counter, LIMIT, limit);
    write(&mut counter, CONTROL, control);
    counter
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex1.rs"]
fn registers_hold_what_they_should() {
    kit::spec::run(|| {
        let mut counter = Counter::default();
        let after_power_on = property("after power-on all is 0 but the identity", "what does the map say?");
        let all: Vec<u32> = (0..SIZE).step_by(4).map(|offset| read(&mut counter, offset)).collect();
        after_power_on.same(vec![NAME, 0, 0, 0, 0], all);

        let kept = property("control and limit read as written", "is a register 32 bits, lowest byte first?");
        write(&mut counter, LIMIT, 0x1234_5678);
        kept.same(0x1234_5678, read(&mut counter, LIMIT));
        write(&mut counter, CONTROL, RUN | INTERRUPT);
        kept.same(RUN | INTERRUPT, read(&mut counter, CONTROL));

        property("bits of control that mean nothing read 0", "which bits are there to be kept?").same(RUN, {
            write(&mut counter, CONTROL, !RESET & !INTERRUPT);
            read(&mut counter, CONTROL)
        });
        let fixed = property("identity and count cannot be written", "who else may change them?");
        write(&mut counter, IDENTITY, 7);
        write(&mut counter, COUNT, 7);
        fixed.same((NAME, 0), (read(&mut counter, IDENTITY), read(&mut counter, COUNT)));
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex1.rs"]
fn only_whole_registers() {
    kit::spec::run(|| {
        let mut counter = running(0x0102_0304, RUN);
        for width in [1, 2, 8] {
            for offset in [LIMIT, STATUS] {
                let next = "what does an access to half a register, or to two, mean to this device?";
                let ones = property(format!("{width} bytes at +{offset} read as all ones"), next);
                let mut data = vec![0xa5; width];
                counter.read(offset, &mut data);
                ones.same(vec![0xff; width], data);
                let nothing = property(format!("{width} bytes written at +{offset} change nothing"), next);
                counter.write(offset, &vec![9; width]);
                nothing.same(0x0102_0304, read(&mut counter, LIMIT));
            }
        }
        for offset in [1, 6, LIMIT + 1, SIZE] {
            let next = "where do registers begin?";
            property(format!("+{offset}, where no register begins, reads as all ones"), next)
                .same(u32::MAX, read(&mut counter, offset));
            write(&mut counter, offset, 0);
            property(format!("a write to +{offset} changes nothing"), next)
                .same((0x0102_0304, RUN), (read(&mut counter, LIMIT), read(&mut counter, CONTROL)));
        }
    });
}

/// The oracle: one tick at a time.
fn tick(count: &mut u32, limit: u32, expired: &mut bool) {
    let next = u64::from(*count) + 1;
    if limit != 0 && next >= u64::from(limit) {
        (*count, *expired) = (0, true);
    } else {
        *count = next as u32;
    }
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex1.rs"]
fn it_counts_and_starts_again() {
    kit::spec::run(|| {
        let mut random = SplitMix(kit::spec::seed());
        let mut draw = |below: u64| (random.next_u64() % below) as u32;
        let many_as_one = property(
            "many ticks at once are the same as so many single ones",
            "count on paper: which tick is it that expires, and what is left of the others?",
        );
        for _ in 0..500 {
            let (limit, lowered) = (draw(6), draw(6));
            let ticks: [u32; 3] = [draw(8), draw(8), draw(20)];
            let (mut count, mut expired) = (0, false);
            (0..ticks[0] + ticks[1]).for_each(|_| tick(&mut count, limit, &mut expired));
            (0..ticks[2]).for_each(|_| tick(&mut count, lowered, &mut expired));
            let mut counter = running(limit, RUN);
            counter.advance(ticks[0]);
            counter.advance(ticks[1]);
            write(&mut counter, LIMIT, lowered);
            counter.advance(ticks[2]);
            let seen = (read(&mut counter, COUNT), read(&mut counter, STATUS) == EXPIRED);
            let given = format!("{ticks:?} ticks, the limit {limit} and for the last of them {lowered}");
            many_as_one.holds(
                (count, expired) == seen,
                format!("count {count}, expired {expired}: {given}"),
                format!("count {}, expired {}", seen.0, seen.1),
            );
        }

        let still = property("nothing is counted without RUN", "what is the RUN bit for?");
        let mut counter = running(3, INTERRUPT);
        counter.advance(5);
        still.same((0, 0), (read(&mut counter, COUNT), read(&mut counter, STATUS)));

        let many =
            property("four billion ticks are counted as quickly as one", "can you do it without a loop?");
        let mut counter = running(1000, RUN);
        counter.advance(u32::MAX);
        many.same(u32::MAX % 1000, read(&mut counter, COUNT));
        write(&mut counter, LIMIT, 0);
        counter.advance(u32::MAX);
        many.same(u32::MAX % 1000 - 1, read(&mut counter, COUNT));
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex1.rs"]
fn the_line_is_status_and_enable() {
    kit::spec::run(|| {
        let next = "the line is a level: of which two bits is it made, at any moment?";
        let mut counter = running(2, RUN);
        property("the line is down while interrupts are off", next).same(false, {
            counter.advance(2);
            counter.line()
        });
        property("switched on late, it goes up for what has expired before", next).same(true, {
            write(&mut counter, CONTROL, INTERRUPT);
            counter.line()
        });
        property("it stays up until it is acknowledged", next).same(true, {
            read(&mut counter, STATUS);
            counter.advance(1);
            counter.line()
        });
        let next = "what does it mean to write a 0 to a bit that is cleared by writing a 1?";
        property("a 0 written to the status clears nothing", next).same((true, EXPIRED), {
            write(&mut counter, STATUS, 0);
            (counter.line(), read(&mut counter, STATUS))
        });
        property("a 1 written to the status clears it, and the line goes down", next).same((false, 0), {
            write(&mut counter, STATUS, EXPIRED);
            (counter.line(), read(&mut counter, STATUS))
        });
        property("a 1 written to a clear status does not set it", next).same((false, 0), {
            write(&mut counter, STATUS, EXPIRED);
            (counter.line(), read(&mut counter, STATUS))
        });
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex1.rs"]
fn reset_is_power_on() {
    kit::spec::run(|| {
        let next = "what of all that a device remembers is still there after power-on?";
        let mut counter = running(4, RUN | INTERRUPT);
        counter.advance(7);
        // With RESET, the other bits of the same write mean nothing.
        write(&mut counter, CONTROL, RESET | RUN | INTERRUPT);
        property("a reset takes back the interrupt", next)
            .same((false, 0), (counter.line(), read(&mut counter, STATUS)));
        let all: Vec<u32> = (0..SIZE).step_by(4).map(|offset| read(&mut counter, offset)).collect();
        property("after a reset all registers are as after power-on", next).same(vec![NAME, 0, 0, 0, 0], all);
        counter.advance(9);
        property("after a reset nothing is counted", next).same(0, read(&mut counter, COUNT));
        write(&mut counter, CONTROL, INTERRUPT);
        property("nothing from before a reset raises the line later", next).same(false, counter.line());
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex1.rs"]
fn the_wire_hears_changes_only() {
    kit::spec::run(|| {
        let heard = RefCell::new(Vec::new());
        let take = || -> Vec<bool> { std::mem::take(&mut *heard.borrow_mut()) };
        let mut board = Board::new(|up: bool| heard.borrow_mut().push(up));
        let word = |value: u32| value.to_le_bytes();
        let next = "each word on the wire is a system call: when is there something to tell?";
        let quiet = property("what does not change the line is not told", next);
        board.mmio_write(BASE + LIMIT, &word(2));
        board.mmio_write(BASE + CONTROL, &word(RUN | INTERRUPT));
        board.advance(1);
        quiet.same(vec![], take());
        let raised = property("the line goes up when the limit is reached", next);
        board.advance(1);
        raised.same(vec![true], take());
        let quiet = property("a line that is up is not raised again", next);
        board.advance(2);
        board.mmio_read(BASE + STATUS, &mut [0; 4]);
        quiet.same(vec![], take());
        let lowered = property("the line goes down in the very access that acknowledges", next);
        board.mmio_write(BASE + STATUS, &word(EXPIRED));
        lowered.same(vec![false], take());
        board.advance(2);
        take();
        let lowered = property("the line goes down in the very access that resets", next);
        board.mmio_write(BASE + CONTROL, &word(RESET));
        lowered.same(vec![false], take());

        let next = "which addresses are the device's?";
        for address in [BASE - 4, BASE + SIZE, 0, u64::MAX - 3] {
            let mut data = [0xa5; 4];
            board.mmio_write(address, &word(3));
            board.mmio_read(address, &mut data);
            property(format!("{address:#x} is not the device's: it reads as all ones"), next)
                .same([0xff; 4], data);
        }
    });
}

/// The input of the interrupt controllers that the counter is wired to.
const LINE: u32 = 5;

/// The student's board, and a clock behind port 0x12.
struct Clocked<W>(Board<W>);

impl<W: FnMut(bool)> Bus for Clocked<W> {
    fn port_out(&mut self, port: u16, _: &[u8]) {
        if port == 0x12 {
            self.0.advance(1);
        }
    }
    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.0.mmio_read(address, data);
    }
    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        self.0.mmio_write(address, data);
    }
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex1.rs"]
fn a_driver_gets_its_interrupts() {
    kit::spec::run(|| {
        let next = "follow tests/guests/counter.s: when does the line change, and who hears of it?";
        property("a driver in a guest comes to its end", next).holds(true, "", "");
        let mut machine =
            Machine::build(&Plan { cpuid: true, irqchip: true, ..Plan::default() }).expect("KVM");
        machine.memory().write(layout::CODE as usize, guests::counter());
        s4_long::enter(&mut machine).expect("long mode");
        let mut sregs = machine.sregs().expect("KVM_GET_SREGS");
        sregs.idt = write_idt(machine.memory(), &[(0x20 + LINE as u8, layout::CODE + 0x100)]);
        machine.set_sregs(&sregs).expect("KVM_SET_SREGS");

        let changes = Rc::new(RefCell::new(Vec::new()));
        let wire = Rc::clone(&changes);
        let mut bus = Clocked(Board::new(move |up: bool| wire.borrow_mut().push(up)));
        machine.vcpu.set_deadline(Some(Duration::from_secs(5))).expect("timer");
        let mut told = 0;
        loop {
            let exit = machine.run(&mut bus).expect("KVM_RUN");
            for up in std::mem::take(&mut *changes.borrow_mut()) {
                told += 1;
                machine.vm.set_line(LINE, up).expect("KVM_IRQ_LINE");
            }
            match exit.why {
                Why::PortOut { port: 0x10, .. } => break,
                Why::PortOut { .. } | Why::MmioRead { .. } | Why::MmioWrite { .. } => {}
                why => property("the guest leaves for ports and for the device only", next).holds(
                    false,
                    "port or MMIO",
                    why,
                ),
            }
        }
        let word = |at: usize| machine.memory().read_u32(at);
        property("the guest finds the device by its identity", next).same(NAME, word(0x428));
        property("the status is clear behind a reset", next).same(0, word(0x430));
        property("the driver finds a reason for six interrupts", next).same(6, word(0x424));
        property("the line was told of 14 changes, and of nothing else", next).same(14, told);
    });
}
