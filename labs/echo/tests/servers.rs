//! Every server behaves as a real one must: not one byte lost, doubled or reordered, whatever clients do.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use common::{bytes, connect, start, until};
use echo::load::{Client, Payload, Until};
use echo::server;
use echo::spec::{Kind, Spec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Sends in these pieces, ends its side, and returns what came back.
fn talk(addr: SocketAddr, data: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut reader = connect(addr);
    let mut writer = reader.try_clone().unwrap();
    std::thread::scope(|s| {
        s.spawn(move || {
            let (mut rest, mut cuts) = (data, cuts.iter().cycle());
            while !rest.is_empty() {
                let n = (*cuts.next().unwrap_or(&1)).clamp(1, rest.len());
                writer.write_all(&rest[..n]).unwrap();
                rest = &rest[n..];
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut echo = Vec::new();
        reader.read_to_end(&mut echo).unwrap();
        echo
    })
}

#[test]
fn any_chunking_comes_back_byte_for_byte() {
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = start(spec);
        let chunks = prop::collection::vec(prop_oneof![Just(1usize), 1..100usize, 1..70_000usize], 1..8);
        let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
        runner
            .run(&(1..300_000usize, chunks, any::<u64>()), |(size, chunks, seed)| {
                let smallest = *chunks.iter().max().unwrap_or(&1);
                // Bytes one by one are slow: fewer of them.
                let data = bytes(size.min(smallest * 2000), seed);
                prop_assert!(talk(server.addr, &data, &chunks) == data, "{} differs", spec);
                Ok(())
            })
            .unwrap();
        let counts = server.stop().unwrap();
        assert_eq!((counts.accepted, counts.cut), (counts.closed, 0), "{spec}");
    }
}

#[test]
fn one_byte_at_a_time() {
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = start(spec);
        let data = bytes(3000, 3);
        assert_eq!(talk(server.addr, &data, &[1]), data, "{spec}");
        let mut client = Client::connect(common::load(server.addr, 3, Payload::Fixed(1), 1)).unwrap();
        assert_eq!(client.run(Until::Requests(500)).unwrap().requests, 500, "{spec}");
    }
}

#[test]
fn a_message_of_64_mib() {
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = start(spec);
        let mut client = Client::connect(common::load(server.addr, 1, Payload::Fixed(64 << 20), 1)).unwrap();
        assert_eq!(client.run(Until::Requests(1)).unwrap().bytes, 64 << 20, "{spec}");
    }
}

/// Writes without reading until the connection is full: 40 ms without room.
fn stuff(stream: &mut TcpStream, data: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(40))).unwrap();
    let mut written = 0;
    while written < data.len() {
        match stream.write(&data[written..]) {
            Ok(n) => written += n,
            // With a time limit the kernel does not start an interrupted write again by itself.
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(e) => panic!("{e}"),
        }
    }
    written
}

#[test]
fn a_client_that_does_not_read_costs_bounded_memory_and_delays_nobody() {
    let data = bytes(64 << 20, 5);
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = start(spec);
        let mut slow = connect(server.addr);
        let written = stuff(&mut slow, &data);
        assert!(written < data.len(), "{spec}: took 64 MiB without being read from");
        // Meanwhile others are served.
        let mut client = Client::connect(common::load(server.addr, 20, Payload::Random(5000), 4)).unwrap();
        assert_eq!(client.run(Until::Requests(2000)).unwrap().requests, 2000, "{spec}");
        // And when it reads at last, nothing is missing.
        slow.shutdown(Shutdown::Write).unwrap();
        let mut echo = Vec::new();
        slow.read_to_end(&mut echo).unwrap();
        assert!(echo == data[..written], "{spec}: differs after backpressure");
        let counts = server.stop().unwrap();
        // What `server::start` says.
        let bound = if spec.kind == Kind::Multishot { 8 << 20 } else { 64 << 10 };
        assert!(counts.held_max <= bound, "{spec}: held {} bytes", counts.held_max);
    }
}

#[test]
fn many_clients_that_do_not_read_do_not_use_up_the_buffers() {
    let data = bytes(8 << 20, 6);
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = start(spec);
        let mut slow: Vec<(TcpStream, usize)> = (0..5)
            .map(|_| connect(server.addr))
            .map(|mut s| (stuff(&mut s, &data), s))
            .map(|(n, s)| (s, n))
            .collect();
        let mut client = Client::connect(common::load(server.addr, 10, Payload::Fixed(3000), 2)).unwrap();
        assert_eq!(client.run(Until::Requests(500)).unwrap().requests, 500, "{spec}");
        for (stream, written) in &mut slow {
            stream.shutdown(Shutdown::Write).unwrap();
            let mut echo = Vec::new();
            stream.read_to_end(&mut echo).unwrap();
            assert!(echo == data[..*written], "{spec}");
        }
    }
}

/// Makes close(2) send a reset instead of an orderly end.
fn reset(stream: TcpStream) {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &now).unwrap();
}

#[test]
fn a_reset_in_the_middle_hurts_nobody_else() {
    let data = bytes(16 << 20, 7);
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = start(spec);
        let mut client = Client::connect(common::load(server.addr, 5, Payload::Random(500), 2)).unwrap();
        for round in 0..12u64 {
            let mut stream = connect(server.addr);
            match round % 3 {
                // With its echo stuck in the server; with some on the way; before anything.
                0 if round == 0 => drop(stuff(&mut stream, &data)),
                0 | 1 => stream.write_all(&data[..50_000]).unwrap(),
                _ => {}
            }
            reset(stream);
            assert_eq!(client.run(Until::Requests(50)).unwrap().requests, 50, "{spec}");
        }
        until(|| server.counts().closed == 12 || server.counts().accepted < 17);
        drop(client);
        let counts = server.stop().unwrap();
        assert_eq!((counts.accepted, counts.cut), (counts.closed, 0), "{spec}");
    }
}

#[test]
fn a_stop_echoes_all_that_has_arrived() {
    let data = bytes(60_000, 8);
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = server::start_with_grace(spec, common::any(), Duration::from_secs(50)).unwrap();
        let mut clients: Vec<TcpStream> = (0..20).map(|_| connect(server.addr)).collect();
        for client in &mut clients {
            client.write_all(&data).unwrap();
        }
        // Arrived means acknowledged by the other side's TCP: nothing is left in our send queue.
        until(|| unacknowledged(&clients) == 0);
        let stop = std::thread::spawn(move || server.stop().unwrap());
        for client in &mut clients {
            let mut echo = Vec::new();
            let ended = client.read_to_end(&mut echo);
            assert!(ended.is_ok(), "{spec}: {ended:?} at a stop");
            assert!(echo == data, "{spec}: {} of {} bytes at a stop", echo.len(), data.len());
        }
        let counts = stop.join().unwrap();
        assert_eq!((counts.accepted, counts.closed, counts.cut), (20, 20, 0), "{spec}");
    }
}

/// Bytes of these clients that the other side has not yet acknowledged: tx_queue in proc_net_tcp(5).
fn unacknowledged(clients: &[TcpStream]) -> u64 {
    let ports: Vec<String> =
        clients.iter().map(|c| format!(":{:04X}", c.local_addr().unwrap().port())).collect();
    // Read once for all: the table holds every socket of the machine.
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let queue = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?;
        let queues = ports.iter().any(|p| local.ends_with(p)).then(|| fields.nth(2))??;
        u64::from_str_radix(queues.split(':').next()?, 16).ok()
    };
    table.lines().filter_map(queue).sum()
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_client_that_does_not_read() {
    let data = bytes(64 << 20, 9);
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = server::start_with_grace(spec, common::any(), Duration::from_millis(50)).unwrap();
        let mut slow = connect(server.addr);
        let written = stuff(&mut slow, &data);
        assert!(written < data.len());
        let counts = server.stop().unwrap();
        let mut echo = Vec::new();
        // Cut off, or, by a server that came late to it, closed after what had arrived: either may be by a
        // reset. What came is right, and the stop is not held up: the watchdog sees to that.
        let _ = slow.read_to_end(&mut echo);
        assert!(data.starts_with(&echo), "{spec}");
        assert!((counts.accepted, counts.closed) == (1, 1) && counts.cut <= 1, "{spec}: {counts:?}");
    }
}

#[test]
fn several_buffers_leave_by_a_bundle() {
    let _dog = kit::testing::watchdog(180);
    if let Err(e) = server::uring_usable() {
        kit::skip!("io_uring", "{e}");
    }
    for text in ["multishot+sendbundle", "multishot+fixed+bundle+sendbundle+sqpoll+bufs=256"] {
        let spec: Spec = text.parse().unwrap();
        let server = start(spec);
        if server.notes.iter().any(|n| n.contains("bundles")) {
            kit::skip!("io_uring.bundle", "{:?}", server.notes);
        }
        let mut client = Client::connect(common::load(server.addr, 4, Payload::Fixed(1 << 20), 2)).unwrap();
        // How much arrives at once is TCP's affair; more than a buffer's 32 KiB, sooner or later.
        until(|| {
            assert_eq!(client.run(Until::Requests(50)).unwrap().requests, 50, "{text}");
            server.counts().bundled > 0
        });
    }
}

#[test]
fn receives_that_find_no_buffer_are_armed_again() {
    let _dog = kit::testing::watchdog(180);
    if let Err(e) = server::uring_usable() {
        kit::skip!("io_uring", "{e}");
    }
    for text in [
        "multishot+bufs=1",
        "multishot+defer+quiet+bufs=2",
        "multishot+sqpoll+bufs=2",
        "multishot+bundle+bufs=4",
        "multishot+bundle+sendbundle+bufs=4",
    ] {
        let spec: Spec = text.parse().unwrap();
        let server = start(spec);
        let mut client = Client::connect(common::load(server.addr, 100, Payload::Random(9000), 4)).unwrap();
        until(|| {
            assert_eq!(client.run(Until::Requests(2000)).unwrap().requests, 2000, "{text}");
            server.counts().starved > 0
        });
    }
}

#[test]
fn nothing_is_lost_when_the_completion_queue_overflows() {
    let _dog = kit::testing::watchdog(180);
    if let Err(e) = server::uring_usable() {
        kit::skip!("io_uring", "{e}");
    }
    for text in [
        "oneshot+cq=2",
        "multishot+cq=2",
        "multishot+defer+quiet+cq=2",
        "multishot+coop+cq=4+bundle",
        "multishot+sqpoll+cq=2",
    ] {
        let spec: Spec = text.parse().unwrap();
        let server = start(spec);
        let mut client = Client::connect(common::load(server.addr, 300, Payload::Random(400), 4)).unwrap();
        until(|| {
            assert_eq!(client.run(Until::Requests(3000)).unwrap().requests, 3000, "{text}");
            server.counts().overflowed > 0
        });
    }
}
