//! `--misbehave`: guests that go wrong, and what is left to read afterwards.

use std::time::Duration;

use kit::{Hexdump, Predict, Session, Table};
use kvm_hello::exits::{Why, not_emulated, suberror_name};
use kvm_hello::listing::hex;
use kvm_hello::misbehave::{self, Autopsy, Wrong};

use crate::show_hello::ms;

pub fn tell(s: &mut Session, which: &str, timeout: Duration) -> anyhow::Result<()> {
    for wrong in Wrong::ALL.into_iter().filter(|w| which == "all" || w.name() == which) {
        s.step_at(wrong.title(), misbehave::HERE);
        if let Some(predict) = question(wrong) {
            s.predict(predict);
        }
        let autopsy = misbehave::run(wrong, timeout)?;
        show(s, &autopsy);
        let name = format!("{}_explained", wrong.name().replace('-', "_"));
        let detail = format!("{} after {:.1} ms", autopsy.exit.why.name(), ms(autopsy.after));
        s.check(&name, wrong.explains(&autopsy.exit.why), detail);
    }
    s.so("whatever a guest does, the host gets an exit and a reason.", "--exits, --mode user");
    Ok(())
}

fn question(wrong: Wrong) -> Option<Predict> {
    Some(match wrong {
        Wrong::Loop => Predict::new(
            "a guest in an endless loop, one vCPU, no timer of its own: who can stop it?",
            ["nobody: the machine hangs", "a signal to our thread", "only kill -9"],
            1,
            "A vCPU is a thread of ours in an ioctl. A signal ends the ioctl.",
        ),
        Wrong::TripleFault => Predict::new(
            "the guest faults with no handler, and has none for the fault of that either. What do we get?",
            ["SIGSEGV", "an exit, KVM_EXIT_SHUTDOWN", "a kernel oops", "the guest hangs"],
            1,
            "A processor that cannot deliver a double fault shuts down; KVM reports that.",
        ),
        Wrong::NoMemory => Predict::new(
            "the guest loads from 256 MiB, and has 2. What happens?",
            ["a page fault in the guest", "a SIGSEGV for us", "an exit, as if it were a device"],
            2,
            "Its page tables map the address, so the guest sees no fault. KVM finds no memory, and asks us.",
        ),
        _ => return None,
    })
}

fn show(s: &mut Session, a: &Autopsy) {
    let line = a.line.as_ref().map_or_else(String::new, |l| format!("{:#x}: {}", l.at, l.text));
    let mut table = Table::new(["", ""]).row(["instruction", &line]).mark(["exit", a.exit.why.name()]);
    match &a.exit.why {
        Why::InternalError { suberror, data } => {
            table.push(["suberror", &format!("{suberror} {}", suberror_name(*suberror))]);
            match not_emulated(data) {
                Some(bytes) => table
                    .push(["KVM adds", &format!("not emulated: {} …", hex(&bytes[..bytes.len().min(8)]))]),
                None => table.push(["KVM adds", "no instruction bytes: it could not fetch any"]),
            }
        }
        Why::Interrupted => table.push(["because", "a timer's signal, and immediate_exit"]),
        why => table.push(["which is", &why.to_string()]),
    }
    table.push(["rip", &format!("{:#x}", a.rip)]);
    if matches!(a.exit.why, Why::MmioRead { .. } | Why::PortIn { .. }) {
        table.push(["it then reads", &format!("{:#x}", a.rax)]);
    }
    table.push(["after", &format!("{:.2} ms", ms(a.after))]);
    s.table(table);
    if a.bytes.is_empty() {
        s.say(format!("There are no bytes at RIP: {:#x} is no memory.", a.rip));
    } else if let Some(l) = a.line.as_ref().filter(|l| l.at == a.rip) {
        s.hexdump(Hexdump::new("bytes at rip", a.rip, &a.bytes).note(0, l.bytes.len(), l.text.clone()));
    }
    s.say(a.wrong.meaning(&a.exit.why));
}
