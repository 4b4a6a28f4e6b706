#![allow(clippy::print_stdout, reason = "x")]
//! x
use kvm_hello::{hello::{self, Watch}, mode::Mode};
use std::time::Duration;
fn main() {
    if std::env::args().nth(1).as_deref() == Some("dirty") {
        use kvm_hello::{dirty::*, snapshot::*};
        use std::time::Instant;
        for m in [Method::Nothing, Method::Log, Method::Ring] {
            let t = track(m).unwrap();
            println!("{:?} {} {} eq {} pred {} work {:?} collect {:?}", m, t.pages.len(), t.differ.len(), t.pages==t.differ, t.differ==predicted(), t.work, t.collect);
        }
        let t = Instant::now();
        let mut m = booted(Method::Nothing).unwrap();
        println!("boot {:?}", t.elapsed());
        let t = Instant::now();
        let s = Snapshot::take(&mut m).unwrap();
        println!("take {:?}", t.elapsed());
        for i in 0..3 {
        let t = Instant::now();
        let a = s.restore_copy().unwrap();
        println!("copy {:?}", t.elapsed());
        let t = Instant::now();
        let mut b = s.restore_cow().unwrap();
        println!("cow {:?} {:?}", t.elapsed(), b.calls.iter().map(|c| (c.name, c.took)).collect::<Vec<_>>());
        println!("{}", s.pages_changed(&b).unwrap());
        let t = Instant::now();
        s.reset(&mut b).unwrap();
        println!("reset {:?}", t.elapsed());
        }
        println!("{:?}", clones(&s, 8));
        return;
    }
    if std::env::args().nth(1).as_deref() == Some("dev") {
            println!("{:x?}", kvm_hello::devices::run(Duration::from_millis(2000)));
        return;
    }
    if std::env::args().nth(1).as_deref() == Some("bad") {
        for w in kvm_hello::misbehave::Wrong::ALL {
            println!("{:x?}", kvm_hello::misbehave::run(w, Duration::from_millis(200)));
        }
        return;
    }
    if std::env::args().nth(1).as_deref() == Some("exits") {
        for w in kvm_hello::cost::Way::ALL {
            match kvm_hello::cost::measure(w, 1000) {
                Ok(mut c) => { c.samples.sort(); println!("{} {} p99 {} emul {:?} {} {}", w.title(), c.samples[500], c.samples[990], c.emulated, c.events, c.arrived); }
                Err(e) => println!("{} {e}", w.title()),
            }
        }
        return;
    }
    for mode in Mode::ALL {
        for w in [Watch::Nothing, Watch::Exits, Watch::Steps] {
        match hello::run(mode, w, Duration::from_secs(2)) {
            Ok(h) => {
                println!("{mode:?} {w:?} {:?} {} {:?} mem {} rax {} first {:?} in {:?} whole {:?}", String::from_utf8_lossy(&h.said), h.exit_count, h.last, h.in_memory, h.regs.rax, h.first_exit, h.in_guest, h.whole);
                if w == Watch::Exits { println!("{:x?} rip {:x}", h.walk, h.regs.rip); for t in h.exits.iter().take(5) { println!("  {} {:x} {:?} {:x?}", t.exit, t.rip, t.line.as_ref().map(|l| &l.text), t.changed); } 
                 for c in &h.calls { println!("  {} {:?}", c.name, c.took); } }
                if w == Watch::Nothing { for l in hello::program_lines(mode) { println!("   {:x} {} {}", l.at, l.hex(), l.text); } }
            }
            Err(e) => println!("{mode:?} {e}"),
        }
        }
    }
}
