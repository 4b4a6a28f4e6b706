//! Devices: what stands behind a port or an address is a piece of code, ours or KVM's.
//!
//! ```text
//! port 0x3f8..0x3ff ──> serial.rs        a 16550-like port, in this process
//! 0x1000_0000..+16  ──> multiplier.rs    a device of our own, in this process
//! port 0x40..0x43   ──> timer.rs         the PIT, inside KVM: we only see its ticks
//! ```

pub mod multiplier;
pub mod serial;
pub mod timer;

use std::time::{Duration, Instant};

use kvm_bindings::kvm_regs;

use crate::error::Error;
use crate::exits::{Bus, Why};
use crate::layout;
use crate::machine::{Machine, Plan};
use crate::s4_long::{long_mode, map_low_memory};
use crate::segments::write_idt;
use crate::sys::guest;
use multiplier::Multiplier;
use serial::Serial;

/// Something with registers.
pub trait Device {
    /// The guest reads the register at `offset`.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// The guest writes it.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// Where the guest counts ticks.
const TICKS: u64 = 0x420;
/// Where it leaves what the multiplier said it is.
const IDENTITY: u64 = 0x428;
/// The guest writes here at each tick, and when it is done (see `guest/devices.s`).
const TICK_PORT: u16 = 0x11;
const DONE_PORT: u16 = 0x10;
/// What the guest asks for; we type once it has asked.
pub const PROMPT: &str = "say something> ";
/// What we type then.
pub const TYPED: &str = "ping\n";

/// All devices of this process, by address.
#[derive(Debug, Default)]
struct Board {
    serial: Serial,
    multiplier: Multiplier,
    ticks: Vec<Instant>,
    /// How often each device was asked or told something.
    serial_accesses: u64,
    multiplier_accesses: u64,
}

impl Bus for Board {
    fn port_out(&mut self, port: u16, data: &[u8]) {
        match port {
            serial::FIRST_PORT..=serial::LAST_PORT => {
                self.serial_accesses += 1;
                self.serial.write(u64::from(port - serial::FIRST_PORT), data);
            }
            TICK_PORT => self.ticks.push(Instant::now()),
            _ => {}
        }
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        match port {
            serial::FIRST_PORT..=serial::LAST_PORT => {
                self.serial_accesses += 1;
                self.serial.read(u64::from(port - serial::FIRST_PORT), data);
            }
            _ => data.fill(0xff),
        }
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        if let Some(offset) = multiplier::offset(address) {
            self.multiplier_accesses += 1;
            self.multiplier.write(offset, data);
        }
    }

    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        match multiplier::offset(address) {
            Some(offset) => {
                self.multiplier_accesses += 1;
                self.multiplier.read(offset, data);
            }
            None => data.fill(0xff),
        }
    }
}

/// What the devices saw.
#[derive(Debug)]
pub struct Report {
    /// Time between ticks.
    pub intervals: Vec<Duration>,
    /// Ticks that the guest counted.
    pub ticks: u32,
    /// Everything that came over the serial line.
    pub said: String,
    /// How often the serial port raised its line.
    pub serial_interrupts: u64,
    /// Exits to the serial port.
    pub serial_exits: u64,
    /// Exits to the multiplier.
    pub multiplier_exits: u64,
    /// What the guest read as the multiplier's identity.
    pub identity: u32,
    /// The product, in the guest's memory.
    pub product: u64,
    /// Exits in all.
    pub exits: u64,
}

const DOING: &str = "the device driver";

/// Where the devices meet their driver.
pub const HERE: kit::Place = kit::here!();

/// Runs the driver in `guest/devices.s` against the three devices.
///
/// # Errors
/// A call that failed, or an exit that no device explains.
pub fn run(timeout: Duration) -> Result<Report, Error> {
    let mut machine = Machine::build(&Plan { cpuid: true, irqchip: true, ..Plan::default() })?;
    machine.memory().write(layout::CODE as usize, guest::devices().bytes);
    map_low_memory(&machine, 0);
    let mut sregs = long_mode(&mut machine, 0)?;
    sregs.idt = write_idt(machine.memory(), &[(0x20, layout::CODE + 0x100), (0x24, layout::CODE + 0x180)]);
    machine.set_sregs(&sregs)?;
    machine.set_regs(&kvm_regs { rip: layout::CODE, rsp: layout::STACK, rflags: 2, ..Default::default() })?;

    machine.vcpu.set_deadline(Some(timeout))?;
    let mut board = Board::default();
    let (mut line, mut raised, mut exits, mut typed) = (false, 0, 0, false);
    loop {
        let exit = machine.run(&mut board)?;
        exits += 1;
        match exit.why {
            Why::PortOut { port: DONE_PORT, .. } => break,
            Why::PortOut { .. } | Why::PortIn { .. } | Why::MmioWrite { .. } | Why::MmioRead { .. } => {}
            Why::Interrupted => return Err(Error::TimeUp { doing: DOING, after: timeout }),
            _ => {
                let rip = machine.regs()?.rip;
                return Err(Error::Unexpected { doing: DOING, exit: Box::new(exit), rip });
            }
        }
        if !typed && board.serial.sent().ends_with(PROMPT.as_bytes()) {
            board.serial.type_in(TYPED.as_bytes());
            typed = true;
        }
        // The wire from the serial port to the interrupt controller: told only when it changes.
        if board.serial.wants_interrupt() != line {
            line = !line;
            raised += u64::from(line);
            machine.vm.set_line(serial::LINE, line)?;
        }
    }
    Ok(Report {
        intervals: timer::intervals(&board.ticks),
        ticks: machine.memory().read_u32(TICKS as usize),
        said: String::from_utf8_lossy(board.serial.sent()).into_owned(),
        serial_interrupts: raised,
        serial_exits: board.serial_accesses,
        multiplier_exits: board.multiplier_accesses,
        identity: machine.memory().read_u32(IDENTITY as usize),
        product: machine.read_u64(layout::RESULT),
        exits,
    })
}
