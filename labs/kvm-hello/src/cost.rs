//! What it costs to leave the guest, by the way out.
//!
//! ```text
//! guest: out dx, al ──> KVM ──> returns from KVM_RUN ──> us ──> KVM_RUN ──> guest     a full exit
//! guest: out dx, al ──> KVM: "an eventfd is waiting for that" ──> guest               ioeventfd
//! guest: mov [x], a ──> KVM: notes it in a ring for later ──> guest                   coalesced MMIO
//! us: write(eventfd) ──> KVM: interrupt ──> guest's handler ──> out ──> us            irqfd
//! ```

use std::time::{Duration, Instant};

use kit::SysError;
use kvm_bindings::kvm_regs;
use kvm_ioctls::{IoEventAddress, NoDatamatch};
use vmm_sys_util::eventfd::EventFd;

use crate::error::{Error, kvm};
use crate::exits::{NoBus, Why};
use crate::layout;
use crate::machine::{Machine, Plan};
use crate::s4_long::{enter_ring3, long_mode, map_low_memory};
use crate::segments::write_idt;
use crate::stats::Stats;
use crate::sys::guest;

/// A way to leave the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// `out` in ring 0.
    Port,
    /// `out` in ring 3.
    PortUser,
    /// A store to an address without memory, in ring 0.
    Mmio,
    /// The same in ring 3.
    MmioUser,
    /// `hlt`.
    Halt,
    /// `out` to a port that an eventfd listens to.
    Ioeventfd,
    /// A store that KVM notes for later.
    Coalesced,
    /// From writing an eventfd to the guest's interrupt handler answering.
    Irqfd,
}

/// How many events a batch has, for ways that do not come back to us one by one.
///
/// Below 170, the number of entries in the page of the coalesced-MMIO ring.
pub const BATCH: u32 = 128;

/// The port that KVM is told to absorb, and one that nobody listens to.
const PORT: u64 = 0x20_00;
/// The port that ends a batch (see `guest/cost.s`).
const END: u16 = 0x10;
/// The interrupt line of the second serial port; vector 0x24 after the guest set up its controller.
const LINE: u32 = 4;

impl Way {
    /// All, in the order in which they are told.
    pub const ALL: [Way; 8] = [
        Way::Port,
        Way::PortUser,
        Way::Mmio,
        Way::MmioUser,
        Way::Halt,
        Way::Ioeventfd,
        Way::Coalesced,
        Way::Irqfd,
    ];

    /// The name of its metric.
    pub fn metric(self) -> &'static str {
        match self {
            Way::Port => "pio_exit_ns",
            Way::PortUser => "pio_user_exit_ns",
            Way::Mmio => "mmio_exit_ns",
            Way::MmioUser => "mmio_user_exit_ns",
            Way::Halt => "hlt_exit_ns",
            Way::Ioeventfd => "ioeventfd_ns",
            Way::Coalesced => "coalesced_mmio_ns",
            Way::Irqfd => "irqfd_round_trip_ns",
        }
    }

    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Way::Port => "port write, ring 0",
            Way::PortUser => "port write, ring 3",
            Way::Mmio => "MMIO store, ring 0",
            Way::MmioUser => "MMIO store, ring 3",
            Way::Halt => "hlt",
            Way::Ioeventfd => "ioeventfd",
            Way::Coalesced => "coalesced MMIO",
            Way::Irqfd => "irqfd round trip",
        }
    }

    /// How many events one sample is the mean of.
    pub fn batch(self) -> u32 {
        if matches!(self, Way::Ioeventfd | Way::Coalesced) { BATCH } else { 1 }
    }

    /// Offset of its loop in `guest/cost.s`.
    fn entry(self) -> u64 {
        match self {
            Way::Port | Way::PortUser => 0x000,
            Way::Mmio | Way::MmioUser => 0x040,
            Way::Halt => 0x080,
            Way::Ioeventfd => 0x100,
            Way::Coalesced => 0x200,
            Way::Irqfd => 0x400,
        }
    }

    fn machine(self) -> Result<Machine, SysError> {
        let plan = Plan { cpuid: true, irqchip: self == Way::Irqfd, ..Plan::default() };
        let mut machine = Machine::build(&plan)?;
        machine.memory().write(layout::CODE as usize, guest::cost().bytes);
        let rip = layout::CODE + self.entry();
        let regs = kvm_regs { rip, rdx: PORT, rbx: layout::MMIO, ..Default::default() };
        if matches!(self, Way::PortUser | Way::MmioUser) {
            enter_ring3(&mut machine, regs)?;
            return Ok(machine);
        }
        map_low_memory(&machine, 0);
        let mut sregs = long_mode(&mut machine, 0)?;
        sregs.idt = write_idt(machine.memory(), &[(0x20 + LINE as u8, layout::CODE + 0x480)]);
        machine.set_sregs(&sregs)?;
        machine.set_regs(&kvm_regs { rsp: layout::STACK, rflags: 2, ..regs })?;
        Ok(machine)
    }
}

/// What one way costs.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Which way.
    pub way: Way,
    /// Nanoseconds an event; each sample is one event or the mean of a batch.
    pub samples: Vec<u64>,
    /// Instructions that KVM emulated, an event; or why that is not known.
    pub emulated: Result<f64, SysError>,
    /// Events that went by.
    pub events: u64,
    /// Events that our side saw arrive: in the eventfd, in the ring, as exits.
    pub arrived: u64,
}

/// Where exits are timed.
pub const HERE: kit::Place = kit::here!();

/// Measures one way, `samples` times.
///
/// # Errors
/// A call that failed, or an exit of another kind.
pub fn measure(way: Way, samples: usize) -> Result<Cost, Error> {
    let mut machine = way.machine()?;
    let eventfd = EventFd::new(libc::EFD_NONBLOCK).map_err(SysError::io("eventfd2"))?;
    let port = IoEventAddress::Pio(PORT);
    let mmio = IoEventAddress::Mmio(layout::MMIO);
    let vm = machine.vm.fd();
    match way {
        Way::Ioeventfd => vm.register_ioevent(&eventfd, &port, NoDatamatch).map_err(kvm("KVM_IOEVENTFD"))?,
        Way::Coalesced => {
            vm.register_coalesced_mmio(mmio, 4096).map_err(kvm("KVM_REGISTER_COALESCED_MMIO"))?;
            machine.vcpu.map_coalesced_ring()?;
        }
        Way::Irqfd => vm.register_irqfd(&eventfd, LINE).map_err(kvm("KVM_IRQFD"))?,
        _ => {}
    }
    machine.vcpu.set_deadline(Some(Duration::from_secs(60)))?;
    // The first events fill caches and shadow page tables. The guest of irqfd reports ready, once.
    for _ in 0..if way == Way::Irqfd { 1 } else { 3 } {
        once(way, &mut machine)?;
        drain(way, &mut machine, &eventfd)?;
    }

    let stats = Stats::of_vcpu(&machine);
    let emulated = || stats.as_ref().map_err(Clone::clone)?.get("insn_emulation");
    let before = emulated();
    let batch = u64::from(way.batch());
    let mut cost =
        Cost { way, samples: Vec::with_capacity(samples), emulated: Ok(0.0), events: 0, arrived: 0 };
    for _ in 0..samples {
        let start = Instant::now();
        if way == Way::Irqfd {
            eventfd.write(1).map_err(SysError::io("write(irqfd)"))?;
        }
        once(way, &mut machine)?;
        cost.samples.push(start.elapsed().as_nanos() as u64 / batch);
        cost.events += batch;
        cost.arrived += drain(way, &mut machine, &eventfd)?;
    }
    cost.emulated = before.and_then(|before| Ok((emulated()? - before) as f64 / cost.events as f64));
    Ok(cost)
}

/// Into the guest and back, by the expected way.
fn once(way: Way, machine: &mut Machine) -> Result<(), Error> {
    let exit = machine.run(&mut NoBus)?;
    let as_expected = match (way, &exit.why) {
        (Way::Port | Way::PortUser, Why::PortOut { port, .. }) => u64::from(*port) == PORT,
        (Way::Mmio | Way::MmioUser, Why::MmioWrite { address, .. }) => *address == layout::MMIO,
        (Way::Halt, Why::Halt) => true,
        (Way::Ioeventfd | Way::Coalesced | Way::Irqfd, Why::PortOut { port, .. }) => *port == END,
        _ => false,
    };
    if as_expected {
        return Ok(());
    }
    Err(Error::Unexpected { doing: way.title(), exit: Box::new(exit), rip: machine.regs()?.rip })
}

/// Counts what arrived on our side, and makes room for more.
fn drain(way: Way, machine: &mut Machine, eventfd: &EventFd) -> Result<u64, Error> {
    Ok(match way {
        Way::Ioeventfd => eventfd.read().map_err(SysError::io("read(eventfd)"))?,
        Way::Coalesced => {
            let mut entries = 0;
            while machine.vcpu.next_coalesced()?.is_some() {
                entries += 1;
            }
            entries
        }
        _ => 1,
    })
}
