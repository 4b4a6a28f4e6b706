//! The lab's own parts, by Criterion: one echo, and a burst, through each server in this process.

use std::net::SocketAddr;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use echo::load::{Arrivals, Client, Load, Payload, Until};
use echo::server;
use echo::spec::Spec;

fn echoes(c: &mut Criterion) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut group = c.benchmark_group("echo");
    for name in ["blocking", "poll", "epoll", "epoll-et", "oneshot+defer", "io_uring"] {
        let Ok(spec) = name.parse::<Spec>() else { continue };
        // Where io_uring is forbidden, the others are measured.
        let Ok(server) = server::start(spec, any) else { continue };
        // One request and its answer; a burst of 800.
        for (connections, depth) in [(1, 1), (50, 16)] {
            let requests = (connections * depth) as u64;
            let load = Load {
                addr: server.addr,
                connections,
                payload: Payload::Fixed(64),
                depth,
                arrivals: Arrivals::Closed,
            };
            let Ok(mut client) = Client::connect(load) else { continue };
            group.throughput(Throughput::Elements(requests));
            group.bench_function(BenchmarkId::new(name, format!("{connections} x {depth}")), |b| {
                b.iter(|| client.run(Until::Requests(requests)).map(|r| r.requests).unwrap_or(0));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, echoes);
criterion_main!(benches);
