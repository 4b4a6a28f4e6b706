//! Spec of exercise 2: requests in shared memory, and a port to say that they are there.

#![allow(missing_docs, reason = "test")]
#![allow(dead_code, reason = "a starter uses nothing yet")]
#![cfg(target_arch = "x86_64")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[path = "../exercises/ex2.rs"]
mod exercise;
#[path = "guests/sys.rs"]
mod guests;

/// What host and guest have agreed upon, as in the README.
mod protocol {
    /// A guest's physical memory, from 0 on.
    pub trait Memory {
        /// Bytes.
        fn size(&self) -> u64;
        /// Copies bytes out.
        fn read(&self, at: u64, to: &mut [u8]);
        /// Copies bytes in.
        fn write(&self, at: u64, from: &[u8]);
    }

    /// The port.
    pub const DOORBELL: u16 = 0x510;
    /// Bytes that one request may move.
    pub const LONGEST: u32 = 4096;
    /// Requests that one doorbell answers.
    pub const MOST: u32 = 64;

    /// Operation: the buffer goes to the host's output.
    pub const PRINT: u32 = 1;
    /// Operation: the host's input goes to the buffer, as much as there is.
    pub const READ: u32 = 2;

    /// Status: done.
    pub const OK: u32 = 1;
    pub const NO_SUCH_OP: u32 = 2;
    pub const TOO_LONG: u32 = 3;
    pub const BAD_BUFFER: u32 = 4;

    /// The answer's bit 31: there was more, but it could not be followed.
    pub const BROKEN: u32 = 1 << 31;
}

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use exercise::{Channel, Port, Request};
use kit::spec::property;
use kvm_hello::exits::{Bus, Why};
use kvm_hello::machine::Machine;
use kvm_hello::machine::Plan;
use kvm_hello::sys::mem::Mapping;
use kvm_hello::{layout, s4_long};
use protocol::{BAD_BUFFER, BROKEN, DOORBELL, LONGEST, MOST, Memory, NO_SUCH_OP, OK, PRINT, READ, TOO_LONG};

/// Memory that notes what is done to it; and, if hostile, a guest that writes all ones over what was just read.
struct Guest {
    bytes: RefCell<Vec<u8>>,
    /// Ranges written.
    written: RefCell<Vec<(u64, u64)>>,
    reads: Cell<u32>,
    hostile: bool,
}

const SIZE: u64 = 0x6000;

impl Guest {
    fn new() -> Self {
        Self {
            bytes: RefCell::new(vec![0; SIZE as usize]),
            written: RefCell::default(),
            reads: Cell::new(0),
            hostile: false,
        }
    }

    /// Puts a request somewhere.
    fn put(&self, at: u64, op: u32, buffer: u64, len: u32, next: u64) {
        let words = [op, 0xaaaa_aaaa, buffer as u32, (buffer >> 32) as u32, len, 0xbbbb_bbbb];
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).chain(next.to_le_bytes()).collect();
        self.bytes.borrow_mut()[at as usize..][..32].copy_from_slice(&bytes);
    }

    fn word(&self, at: u64) -> u32 {
        let bytes = self.bytes.borrow();
        u32::from_le_bytes(bytes[at as usize..][..4].try_into().expect("four bytes"))
    }

    /// Status and bytes done of the request there.
    fn answer(&self, at: u64) -> (u32, u32) {
        (self.word(at + 4), self.word(at + 20))
    }

    /// A monitor that does this has been stopped by its guest.
    fn check(&self, at: u64, len: usize) {
        if at.checked_add(len as u64).is_none_or(|end| end > SIZE) {
            let next = "who has checked that address, and that length?";
            property("the host keeps inside the guest's memory", next).holds(
                false,
                format!("addresses below {SIZE:#x}"),
                format!("{len} bytes at {at:#x}"),
            );
        }
    }
}

impl Memory for Guest {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read(&self, at: u64, to: &mut [u8]) {
        self.check(at, to.len());
        self.reads.set(self.reads.get() + 1);
        if self.reads.get() > 5000 {
            property("a doorbell comes to its end", "what if a list has none?").holds(
                false,
                "an end",
                "5000 reads of memory",
            );
        }
        let mut bytes = self.bytes.borrow_mut();
        let from = &mut bytes[at as usize..][..to.len()];
        to.copy_from_slice(from);
        if self.hostile {
            from.fill(0xff);
        }
    }

    fn write(&self, at: u64, from: &[u8]) {
        self.check(at, from.len());
        self.written.borrow_mut().push((at, at + from.len() as u64));
        self.bytes.borrow_mut()[at as usize..][..from.len()].copy_from_slice(from);
    }
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex2.rs"]
fn a_request_is_decoded() {
    kit::spec::run(|| {
        let decoded = property(
            "each field is where the statement says",
            "at which offset, how wide, which byte first?",
        );
        let bytes: [u8; 32] = std::array::from_fn(|i| i as u8 + 1);
        let seen: Request = Request::decode(&bytes);
        decoded.same(0x0403_0201, seen.op);
        decoded.same(0x100f_0e0d_0c0b_0a09, seen.buffer);
        decoded.same(0x1413_1211, seen.len);
        decoded.same(0x201f_1e1d_1c1b_1a19, seen.next);
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex2.rs"]
fn bytes_go_both_ways() {
    kit::spec::run(|| {
        let next = "how many bytes have been moved, and who has to know?";
        let mut channel = Channel::new(b"0123456789");
        let guest = Guest::new();
        guest.write(0x2000, b"print me");
        guest.put(0x1000, PRINT, 0x2000, 8, 0);
        let printed = property("PRINT prints the buffer, and says how much", next);
        channel.doorbell(0x1000, &guest);
        printed.same((OK, 8), guest.answer(0x1000));
        printed.same("print me".to_owned(), String::from_utf8_lossy(channel.printed()).into_owned());

        // The last bytes of memory are memory.
        guest.put(0x1000, READ, SIZE - 4, 4, 0x1020);
        guest.put(0x1020, READ, 0x3000, 100, 0x1040);
        guest.put(0x1040, READ, 0x3000, 100, 0x1060);
        guest.put(0x1060, PRINT, 0x3000, 0, 0);
        let read = property("READ takes what there is, in order, and says how much", next);
        channel.doorbell(0x1000, &guest);
        read.same((OK, 4), guest.answer(0x1000));
        read.same((OK, 6), guest.answer(0x1020));
        read.same((OK, 0), guest.answer(0x1040));
        let text =
            |at: usize, len: usize| String::from_utf8_lossy(&guest.bytes.borrow()[at..][..len]).into_owned();
        read.same("456789\0\0".to_owned(), text(0x3000, 8));
        property("the port answers how many requests there were", next).same(4, channel.answer());
        let longest = property("0 bytes and the most bytes are not too many", next);
        longest.same((OK, 0), guest.answer(0x1060));
        guest.put(SIZE - 32, PRINT, 0x2000, LONGEST, 0);
        channel.doorbell(SIZE - 32, &guest);
        longest.same((OK, LONGEST), guest.answer(SIZE - 32));
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex2.rs"]
fn bad_requests_do_nothing() {
    kit::spec::run(|| {
        let mut channel = Channel::new(b"input");
        let bad: [(&str, u32, u64, u32, u32); 9] = [
            ("op 0", 0, 0x2000, 8, NO_SUCH_OP),
            ("an op without a meaning, all else wrong too", 3, u64::MAX, u32::MAX, NO_SUCH_OP),
            ("one byte too many", PRINT, 0x2000, LONGEST + 1, TOO_LONG),
            ("too many, and nowhere", READ, u64::MAX, u32::MAX, TOO_LONG),
            ("a buffer that ends one byte behind memory", PRINT, SIZE - 7, 8, BAD_BUFFER),
            ("a buffer behind memory", READ, SIZE + 8, 8, BAD_BUFFER),
            ("a buffer whose end wraps around to 4", PRINT, u64::MAX - 3, 8, BAD_BUFFER),
            ("a buffer whose end wraps around to 4", READ, u64::MAX - 3, 8, BAD_BUFFER),
            ("a buffer above 4 GiB", READ, 1 << 32, 8, BAD_BUFFER),
        ];
        for (what, op, buffer, len, status) in bad {
            let guest = Guest::new();
            guest.put(0x1000, op, buffer, len, 0x1020);
            guest.put(0x1020, PRINT, 0x2000, 0, 0);
            let refused = property(
                format!("{what}: refused with its status, nothing done"),
                "in which order are op, length and buffer judged, and can their sum be trusted?",
            );
            channel.doorbell(0x1000, &guest);
            refused.same((status, 0), guest.answer(0x1000));
            refused.same("".to_owned(), String::from_utf8_lossy(channel.printed()).into_owned());
            property(
                "a request that is refused does not keep the next from being served",
                "what is it to the others?",
            )
            .same((OK, 2), (guest.word(0x1024), channel.answer()));
        }
        let guest = Guest::new();
        guest.put(0x1000, READ, 0x2000, 8, 0);
        let left = property("a READ that is refused takes no input", "when is input gone?");
        channel.doorbell(0x1000, &guest);
        left.same((OK, 5), guest.answer(0x1000));
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex2.rs"]
fn a_list_ends() {
    kit::spec::run(|| {
        let mut channel = Channel::new(b"");
        property("address 0 is no request", "what does `next` say at the end of a list?").same(0, {
            channel.doorbell(0, &Guest::new());
            channel.answer()
        });
        let next = "what must be true of an address before 32 bytes are read from it?";
        for link in [0x1004, SIZE, SIZE - 24, SIZE - 31, u64::MAX - 7, 1 << 32] {
            let guest = Guest::new();
            guest.put(0x1000, PRINT, 0x2000, 1, link);
            let followed =
                property(format!("a list that goes on at {link:#x} is left, and said to be broken"), next);
            channel.doorbell(0x1000, &guest);
            followed.same((1 | BROKEN, OK), (channel.answer(), guest.word(0x1004)));
            channel.doorbell(link, &guest);
            followed.same(BROKEN, channel.answer());
        }
        let guest = Guest::new();
        guest.put(0x1000, PRINT, 0x2000, 1, 0x1020);
        guest.put(0x1020, PRINT, 0x2000, 1, 0x1000);
        let next = "how long can a list be, and who says so?";
        let circle = property("a list that runs in a circle is left after the most requests", next);
        channel.doorbell(0x1000, &guest);
        circle.same(MOST | BROKEN, channel.answer());

        let guest = Guest::new();
        for i in 0..u64::from(MOST) {
            let following = if i + 1 < u64::from(MOST) { 0x1020 + 32 * i } else { 0 };
            guest.put(0x1000 + 32 * i, PRINT, 0x4000, 1, following);
        }
        let full = property("a list of the most requests is not broken", next);
        channel.doorbell(0x1000, &guest);
        full.same(MOST, channel.answer());
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex2.rs"]
fn a_request_is_fetched_once() {
    kit::spec::run(|| {
        let mut channel = Channel::new(b"input");
        let guest = Guest { hostile: true, ..Guest::new() };
        guest.write(0x2000, b"hello");
        guest.put(0x1000, PRINT, 0x2000, 5, 0x1020);
        guest.put(0x1020, READ, 0x3000, 3, 0);
        let once = property(
            "what the guest writes to a request after the host has read it changes nothing",
            "how often do you look at a field, and what may have happened in between?",
        );
        channel.doorbell(0x1000, &guest);
        once.same("hello".to_owned(), String::from_utf8_lossy(channel.printed()).into_owned());
        once.same(((OK, 5), (OK, 3)), (guest.answer(0x1000), guest.answer(0x1020)));
        once.same(2, channel.answer());
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex2.rs"]
fn the_status_comes_last() {
    kit::spec::run(|| {
        let mut channel = Channel::new(b"input");
        let guest = Guest::new();
        guest.put(0x1000, READ, 0x2000, 5, 0);
        let next = "a guest that sees the status believes all the rest: what must be there by then?";
        let last = property("the status is written after the bytes and after their number", next);
        channel.doorbell(0x1000, &guest);
        let written = guest.written.borrow();
        let when = |from: u64, to: u64| written.iter().rposition(|w| w.0 < to && from < w.1);
        let order = [when(0x2000, 0x2005), when(0x1014, 0x1018), when(0x1004, 0x1008)];
        let there = order.iter().all(Option::is_some);
        last.holds(
            there && order.is_sorted() && order[1] != order[2],
            "bytes, then done, then status",
            format!("the writes {written:x?}"),
        );
        property(
            "of a request the host writes done and status, and nothing else",
            "whose are the other fields?",
        )
        .holds(
            written.iter().all(|w| [(0x1004, 0x1008), (0x1014, 0x1018)].contains(w) || w.0 >= 0x2000),
            "four bytes at +4 and four at +20",
            format!("the writes {written:x?}"),
        );
    });
}

/// A machine's memory.
struct Physical(Arc<Mapping>);

impl Memory for Physical {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn read(&self, at: u64, to: &mut [u8]) {
        self.0.read(at as usize, to);
    }
    fn write(&self, at: u64, from: &[u8]) {
        self.0.write(at as usize, from);
    }
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex2.rs"]
fn the_port_takes_four_bytes() {
    kit::spec::run(|| {
        let mut port = Port { channel: Channel::new(b""), memory: Guest::new() };
        let next = "which accesses to which port are the doorbell's?";
        port.memory.put(0x1000, PRINT, 0x2000, 1, 0);
        let asked = property("four bytes to the port ring, four from it answer", next);
        port.port_out(DOORBELL, &0x1000_u32.to_le_bytes());
        let mut data = [0xa5; 4];
        port.port_in(DOORBELL, &mut data);
        asked.same((1, [1, 0, 0, 0]), (port.memory.word(0x1004), data));

        port.memory.put(0x1000, PRINT, 0x2000, 1, 0);
        let ignored = property("another port, or another width, does not ring", next);
        port.port_out(DOORBELL + 1, &0x1000_u32.to_le_bytes());
        port.port_out(DOORBELL, &0x1000_u16.to_le_bytes());
        ignored.same(0xaaaa_aaaa, port.memory.word(0x1004));
        let ones = property("another port, or another width, reads as all ones", next);
        let mut two = [0xa5; 2];
        port.port_in(DOORBELL, &mut two);
        port.port_in(DOORBELL + 1, &mut data);
        ones.same(([0xff; 2], [0xff; 4]), (two, data));
    });
}

#[test]
#[ignore = "exercise: edit labs/kvm-hello/exercises/ex2.rs"]
fn a_guest_is_greeted() {
    kit::spec::run(|| {
        let next = "follow tests/guests/channel.s: which field of which request does the guest look at?";
        let served = property("a guest asks for a name and greets, with two doorbells", next);
        let memory = Arc::new(Mapping::anonymous(layout::SMALL).expect("mmap"));
        memory.write(layout::CODE as usize, guests::channel());
        let plan = Plan { cpuid: true, ..Plan::default() };
        let mut machine = Machine::build_on(&plan, || Ok(Arc::clone(&memory))).expect("KVM");
        s4_long::enter(&mut machine).expect("long mode");
        machine.vcpu.set_deadline(Some(Duration::from_secs(5))).expect("timer");
        let mut port = Port { channel: Channel::new("Ada\n".as_bytes()), memory: Physical(memory) };
        let mut exits = 0;
        loop {
            exits += 1;
            match machine.run(&mut port).expect("KVM_RUN").why {
                Why::PortOut { port: 0x10, .. } => break,
                Why::PortOut { .. } | Why::PortIn { .. } => {}
                why => served.holds(false, "an exit for the doorbell", why),
            }
        }
        let printed = String::from_utf8_lossy(port.channel.printed()).into_owned();
        served.same("name? hello, Ada\n".to_owned(), printed);
        served.same(2, machine.memory().read_u32(0x1180));
        property("17 letters took two doorbells, a question and the end: four exits", next).same(4, exits);
    });
}
