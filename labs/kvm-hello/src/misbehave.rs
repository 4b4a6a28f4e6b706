//! Guests that go wrong, and what a host sees of it. None of them hangs the host.

use std::time::{Duration, Instant};

use kvm_bindings::kvm_regs;

use crate::error::Error;
use crate::exits::{Exit, NoBus, Why};
use crate::layout;
use crate::listing::{Line, disassemble};
use crate::machine::{Machine, Plan};
use crate::s4_long::{long_mode, map_low_memory};
use crate::sys::guest;

/// A way to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// It never leaves: only a signal gets it out.
    Loop,
    /// An exception, no handler; the double fault that follows, no handler.
    #[doc(alias = "triple fault")]
    TripleFault,
    /// It reads where no memory is.
    NoMemory,
    /// It reads a port where no device is.
    NoDevice,
    /// It jumps to where no memory is: there is no instruction to emulate.
    NoCode,
    /// It runs `popcnt` in ring 0. A processor does; KVM's emulator cannot.
    NotEmulated,
}

impl Wrong {
    /// All of them.
    pub const ALL: [Wrong; 6] = [
        Wrong::Loop,
        Wrong::TripleFault,
        Wrong::NoMemory,
        Wrong::NoDevice,
        Wrong::NoCode,
        Wrong::NotEmulated,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Wrong::Loop => "loop",
            Wrong::TripleFault => "triple-fault",
            Wrong::NoMemory => "no-memory",
            Wrong::NoDevice => "no-device",
            Wrong::NoCode => "no-code",
            Wrong::NotEmulated => "not-emulated",
        }
    }

    /// What the guest does.
    pub fn title(self) -> &'static str {
        match self {
            Wrong::Loop => "An endless loop",
            Wrong::TripleFault => "An exception that nobody handles",
            Wrong::NoMemory => "A load from where no memory is",
            Wrong::NoDevice => "A port that nobody listens to",
            Wrong::NoCode => "A jump to where no memory is",
            Wrong::NotEmulated => "popcnt in ring 0, which KVM may have to emulate",
        }
    }

    /// What the exit means, and what a monitor does about it.
    pub fn meaning(self, why: &Why) -> &'static str {
        match (self, why) {
            (Wrong::Loop, Why::Interrupted) => {
                "The guest owns its CPU, but the CPU is our thread: a signal takes it back, and \
                 immediate_exit keeps it from slipping past."
            }
            (_, Why::Shutdown) => {
                "Fault, double fault, triple fault: the processor gives up and shuts down. \
                 A PC resets; for a monitor this is the end of the guest."
            }
            (Wrong::NoMemory, Why::MmioRead { .. }) => {
                "To KVM, an address without memory is a device of ours. An empty bus answers all ones."
            }
            (Wrong::NoDevice, Why::PortIn { .. }) => {
                "Every unknown port comes to us. PCs probe for hardware that way: all ones means none."
            }
            (Wrong::NoCode, Why::InternalError { suberror: 1, .. }) => {
                "KVM had to emulate an instruction and could not even fetch it. The guest cannot go on."
            }
            (_, Why::InternalError { suberror: 1, .. }) => {
                "This KVM emulates ring 0, and its emulator knows only part of x86. The bytes at RIP \
                 say which instruction it was; the guest cannot go on."
            }
            (Wrong::NotEmulated, Why::Halt) => {
                "Nothing went wrong: the processor ran it itself, as most machines do."
            }
            _ => "Another exit than on most machines; the reason above is KVM's own.",
        }
    }

    /// Whether the exit is one that this misbehaviour leads to on a sound KVM.
    pub fn explains(self, why: &Why) -> bool {
        matches!(
            (self, why),
            (Wrong::Loop, Why::Interrupted)
                | (Wrong::TripleFault, Why::Shutdown)
                | (Wrong::NoMemory, Why::MmioRead { .. })
                | (Wrong::NoDevice, Why::PortIn { .. })
                | (Wrong::NoCode, Why::InternalError { .. } | Why::Shutdown)
                | (Wrong::NotEmulated, Why::InternalError { .. } | Why::Halt)
        )
    }

    fn entry(self) -> u64 {
        layout::CODE + 0x10 * self as u64
    }
}

/// What was found after a guest went wrong.
#[derive(Debug)]
pub struct Autopsy {
    /// Which way.
    pub wrong: Wrong,
    /// How it ended.
    pub exit: Exit,
    /// From the first `KVM_RUN` on.
    pub after: Duration,
    /// RIP at the end.
    pub rip: u64,
    /// Bytes at RIP; none where there is no memory.
    pub bytes: Vec<u8>,
    /// The instruction that did it.
    pub line: Option<Line>,
    /// RAX at the end: what a load or `in` got.
    pub rax: u64,
}

/// Where a guest goes wrong.
pub const HERE: kit::Place = kit::here!();

/// Lets a guest go wrong, for `timeout` at most.
///
/// # Errors
/// A call that failed; never what the guest did.
pub fn run(wrong: Wrong, timeout: Duration) -> Result<Autopsy, Error> {
    let mut machine = Machine::build(&Plan { cpuid: true, ..Plan::default() })?;
    let program = guest::misbehave();
    machine.memory().write(layout::CODE as usize, program.bytes);
    map_low_memory(&machine, 0);
    let mut sregs = long_mode(&mut machine, 0)?;
    // No IDT: a limit of 0 holds no gate.
    sregs.idt.limit = 0;
    machine.set_sregs(&sregs)?;
    machine.set_regs(&kvm_regs {
        rip: wrong.entry(),
        rsp: layout::STACK,
        rbx: layout::MMIO,
        rdx: 0x1234,
        rflags: 2,
        ..Default::default()
    })?;

    machine.vcpu.set_deadline(Some(timeout))?;
    let start = Instant::now();
    let exit = machine.run(&mut NoBus)?;
    let after = start.elapsed();
    // A load or `in` gets its value only when KVM is entered again.
    let rip = machine.regs()?.rip;
    machine.vcpu.settle()?;
    let memory = machine.memory();
    let mut bytes = vec![0; memory.len().saturating_sub(rip as usize).min(8)];
    if !bytes.is_empty() {
        memory.read(rip as usize, &mut bytes);
    }
    let mut code = [0; 8];
    memory.read(wrong.entry() as usize, &mut code);
    let line = disassemble(&code, 64, wrong.entry()).into_iter().next();
    Ok(Autopsy { wrong, exit, after, rip, bytes, line, rax: machine.regs()?.rax })
}
