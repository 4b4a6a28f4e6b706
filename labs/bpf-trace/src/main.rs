//! x
#![allow(missing_docs, clippy::print_stdout, reason = "x")]
use bpf_trace::*;
fn cpu(c: &str) -> f64 {
    use nix::sys::resource::*;
    let before = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    std::process::Command::new("sh").args(["-c", c]).stderr(std::process::Stdio::null()).status().unwrap();
    let after = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let f = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    f(after.user_time()) + f(after.system_time()) - f(before.user_time()) - f(before.system_time())
}
fn main() {
    let dd = "exec dd if=/dev/zero of=/dev/null bs=1 count=1000000";
    let mut all: Vec<Vec<f64>> = vec![vec![]; 6];
    for _ in 0..15 {
        let base = cpu(dd);
        let mut r = vec![base];
        { let c = s1_by_hand::Counter::start().unwrap(); r.push(cpu(dd)); assert!(c.count().unwrap() > 2_000_000); }
        for (timing, m) in [(false, Means::TpBtf), (false, Means::RawTp), (false, Means::Tracepoint), (true, Means::TpBtf)] {
            let t = syscalls::start(Filter::default(), timing, Some(m)).unwrap();
            r.push(cpu(dd));
            let n: u64 = syscalls::read(&t).unwrap().values().map(|v| v[0]).sum();
            assert!(n > 2_000_000 && t.lost().unwrap().events() == 0, "{n} {:?}", t.lost());
        }
        for (i, x) in r.iter().enumerate() { all[i].push(x / base); }
        println!("{r:.3?}");
    }
    for (n, a) in ["base", "hand", "btf", "raw", "tp", "btf timing"].iter().zip(&mut all) { a.sort_by(f64::total_cmp); println!("{n:12} {:.3}", a[a.len()/2]); }
}
