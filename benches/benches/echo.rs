//! The lab's own parts, by Criterion: one echo, and a burst, through each server in this process.

use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use echo::load::{Arrivals, Client, Load, Payload, Until};
use echo::server;
use echo::spec::Spec;

fn echoes(c: &mut Criterion) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut group = c.benchmark_group("echo");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3)).sample_size(50);
    for name in ["blocking", "poll", "epoll", "epoll-et", "oneshot+defer", "io_uring"] {
        let Ok(spec) = name.parse::<Spec>() else { continue };
        // Where io_uring is forbidden, the others are measured.
        let Ok(server) = server::start(spec, any) else { continue };
        // One request and its answer; a burst of 800.
        for (connections, depth, bytes) in [(1, 1, 64), (50, 16, 64), (1, 1, 4096), (50, 16, 4096)] {
            let requests = (connections * depth) as u64;
            let load = Load {
                addr: server.addr,
                connections,
                payload: Payload::Fixed(bytes),
                depth,
                arrivals: Arrivals::Closed,
            };
            let mut client = Client::connect(load).expect("a server that has just started accepts");
            group.throughput(Throughput::Elements(requests));
            group.bench_function(
                BenchmarkId::new(name, format!("{connections} x {depth} x {bytes} B")),
                |b| {
                    b.iter(|| client.run(Until::Requests(requests)).expect("every echo comes back").requests);
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, echoes);
criterion_main!(benches);
