#![allow(clippy::print_stdout, reason = "x")]
//! x
use kvm_hello::{hello::{self, Watch}, mode::Mode};
use std::time::Duration;
fn main() {
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
