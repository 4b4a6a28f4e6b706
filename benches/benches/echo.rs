//! The lab's own parts, by Criterion: one echo, and a burst, through each server in this process.

use std::net::SocketAddr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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
        for (what, connections, depth, requests) in
            [("ping-pong", 1, 1, 1), ("burst of 50 x 16", 50, 16, 800)]
        {
            let load = Load {
                addr: server.addr,
                connections,
                payload: Payload::Fixed(64),
                depth,
                arrivals: Arrivals::Closed,
            };
            let Ok(mut client) = Client::connect(load) else { continue };
            group.throughput(Throughput::Elements(requests));
            group.bench_function(format!("{name}, {what}"), |b| {
                b.iter(|| client.run(Until::Requests(requests)).map(|r| r.requests).unwrap_or(0));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, echoes);
criterion_main!(benches);
