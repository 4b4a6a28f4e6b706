//! A million echoes through every server, over 500 connections, with random sizes and cuts, byte for byte.

mod common;

use echo::load::{Client, Payload, Until};

#[test]
fn a_million_echoes_through_every_server() {
    for spec in common::specs() {
        let _dog = kit::testing::watchdog(180);
        let server = common::start(spec);
        let load = common::load(server.addr, 500, Payload::Random(200), 16);
        let mut client = Client::connect(load).unwrap();
        // The client compares every byte with what it sent, and fails at the first that differs.
        let report = client.run(Until::Requests(1_000_000)).unwrap_or_else(|e| panic!("{spec}: {e}"));
        drop(client);
        let counts = server.stop().unwrap();
        assert_eq!(report.requests, 1_000_000, "{spec}");
        assert_eq!(counts.bytes, report.bytes, "{spec}");
        assert_eq!((counts.accepted, counts.closed, counts.cut), (500, 500, 0), "{spec}");
    }
}
