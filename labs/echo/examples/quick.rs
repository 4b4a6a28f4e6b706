//! scratch
use echo::{measure::*, control::*, load::*, spec::*};
use std::time::Duration;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a.get(1).is_some_and(|s| s == "child") {
        echo::control::serve(a[2].parse().unwrap(), "127.0.0.1:0".parse().unwrap(), std::io::stdin().lock(), std::io::stdout().lock()).unwrap();
        return;
    }
    let conns: usize = a[1].parse().unwrap();
    let payload: usize = a[2].parse().unwrap();
    let rounds: usize = a[3].parse().unwrap();
    let cpus = Cpus::take().unwrap();
    let host = Host::Program(std::env::current_exe().unwrap(), vec!["child".into()]);
    let mut pairs = vec![];
    for s in &a[4..] {
        let target = if s == "c" {
            cpus.on_server(|| Target::spawn(&mut std::process::Command::new("/tmp/echo_epoll"))).unwrap().unwrap()
        } else {
            host.start(s.parse::<Spec>().unwrap(), &cpus).unwrap()
        };
        pairs.push((s.clone(), Pair::connect(target, ping_pong(conns, payload)).unwrap(), vec![]));
    }
    for r in 0..=rounds {
        for (n, p, v) in &mut pairs {
            let peer = n == "c";
            let before = p.target.usage().unwrap();
            let s = if peer {
                let rep = p.client.run(Until::Elapsed(Duration::from_millis(150))).unwrap();
                let after = p.target.usage().unwrap();
                Sample{report:rep, counts:Default::default(), server_cpu: after.cpu-before.cpu, switches:0}
            } else { p.round(Until::Elapsed(Duration::from_millis(150))).unwrap() };
            if r > 0 { v.push(s); }
        }
    }
    let med = |mut v: Vec<f64>| { v.sort_by(f64::total_cmp); v[v.len()/2] };
    for (n, _, v) in &pairs {
        let ratio = med(v.iter().zip(&pairs[0].2).map(|(a,b)| a.cpu_us()/b.cpu_us()).collect());
        println!("{n:40} cpu {:.3} ratio {:.3} rate {:.0} p50 {:.1} p99 {:.1} sys {:.3} cpe {:.1} sw {:.3} srv {:.2} cli {:.2}",
          med(v.iter().map(|s| s.cpu_us()).collect()), ratio, med(v.iter().map(|s| s.report.rate()).collect()),
          med(v.iter().map(|s| s.report.us(50.)).collect()), med(v.iter().map(|s| s.report.us(99.)).collect()), med(v.iter().map(|s| s.syscalls()).collect()),
          med(v.iter().map(|s| s.completions_per_enter()).collect()), med(v.iter().map(|s| s.switches()).collect()),
          med(v.iter().map(|s| s.server_share()).collect()), med(v.iter().map(|s| s.report.cpu_share()).collect()));
    }
}
