//! Spec of exercise 3: a timeout for each connection, by linked operations.

#![allow(missing_docs, reason = "test")]
#![allow(dead_code, reason = "a starter uses nothing yet")]

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[path = "../exercises/ex3.rs"]
mod exercise;
mod links;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use exercise::serve;
use kit::spec::{Property, property};
use kit::stats::SplitMix;
use links::Act::{self, Abort, Await, AwaitClose, Deaf, Fin, Later, Send, Sleep, Vanish};
use links::sys::Real;
use links::{Fake, Habits, PLAIN};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Milliseconds.
const IDLE: u64 = 500;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 3) as u8).collect()
}

/// A client that asks so often, and ends.
fn asks(requests: usize, len: usize) -> Vec<Act> {
    let mut plan: Vec<Act> = (0..requests).flat_map(|_| [Send(bytes(len)), Await]).collect();
    plan.extend([Fin, AwaitClose]);
    plan
}

fn served(habits: Habits, plans: Vec<Vec<Act>>) -> Fake {
    let mut ring = Fake::new(habits, plans);
    serve(&mut ring, IDLE);
    ring
}

/// Named before anything is served: what a crash breaks, too.
fn whole() -> Property {
    property("what a client sends comes back to it, whole and in order", "which bytes are still to be sent?")
}

/// What the clients sent has come back to them.
fn all_is_back(ring: &Fake) {
    let back = whole();
    for (at, client) in ring.clients.iter().enumerate() {
        back.holds(
            client.sent == client.received,
            format!("the {} bytes that client {at} has sent", client.sent.len()),
            format!("{} bytes", client.received.len()),
        );
    }
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex3.rs"]
fn echoes_come_back() {
    kit::spec::run(|| {
        let _ = whole();
        let mut random = SplitMix(kit::spec::seed());
        let mut draw = |most: u64| (random.next_u64() % most) as usize;
        for sends in [usize::MAX, 1000, 7] {
            let plans = (0..1 + draw(8)).map(|_| asks(draw(10), 1 + draw(3000))).collect();
            all_is_back(&served(Habits { sends, ..PLAIN }, plans));
        }
        // More than a receive brings, and the end with it.
        all_is_back(&served(PLAIN, vec![vec![Send(bytes(10_000)), Fin, Await, AwaitClose]; 3]));
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex3.rs"]
fn the_idle_are_closed() {
    kit::spec::run(|| {
        let cases: [(&str, u64, Vec<Act>); 4] = [
            ("one that never sends", IDLE, vec![AwaitClose]),
            (
                "one that sends and then does nothing",
                2 * IDLE - 100,
                vec![Sleep(IDLE - 100), Send(bytes(10)), Await, AwaitClose],
            ),
            ("one that takes nothing of its echo", IDLE, vec![Deaf, Send(bytes(1000)), AwaitClose]),
            (
                "one that sends a part, and sleeps for long",
                IDLE,
                vec![Send(bytes(10)), Sleep(10_000), AwaitClose],
            ),
        ];
        for (who, when, plan) in cases {
            let next = "to which operation is a timeout linked, and when does it begin?";
            let closed = property(format!("{who} is closed after {IDLE} ms without a sign of life"), next);
            // Others, busy all the time, change nothing about it.
            let busy: Vec<Act> =
                (0..15).flat_map(|_| [Send(bytes(9)), Await, Sleep(100)]).chain([Fin, AwaitClose]).collect();
            let ring = served(Habits { room: 100, ..PLAIN }, vec![busy, plan]);
            closed.same(Some(when), ring.clients[1].closed_at);
        }
        let next = "does each operation have a timeout of its own, from when on?";
        let alive = property("one that sends a byte now and then is not closed", next);
        let mut plan: Vec<Act> = (0..20).flat_map(|_| [Send(bytes(1)), Await, Sleep(IDLE - 1)]).collect();
        plan.extend([Fin, AwaitClose]);
        let ring = served(PLAIN, vec![plan]);
        alive.same(Some(20 * (IDLE - 1)), ring.clients[0].closed_at);
        all_is_back(&ring);
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex3.rs"]
fn completions_come_in_any_order() {
    kit::spec::run(|| {
        for (timeout_first, timeout_late) in [(true, false), (false, true)] {
            let habits = Habits { timeout_first, timeout_late, ..PLAIN };
            let next = "by what do you know whose completion it is, once a descriptor is used again?";
            let right =
                property("a timeout's completion before or long after its operation's does no harm", next);
            // Some are closed for doing nothing, and others get their descriptors.
            let plans =
                vec![asks(5, 100), vec![AwaitClose], vec![Send(bytes(5)), Await, AwaitClose], asks(20, 100)];
            let ring = served(habits, plans);
            right.same(vec![], ring.left_open());
            all_is_back(&ring);
            let waits = || {
                (0..6)
                    .flat_map(|_| [Send(bytes(50)), Await, Sleep(300)])
                    .chain([Fin, AwaitClose])
                    .collect::<Vec<_>>()
            };
            let ring = served(
                habits,
                vec![asks(1, 1), waits(), vec![AwaitClose], asks(2, 9), waits(), vec![AwaitClose], waits()],
            );
            right.same(vec![], ring.left_open());
            all_is_back(&ring);
            // One comes just as another's descriptor is free again.
            let comes = |ms: u64| [vec![Later(ms)], waits()].concat();
            let ring = served(
                habits,
                vec![vec![AwaitClose], comes(IDLE), vec![AwaitClose], comes(IDLE), asks(30, 5)],
            );
            right.same(vec![], ring.left_open());
            all_is_back(&ring);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex3.rs"]
fn data_in_the_last_moment_counts() {
    kit::spec::run(|| {
        for timeout_first in [false, true] {
            let mut plan: Vec<Act> = (0..3).flat_map(|_| [Send(bytes(20)), Await, Sleep(IDLE)]).collect();
            plan.extend([Send(bytes(30)), Await, Fin, AwaitClose]);
            let next =
                "timeout and data at once: which of the two completions says what has become of the data?";
            let counts = property("what comes in the moment at which the timeout fires is echoed", next);
            let ring = served(Habits { timeout_first, ..PLAIN }, vec![plan]);
            counts.same(90, ring.clients[0].received.len());
            counts.same(Some(3 * IDLE), ring.clients[0].closed_at);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex3.rs"]
fn everything_is_closed() {
    kit::spec::run(|| {
        let next = "which results of an operation end a connection, and which do not end accepting?";
        let closed = property("whoever ends, fails or goes is closed, and nobody else", next);
        let gone = || vec![Send(bytes(9000)), Vanish, AwaitClose];
        let late = || vec![Send(bytes(10)), Await, Vanish, AwaitClose];
        let ring = served(
            PLAIN,
            vec![gone(), asks(3, 10), vec![Abort], late(), vec![Fin, AwaitClose], vec![Abort], asks(3, 10)],
        );
        closed.same(vec![], ring.left_open());
        closed.same(30, ring.clients[1].received.len());
        closed.same(30, ring.clients[6].received.len());
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex3.rs"]
fn calls_are_shared() {
    kit::spec::run(|| {
        let _ = whole();
        let next = "how much can be pushed between two enters?";
        let one = served(PLAIN, vec![asks(100, 64)]);
        property("a single client's request costs two enters", next).holds(
            one.enters <= 205,
            "205 enters for 100 requests",
            one.enters,
        );
        let many = served(PLAIN, vec![asks(40, 64); 20]);
        property("clients that are busy at once share them", next).holds(
            many.enters <= 130,
            "130 enters for 40 requests of 20 clients",
            many.enters,
        );
        all_is_back(&many);
    });
}

/// Asks until it is told to stop. Whether all answers were right; that it was closed is its own fault if it slept.
fn busy(addr: SocketAddr, stop: &AtomicBool, idle: Duration) -> bool {
    let mut socket = TcpStream::connect(addr).expect("connect");
    let (mut answer, mut last) = ([0; 64], Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let slept = last.elapsed() > idle / 2;
        last = Instant::now();
        if socket.write_all(&[7; 64]).is_err() || socket.read_exact(&mut answer).is_err() {
            return slept;
        }
        if answer != [7; 64] {
            return false;
        }
    }
    true
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex3.rs"]
fn the_kernel_of_this_machine() {
    kit::spec::run(|| {
        let next = "what does the made-up ring not ask of you?";
        let name = "with the kernel of this machine, the busy are served and the idle are closed";
        let holds = property(name, next);
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let addr = listener.local_addr().expect("getsockname");
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).expect("eventfd"));
        let mut ring = Real::new(listener, Arc::clone(&stop));
        let idle = Duration::from_millis(600);
        let clients = std::thread::spawn(move || {
            let over = AtomicBool::new(false);
            let right = std::thread::scope(|scope| {
                let busy: Vec<_> = (0..2).map(|_| scope.spawn(|| busy(addr, &over, idle))).collect();
                let silent: Vec<_> = (0..2)
                    .map(|_| {
                        scope.spawn(|| {
                            let mut socket = TcpStream::connect(addr).expect("connect");
                            let answered =
                                socket.write_all(&[1; 5]).is_ok() && socket.read_exact(&mut [0; 5]).is_ok();
                            // Until it is closed.
                            answered && matches!(socket.read(&mut [0; 1]), Ok(0))
                        })
                    })
                    .collect();
                let silent = silent.into_iter().all(|client| client.join().unwrap_or(false));
                over.store(true, Ordering::Relaxed);
                let busy = busy.into_iter().all(|client| client.join().unwrap_or(false));
                (busy, silent)
            });
            stop.write(1).expect("write(eventfd)");
            right
        });
        serve(&mut ring, idle.as_millis() as u64);
        let (busy, silent) = clients.join().expect("clients do not panic");
        holds.holds(busy, "right answers for the busy", "none, or others");
        holds.holds(silent, "the end for the idle, after their answer", "something else");
    });
}
