//! Spec of exercise 2: io_uring by hand.

#![allow(missing_docs, reason = "test")]
#![allow(dead_code, reason = "a starter uses nothing yet")]

#[allow(
    unsafe_code,
    reason = "queues in memory that is shared with the kernel are what the exercise is about"
)]
#[path = "../exercises/ex2.rs"]
mod exercise;
mod uring;

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use exercise::{Buffers, Uring, echo};
use kit::spec::property;
use kit::stats::SplitMix;
use nix::errno::Errno;
use uring::sys::Real;
use uring::sys::fake::{Fake, Habits};
use uring::{Cqe, Kernel, OP_NOP, Sqe};

fn nop(user_data: u64) -> Sqe {
    Sqe { opcode: OP_NOP, user_data, ..Sqe::default() }
}

fn ring<K: Kernel>(kernel: &K) -> Uring<'_, K> {
    Uring::new(kernel, 5).unwrap_or_else(|e| panic!("Uring::new: {e}"))
}

/// Pushes, enters, pops, in batches drawn at random.
fn back_and_forth<K: Kernel>(kernel: &K, operations: u64) {
    let mut ring = ring(kernel);
    let mut random = SplitMix(kit::spec::seed());
    let order = property(
        "every submission completes once, in order, over and over",
        "what becomes of an index at the end of the ring, and what at 2^32?",
    );
    let (mut pushed, mut popped) = (0, 0);
    while popped < operations {
        let before = (pushed, popped);
        for _ in 0..1 + random.next_u64() % 8 {
            pushed += u64::from(ring.push(nop(pushed)));
        }
        order.same(Ok(()), ring.enter((pushed - popped) as u32));
        for _ in 0..1 + random.next_u64() % 8 {
            let next: Option<Cqe> = ring.pop();
            let Some(cqe) = next else { break };
            order.same((popped, 0), (cqe.user_data, cqe.res));
            popped += 1;
        }
        while pushed - popped > 8 {
            let Some(cqe) = ring.pop() else { break };
            order.same(popped, cqe.user_data);
            popped += 1;
        }
        let stuck = format!("after {pushed} entries nothing is pushed any more, and nothing popped");
        order.holds(before != (pushed, popped), "room for an entry", stuck);
    }
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex2.rs"]
fn the_queues_are_where_the_kernel_says() {
    kit::spec::run(|| {
        let kernel = Fake::new(Habits::default(), vec![]);
        let next = "the offsets are in the parameters that the kernel has filled in: which of them have you not used?";
        let found = property("one submission goes in, and its completion comes out", next);
        let mut ring = ring(&kernel);
        found.same(None, ring.pop());
        found.same(true, ring.push(nop(42)));
        found.same(None, ring.pop());
        found.same(Ok(()), ring.enter(1));
        found.same(Some(Cqe { user_data: 42, res: 0, flags: 0 }), ring.pop());
        found.same(None, ring.pop());
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex2.rs"]
fn indices_wrap_and_queues_fill() {
    kit::spec::run(|| {
        let kernel = Fake::new(Habits::default(), vec![]);
        let mut one = ring(&kernel);
        let full = property(
            "as many entries fit as the kernel has made, and no more",
            "how far may the tail be from the head?",
        );
        let fit = (0..20).take_while(|user| one.push(nop(*user))).count();
        full.same(8, fit);
        full.same(Ok(()), one.enter(8));
        full.same(true, one.push(nop(8)));
        drop(one);
        back_and_forth(&Fake::new(Habits::default(), vec![]), 2000);
        let some = property(
            "an enter that takes fewer than it was asked to, or is interrupted, is made again",
            "what does it return?",
        );
        let kernel = Fake::new(Habits { takes: 3, interrupts: 3, ..Habits::default() }, vec![]);
        let mut one = ring(&kernel);
        some.same(8, (0..8).filter(|user| -> bool { one.push(nop(*user)) }).count());
        some.same(Ok(()), one.enter(8));
        some.same(
            (0..8).map(Some).collect::<Vec<_>>(),
            (0..8).map(|_| one.pop().map(|cqe| cqe.user_data)).collect(),
        );
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex2.rs"]
fn the_kernel_may_look_at_any_moment() {
    kit::spec::run(|| {
        back_and_forth(&Fake::new(Habits { strict: true, ..Habits::default() }, vec![]), 200);
        let kernel = Fake::new(Habits { strict: true, ..Habits::default() }, vec![]);
        let ring = ring(&kernel);
        let mut buffers = Buffers::new(&ring, 4, 64, 0).unwrap_or_else(|e| panic!("Buffers::new: {e}"));
        kernel.take_buffer();
        buffers.give(0);
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex2.rs"]
fn buffers_go_round() {
    kit::spec::run(|| {
        let kernel = Fake::new(Habits::default(), vec![]);
        let ring = ring(&kernel);
        let mut buffers = Buffers::new(&ring, 8, 100, 3).unwrap_or_else(|e| panic!("Buffers::new: {e}"));
        let next = "which entry is the next, and what is in it?";
        let first = property("at first the kernel has all buffers", next);
        let all: Vec<_> = (0..9).map(|_| kernel.take_buffer()).collect();
        let mut expected: Vec<_> = (0..8).map(|bid| Some((bid, buffers.address(bid), 100))).collect();
        expected.push(None);
        first.same(expected, all);
        let apart = property("buffers do not overlap", "where does each begin?");
        let starts: Vec<u64> = (0..8).map(|bid| buffers.address(bid)).collect();
        apart.holds(
            starts.windows(2).all(|w| w[0].abs_diff(w[1]) >= 100),
            "100 bytes apart",
            format!("{starts:x?}"),
        );

        // More often than its tail can count.
        let round = property("a buffer that is given back is there for the kernel, in turn", next);
        let mut random = SplitMix(kit::spec::seed());
        for _ in 0..70_000 {
            let bid = (random.next_u64() % 8) as u16;
            buffers.give(bid);
            round.same(Some((bid, buffers.address(bid), 100)), kernel.take_buffer());
        }
    });
}

/// So many requests of so many clients, of up to `longest` bytes.
fn requests(clients: usize, count: usize, longest: u64) -> Vec<Vec<Vec<u8>>> {
    let mut random = SplitMix(kit::spec::seed());
    let mut request = || -> Vec<u8> {
        (0..1 + random.next_u64() % longest).map(|_| random.next_u64() as u8 % 200).collect()
    };
    (0..clients).map(|_| (0..count).map(|_| request()).collect()).collect()
}

/// Serves these clients, with so many buffers.
fn served(habits: Habits, clients: Vec<Vec<Vec<u8>>>, buffers: u16) -> Fake {
    let kernel = Fake::new(habits, clients);
    let next = "which bytes are sent, from which buffer, and when is that buffer given back?";
    let back = property("what a client sends comes back, whole and in order", next);
    let done: Result<(), Errno> = echo(&kernel, &kernel.sockets(), buffers, 256);
    back.same(Ok(()), done);
    for (at, (sent, received)) in kernel.echoes().into_iter().enumerate() {
        let first =
            sent.iter().zip(&received).position(|(a, b)| a != b).unwrap_or(sent.len().min(received.len()));
        back.holds(
            sent == received,
            format!("the {} bytes of client {at}", sent.len()),
            format!("{} bytes, others from byte {first} on", received.len()),
        );
    }
    kernel
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex2.rs"]
fn echoes_come_back() {
    kit::spec::run(|| {
        let plain = Habits::default();
        served(plain, requests(3, 5, 200), 16);
        // Sends that take a part, receives that end, too few buffers, interruptions; and all of it at once.
        served(Habits { sends: 50, ..plain }, requests(5, 5, 2000), 64);
        served(Habits { shots: 2, ..plain }, requests(5, 5, 2000), 64);
        served(plain, requests(9, 5, 3000), 4);
        served(Habits { takes: 2, interrupts: 3, ..plain }, requests(9, 5, 2000), 64);
        served(Habits { takes: 3, interrupts: 4, sends: 70, shots: 3, ..plain }, requests(9, 9, 3000), 8);
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex2.rs"]
fn calls_are_shared() {
    kit::spec::run(|| {
        let kernel = served(Habits::default(), requests(6, 50, 200), 16);
        let next = "how much can be done between two enters?";
        property("clients that are busy at once share the calls", next).holds(
            kernel.enters() <= 150,
            "150 enters for 300 requests of 6 clients",
            kernel.enters(),
        );
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex2.rs"]
fn nothing_is_left_behind() {
    kit::spec::run(|| {
        let next = "what has been made by then, and who gives it back on this way out?";
        for call in 0..5 {
            let name = [
                "io_uring_setup",
                "the first mmap",
                "the second mmap",
                "the third mmap",
                "io_uring_register",
            ][call];
            let kernel = Fake::new(Habits { fails: Some(call as u32), ..Habits::default() }, vec![]);
            let failed = property(format!("if {name} fails, nothing is left"), next);
            let done: Result<(), Errno> = echo(&kernel, &[], 4, 64);
            failed.same(Err(Errno::ENOMEM), done);
            failed.same("0 descriptors, 0 mappings".to_owned(), kernel.left());
        }
        let kernel = served(Habits::default(), requests(2, 2, 10), 4);
        property("in the end nothing is left", next)
            .same("0 descriptors, 0 mappings".to_owned(), kernel.left());
    });
}

/// A client that asks so often, then ends; whether all answers were right.
fn ask(mut socket: UnixStream, requests: u32) -> bool {
    let right = (0..requests).all(|number| {
        let request: Vec<u8> = (0..1 + number * 37 % 900).map(|i| (i + number) as u8).collect();
        let mut answer = vec![0; request.len()];
        socket.write_all(&request).is_ok() && socket.read_exact(&mut answer).is_ok() && answer == request
    });
    right && socket.shutdown(std::net::Shutdown::Write).is_ok() && socket.read(&mut [0; 1]).is_ok()
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex2.rs"]
fn the_kernel_of_this_machine() {
    kit::spec::run(|| {
        let next = "what does the made-up kernel not ask of you?";
        let kernel = Real::default();
        property("the queues work with the kernel of this machine", next).holds(true, "", "");
        back_and_forth(&kernel, 5000);

        let (ours, theirs): (Vec<_>, Vec<_>) =
            (0..6).map(|_| UnixStream::pair().expect("socketpair")).unzip();
        let clients: Vec<_> =
            theirs.into_iter().map(|socket| std::thread::spawn(move || ask(socket, 100))).collect();
        let sockets: Vec<_> = ours.iter().map(|socket| socket.as_raw_fd()).collect();
        let before = kernel.enters.get();
        let echoed = property("clients get back what they have sent, from the kernel of this machine", next);
        let done: Result<(), Errno> = echo(&kernel, &sockets, 16, 256);
        echoed.same(Ok(()), done);
        drop(ours);
        let right = clients.into_iter().all(|client| client.join().unwrap_or(false));
        echoed.holds(right, "their bytes", "others");
        let enters = kernel.enters.get() - before;
        // Requests of up to 900 bytes in buffers of 256: 3 receives a request on average, 600 requests.
        let next = "how much can be done between two enters?";
        property("a receive costs two enters at most", next).holds(enters <= 3600, "3600", enters);
    });
}
