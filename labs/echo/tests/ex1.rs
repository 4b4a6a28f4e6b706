//! Spec of exercise 1: an edge-triggered loop.

#![allow(missing_docs, reason = "test")]
#![allow(dead_code, reason = "a starter uses nothing yet")]

mod edge;
#[forbid(unsafe_code, reason = "this exercise needs none")]
#[path = "../exercises/ex1.rs"]
mod exercise;

use edge::Act::{Abort, Await, AwaitEnd, Deaf, Fin, Flood, Rest, Send, Vanish};
use edge::real::{Real, ping, pour};
use edge::{Act, BUFFER, Calls, Fake};
use exercise::serve;
use kit::spec::{Property, property};
use kit::stats::SplitMix;

const ROOM: usize = 1 << 20;

/// Bytes that differ from place to place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7) as u8).collect()
}

/// Serves these clients; all of them come to the end of their plans.
fn served(mut kernel: Fake) -> Fake {
    serve(&mut kernel);
    kernel
}

/// Named before anything is served: what a crash breaks, too.
fn whole() -> Property {
    property(
        "what a client sends comes back to it, whole and in order",
        "whose bytes are these, from where on?",
    )
}

/// What the clients sent has come back to them.
fn all_is_back(kernel: &Fake) {
    let back = whole();
    for (at, client) in kernel.clients.iter().enumerate() {
        let differs = client.sent.iter().zip(&client.received).position(|(a, b)| a != b);
        let first = differs.unwrap_or(client.sent.len().min(client.received.len()));
        back.holds(
            client.sent == client.received,
            format!("the {} bytes that client {at} has sent", client.sent.len()),
            format!("{} bytes, others from byte {first} on", client.received.len()),
        );
    }
}

/// A client that asks again and again.
fn asks(requests: usize, len: usize) -> Vec<Act> {
    let mut plan: Vec<Act> = (0..requests).flat_map(|_| [Send(bytes(len)), Await]).collect();
    plan.extend([Fin, AwaitEnd]);
    plan
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex1.rs"]
fn echoes_come_back() {
    kit::spec::run(|| {
        let _ = whole();
        let mut random = SplitMix(kit::spec::seed());
        let mut draw = |most: u64| (random.next_u64() % most) as usize;
        for _ in 0..20 {
            let plans = (0..1 + draw(8)).map(|_| asks(draw(10), 1 + draw(3000))).collect();
            let kernel = served(Fake::new(ROOM, plans));
            all_is_back(&kernel);
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex1.rs"]
fn no_edge_is_missed() {
    kit::spec::run(|| {
        let _ = whole();
        // More than a buffer, exactly some buffers, and the end: all of it told by one edge.
        for len in [10, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER, 3 * BUFFER + 1] {
            let kernel = served(Fake::new(
                ROOM,
                vec![vec![Send(bytes(len)), Await, Send(bytes(3)), Await, Fin, AwaitEnd]],
            ));
            all_is_back(&kernel);
            let kernel = served(Fake::new(ROOM, vec![vec![Send(bytes(len)), Fin, Await, AwaitEnd]]));
            all_is_back(&kernel);
        }
        // Many clients, one edge; and some of them have gone again.
        let mut plans = vec![asks(2, 10); 5];
        plans[1] = vec![Abort];
        plans[3] = vec![Abort];
        all_is_back(&served(Fake::new(ROOM, plans)));
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex1.rs"]
fn a_full_socket_is_waited_for() {
    kit::spec::run(|| {
        let _ = whole();
        for room in [1, 500, BUFFER, 5000] {
            let plan = |moments| {
                vec![Send(bytes(4 * BUFFER)), Deaf(moments), Await, Send(bytes(5)), Await, Fin, AwaitEnd]
            };
            let mut kernel = Fake::new(room, vec![plan(5), asks(30, 10)]);
            if room == 1 {
                kernel = Fake::new(
                    room,
                    vec![vec![Send(bytes(50)), Deaf(3), Send(bytes(5)), Fin, Await, AwaitEnd]],
                );
            }
            all_is_back(&served(kernel));
        }
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex1.rs"]
fn a_flood_starves_nobody() {
    kit::spec::run(|| {
        let flood = || vec![Flood(100 * BUFFER), Await, Fin, AwaitEnd];
        let fair = property(
            "a request waits for three receives of others at most, however much one client sends",
            "how much may one client have before the others get their turn, and when are newcomers seen?",
        );
        for at in 0..2 {
            let mut plans = vec![asks(30, 100)];
            plans.insert(at, flood());
            let kernel = served(Fake::new(ROOM, plans));
            fair.holds(kernel.waited <= 3, "three receives", format!("{} receives", kernel.waited));
            all_is_back(&kernel);
        }
    });
}

/// Whether two calls a request are enough, for so many requests of so many clients.
fn few(calls: Calls, requests: u64, clients: u64) {
    let next = "which receive finds nothing, and how could that be known before?";
    property("a request costs one receive, and a client one or two more", next).holds(
        calls.recv <= requests + 2 * clients,
        format!("{} receives for {requests} requests of {clients} clients", requests + 2 * clients),
        calls.recv,
    );
    property("a request costs one send", "why more than one?").holds(
        calls.send <= requests,
        requests,
        calls.send,
    );
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex1.rs"]
fn a_request_is_two_calls() {
    kit::spec::run(|| {
        let _ = whole();
        // They think for a while before they ask again.
        let mut plan: Vec<Act> = (0..30).flat_map(|_| [Send(bytes(64)), Await, Rest(3)]).collect();
        plan.extend([Fin, AwaitEnd]);
        let kernel = served(Fake::new(ROOM, vec![plan; 20]));
        few(kernel.calls, 600, 20);
        property("requests that come together share a wait", "when is there anything to wait for?").holds(
            kernel.calls.wait <= 70,
            "70 waits for 30 rounds of 20 requests",
            kernel.calls.wait,
        );
        property("the server does not ask while there is nothing to do", "when may it sleep?")
            .same(0, kernel.idle);
        all_is_back(&kernel);
    });
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex1.rs"]
fn descriptors_are_closed() {
    kit::spec::run(|| {
        let next = "which ways lead out of a connection's life, and does each of them close?";
        let closed = property("in the end everything that was accepted is closed", next);
        let gone = || vec![Send(bytes(3 * BUFFER)), Vanish, AwaitEnd];
        let silent = || vec![Send(bytes(10)), Await, Vanish, AwaitEnd];
        let kernel = served(Fake::new(ROOM, vec![asks(2, 10), gone(), silent(), asks(9, 10), gone()]));
        closed.same(vec![], kernel.left_open());

        let mut unwatched = Fake::new(ROOM, vec![asks(2, 10), vec![AwaitEnd], asks(2, 10)]);
        unwatched.unwatchable = Some(1);
        let next = "what has happened already when watching fails?";
        let refused =
            property("a connection that cannot be watched is closed, and the others are served", next);
        refused.same(vec![], served(unwatched).left_open());

        for stop_at in [2, 5, 9] {
            let mut stopped = Fake::new(700, vec![asks(50, 5000); 3]);
            stopped.stop_at = Some(stop_at);
            let next = "who is still connected then?";
            let all = property("a server that is stopped closes all connections", next);
            all.same(vec![], served(stopped).left_open());
        }
    });
}

/// Serves on real sockets while the clients run; the calls made.
fn serve_really(clients: impl FnOnce(std::net::SocketAddr) -> bool + std::marker::Send + 'static) -> Calls {
    let mut kernel = Real::new();
    let (addr, stop) = (kernel.addr(), kernel.stop());
    let thread = std::thread::spawn(move || {
        let right = clients(addr);
        stop.write(1).expect("write(eventfd)");
        right
    });
    serve(&mut kernel);
    let right = thread.join().expect("clients do not panic");
    let next = "which of the tests before this one says more?";
    property("clients over TCP get back what they have sent", next).holds(right, "their bytes", "others");
    property("their connections are closed", next).same(0, kernel.left_open());
    kernel.calls
}

#[test]
#[ignore = "exercise: edit labs/echo/exercises/ex1.rs"]
fn real_sockets_too() {
    kit::spec::run(|| {
        property("a real epoll is served as the made-up one", "how do the two differ?").holds(true, "", "");
        let together = |addr, how: fn(std::net::SocketAddr) -> bool, clients: u32| {
            let threads: Vec<_> = (0..clients).map(|_| std::thread::spawn(move || how(addr))).collect();
            threads.into_iter().all(|t| t.join().unwrap_or(false))
        };
        let calls = serve_really(move |addr| together(addr, |addr| ping(addr, 50), 8));
        few(calls, 400, 8);
        serve_really(move |addr| together(addr, |addr| pour(addr, 4 << 20), 1));
    });
}
