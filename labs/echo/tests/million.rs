//! A million echoes through every server.
use echo::load::{Arrivals, Client, Load, Payload, Until};
use echo::server;
use echo::spec::Spec;

#[test]
fn million() {
    let n: u64 = std::env::var("N").ok().and_then(|s| s.parse().ok()).unwrap_or(1_000_000);
    for spec in Spec::all() {
        let t = std::time::Instant::now();
        let server = server::start(spec, "127.0.0.1:0".parse().unwrap()).unwrap();
        let load = Load { addr: server.addr, connections: 500, payload: Payload::Random(200), depth: 16, arrivals: Arrivals::Closed };
        let mut client = Client::connect(load).unwrap();
        let report = client.run(Until::Requests(n)).unwrap();
        assert_eq!(report.requests, n);
        drop(client);
        let counts = server.stop().unwrap();
        assert_eq!(counts.bytes, report.bytes);
        eprintln!("{spec} {:?} {:?}", t.elapsed(), counts);
    }
}
