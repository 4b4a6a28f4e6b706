//! Spec of exercise 3: a guest moves while it runs.

#![allow(missing_docs, reason = "test")]
#![allow(dead_code, reason = "a starter uses nothing yet")]
#![cfg(target_arch = "x86_64")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[path = "../exercises/ex3.rs"]
mod exercise;
#[path = "guests/sys.rs"]
mod guests;
mod moving;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::Duration;

use exercise::{receive, send};
use kit::spec::property;
use kit::stats::SplitMix;
use kvm_bindings::kvm_regs;
use kvm_hello::layout;
use kvm_hello::machine::{Machine, Plan};
use kvm_hello::sys::mem::Mapping;
use moving::real::{Memory, Real};
use moving::{Habit, Limits, PAGE, Place, Plain, Wire, kind, unpack};

const PATIENT: Limits = Limits { rounds: 30, pause_at: 4 };

/// Sends; a move that should succeed.
fn sent(guest: &mut Plain, limits: Limits) -> Wire {
    let mut wire = Wire::of(guest);
    let done: io::Result<()> = send(guest, &mut wire, limits);
    property("a move over a stream that does not break succeeds", "what went wrong?").holds(
        done.is_ok(),
        "Ok",
        format!("{done:?}"),
    );
    wire
}

/// One record.
fn record(number: u64, kind: u64, bytes: &[u8]) -> Vec<u8> {
    [&(number << 8 | kind).to_le_bytes(), bytes].concat()
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex3.rs"]
fn the_stream_is_as_agreed() {
    kit::spec::run(|| {
        let mut guest = Plain::new(70, Habit::Still);
        for (page, byte) in [(1, 7), (63, 8), (69, 9)] {
            guest.set(page, byte);
        }
        let next = "a word, the page's bytes if it has any, and at the end the registers: is all of it written, also where \
                    the stream takes less than it is given?";
        let agreed = property("three pages and the registers are sent as the statement says", next);
        let wire = sent(&mut guest, PATIENT);
        let mut expected = Vec::new();
        for (page, byte) in [(1, 7), (63, 8), (69, 9)] {
            expected.extend(record(page, kind::BYTES, &[byte; PAGE]));
        }
        expected.extend(record(9, kind::END, b"registers"));
        let differs = wire.bytes.iter().zip(&expected).position(|(a, b)| a != b);
        let at = differs.unwrap_or(wire.bytes.len().min(expected.len()));
        let shown = |bytes: &[u8]| {
            format!(
                "{} bytes, from {at} on {:02x?}",
                bytes.len(),
                bytes[at..].iter().take(16).collect::<Vec<_>>()
            )
        };
        agreed.holds(wire.bytes == expected, shown(&expected), shown(&wire.bytes));
        property("the guest stays stopped, without a log", "who runs it from now on?")
            .same((true, false), (guest.paused.get(), guest.logging));
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex3.rs"]
fn nothing_is_lost() {
    kit::spec::run(|| {
        let mut random = SplitMix(kit::spec::seed());
        for _ in 0..60 {
            let mut guest = Plain::new(70, Habit::Busy(SplitMix(random.next_u64())));
            let limits =
                Limits { rounds: 1 + (random.next_u64() % 12) as u32, pause_at: random.next_u64() % 20 };
            let arrived = property(
                "every page arrives as it was when the guest was stopped",
                "think of a write at any moment: before or after the log was switched on, taken, the page read, the guest \
                 stopped. Which later step sends it?",
            );
            let wire = sent(&mut guest, limits);
            let (memory, registers, _) = unpack(&wire.bytes, 70);
            let wrong: Vec<usize> = (0..70).filter(|page| memory[*page] != guest.memory[*page]).collect();
            arrived.holds(wrong.is_empty(), "all 70 pages", format!("other bytes in the pages {wrong:?}"));
            property("the registers arrive", "who has them, and when are they final?")
                .same(b"registers".to_vec(), registers);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex3.rs"]
fn zeros_cost_little() {
    kit::spec::run(|| {
        let next = "what does the other side have there already?";
        let mut guest = Plain::new(100, Habit::Still);
        let empty = property("a page that is zero and always was costs nothing", next);
        guest.set(5, 1);
        let wire = sent(&mut guest, PATIENT);
        empty.same([1, 0], unpack(&wire.bytes, 100).2);

        // All pages are written in the first round, all but some with zeros; and some of them again in the second.
        let mut random = SplitMix(kit::spec::seed());
        for _ in 0..30 {
            let mut guest = Plain::new(40, Habit::Busy(SplitMix(random.next_u64())));
            (0..40).for_each(|page| guest.set(page, 3));
            let wire = sent(&mut guest, Limits { rounds: 6, pause_at: 0 });
            let (memory, ..) = unpack(&wire.bytes, 40);
            let zero = property("a page that has become zero arrives as zero", next);
            let lost: Vec<usize> =
                (0..40).filter(|p| guest.memory[*p] == [0; PAGE] && memory[*p] != [0; PAGE]).collect();
            zero.holds(lost.is_empty(), "zeros", format!("old bytes in the pages {lost:?}"));
            let small = property("no zeros are sent as 4096 bytes", next);
            let (whole, zeros) = stream_of_zeros(&wire.bytes);
            small.same(0, whole);
            property("zeros are not sent where zeros are already", next).same(0, zeros);
        }
    });
}

/// Of a stream that is whole: zeros sent as bytes, and zeros sent to where zeros were.
fn stream_of_zeros(stream: &[u8]) -> (u32, u32) {
    let (mut whole, mut again) = (0, 0);
    let mut there: BTreeMap<u64, bool> = BTreeMap::new();
    let mut rest = stream;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        rest = after;
        match word & 0xff {
            kind::BYTES => {
                let (bytes, after) = rest.split_at(PAGE);
                rest = after;
                whole += u32::from(bytes == [0; PAGE]);
                there.insert(word >> 8, true);
            }
            kind::ZERO => again += u32::from(there.insert(word >> 8, false) != Some(true)),
            _ => break,
        }
    }
    (whole, again)
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex3.rs"]
fn it_stops_late_and_briefly() {
    kit::spec::run(|| {
        let page = 8 + PAGE;
        let end = 8 + 9;
        let next = "what is left to be sent when the guest is stopped, and when is that little enough?";
        // It writes 100 pages in the first round, 40 in the second, and so on.
        let mut guest = Plain::new(200, Habit::Steady(vec![100, 40, 10, 3]));
        (0..200).for_each(|page| guest.set(page, 1));
        let calm = property("it is stopped when 10 pages or fewer are left", next);
        let wire = sent(&mut guest, Limits { rounds: 30, pause_at: 10 });
        calm.same(10 * page + end, wire.while_paused);
        let bytes = property(
            "each round sends the pages written in the last, once",
            "what is in the log, and what was?",
        );
        bytes.same((200 + 100 + 40 + 10) * page + end, wire.bytes.len());

        let mut guest = Plain::new(200, Habit::Steady(vec![50]));
        (0..200).for_each(|page| guest.set(page, 1));
        let next = "how many rounds may there be, the first one counted?";
        let wild = property("a guest that never calms down is stopped after four rounds", next);
        let wire = sent(&mut guest, Limits { rounds: 4, pause_at: 10 });
        wild.same((200 + 3 * 50 + 50) * page + end, wire.bytes.len());
        wild.same(50 * page + end, wire.while_paused);
        property("it is stopped once", next).same(1, guest.pauses);
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex3.rs"]
fn a_broken_move_lets_it_run_on() {
    kit::spec::run(|| {
        let broken = property(
            "if the stream breaks, the move fails, and the guest runs on without a log",
            "what have you changed about the guest by then, and does every way out change it back?",
        );
        let guest = || {
            let mut guest = Plain::new(70, Habit::Busy(SplitMix(3)));
            (0..70).for_each(|page| guest.set(page, 1));
            guest
        };
        let all = sent(&mut guest(), PATIENT);
        let whole = all.bytes.len();
        let stopped = whole - all.while_paused;
        for at in [0, 5, 4104, stopped / 2, stopped + 1, whole - 12, whole - 1] {
            let mut guest = guest();
            let mut wire = Wire { breaks_at: Some(at), ..Wire::of(&guest) };
            let done: io::Result<()> = send(&mut guest, &mut wire, PATIENT);
            let seen = (done.is_err(), guest.paused.get(), guest.logging);
            broken.holds(
                seen == (true, false, false),
                format!("an error, not stopped, no log: the stream of {whole} bytes breaks after {at}"),
                format!("error: {}, stopped: {}, log: {}", seen.0, seen.1, seen.2),
            );
        }
    });
}

/// A stream that gives a few bytes at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = to.len().min(700);
        self.0.read(&mut to[..most])
    }
}

/// Memory that must not be written outside of.
#[derive(Default)]
struct Room(BTreeMap<u64, [u8; PAGE]>);

impl Place for Room {
    fn pages(&self) -> u64 {
        10
    }

    fn write(&mut self, page: u64, from: &[u8; PAGE]) {
        property("nothing is written to a page that is not there", "whose number is it?").holds(
            page < 10,
            "a page below 10",
            page,
        );
        self.0.insert(page, *from);
    }
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex3.rs"]
fn a_stream_is_not_believed() {
    kit::spec::run(|| {
        let good = [
            record(9, kind::BYTES, &[7; PAGE]),
            record(0, kind::BYTES, &[8; PAGE]),
            record(9, kind::ZERO, b""),
            record(5, kind::END, b"state"),
        ]
        .concat();
        let next = "a read may give less than was asked for: is all there when you use it?";
        let mut room = Room::default();
        let mut slow = Slow(&good);
        let received = property("a good stream is received", next);
        let registers: io::Result<Vec<u8>> = receive(&mut slow, &mut room);
        received.same(Some(b"state".to_vec()), registers.ok());
        received.same((Some(&[0; PAGE]), Some(&[8; PAGE])), (room.0.get(&9), room.0.get(&0)));

        let two = [&good[..], b"another guest"].concat();
        let mut slow = Slow(&two);
        let further = property("what comes behind the guest is not read", "how many bytes are the guest's?");
        let _: io::Result<Vec<u8>> = receive(&mut slow, &mut Room::default());
        further.same(b"another guest".len(), slow.0.len());

        let cut = property("a stream that ends too early is UnexpectedEof", next);
        for len in [0, 3, 8, 4103, 4104, 8208, 8216, 8220, good.len() - 1] {
            let seen: io::Result<Vec<u8>> = receive(&mut Slow(&good[..len]), &mut Room::default());
            let seen = seen.map_err(|e| e.kind());
            cut.holds(seen == Err(ErrorKind::UnexpectedEof), format!("it: {len} bytes"), format!("{seen:?}"));
        }
        let bad =
            property("a record that makes no sense is InvalidData", "which numbers in it can be wrong?");
        for (number, kind) in [
            (10, kind::BYTES),
            (1 << 54, kind::ZERO),
            (0, 0),
            (0, 4),
            (65537, kind::END),
            (1 << 55, kind::END),
        ] {
            let stream = record(number, kind, &[0; PAGE]);
            let seen: io::Result<Vec<u8>> = receive(&mut Slow(&stream), &mut Room::default());
            let seen = seen.map_err(|e| e.kind());
            bad.holds(
                seen == Err(ErrorKind::InvalidData),
                format!("it: number {number}, kind {kind}"),
                format!("{seen:?}"),
            );
        }
    });
}

fn pages(memory: &Mapping) -> Vec<[u8; PAGE]> {
    let mut all = vec![[0; PAGE]; memory.len() / PAGE];
    all.iter_mut().enumerate().for_each(|(page, bytes)| memory.read(page * PAGE, bytes));
    all
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex3.rs"]
fn a_running_guest_arrives() {
    kit::spec::run(|| {
        let mut stayed = Real::new();
        while !stayed.slice() {}

        let mut left = Real::new();
        let mut stream = Vec::new();
        let moved = property(
            "a guest moves while it works, and works on",
            "does what holds in plain memory hold here?",
        );
        let done: io::Result<()> = send(&mut left, &mut stream, Limits { rounds: 8, pause_at: 20 });
        moved.holds(done.is_ok(), "Ok", format!("{done:?}"));

        let memory = Arc::new(Mapping::anonymous(layout::SMALL).expect("mmap"));
        let there = Arc::clone(&memory);
        let plan = Plan { cpuid: true, ..Plan::default() };
        let mut machine = Machine::build_on(&plan, || Ok(memory)).expect("KVM");
        machine.vcpu.set_deadline(Some(Duration::from_secs(8))).expect("timer");
        let registers: io::Result<Vec<u8>> = receive(&mut stream.as_slice(), &mut Memory(there));
        let bytes = registers.unwrap_or_default();
        moved.same(11 * 8, bytes.len());
        let r: Vec<u64> =
            bytes.chunks(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes"))).collect();
        machine.set_sregs(&left.machine.sregs().expect("KVM_GET_SREGS")).expect("KVM_SET_SREGS");
        let regs = kvm_regs {
            rip: r[0],
            rsp: r[1],
            rflags: r[2],
            rax: r[3],
            rbx: r[4],
            rsi: r[5],
            rdi: r[6],
            r8: r[7],
            r9: r[8],
            r10: r[9],
            r11: r[10],
            ..Default::default()
        };
        machine.set_regs(&regs).expect("KVM_SET_REGS");
        let mut arrived = Real { machine, slices: left.slices, running: true };
        while !arrived.slice() {}

        moved.same(stayed.slices, arrived.slices);
        let (here, there) = (pages(stayed.machine.memory()), pages(arrived.machine.memory()));
        let differ: Vec<usize> = (0..here.len()).filter(|page| here[*page] != there[*page]).collect();
        moved.holds(
            differ.is_empty(),
            "the memory of one that stayed",
            format!("other bytes in the pages {differ:?}"),
        );
    });
}
