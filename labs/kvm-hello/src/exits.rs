//! Why a guest comes back: the exit reasons of `struct kvm_run`, typed.
//!
//! KVM API documentation, section 5, "The kvm_run structure".

use std::fmt;
use std::time::{Duration, Instant};

use kit::SysError;
use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};
use kvm_ioctls::VcpuExit;

use crate::error::kvm;
use crate::sys::kvm::{Vcpu, internal_error, io_shape};

/// One trip into the guest: why it ended, and how long `KVM_RUN` took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Why the guest came back.
    pub why: Why,
    /// From before the ioctl to after it.
    pub took: Duration,
}

/// Why `KVM_RUN` returned.
#[allow(missing_docs, reason = "the fields are those of kvm_run, and each variant says what they are")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// `KVM_EXIT_IO`, out: the guest wrote to a port (`count` items of `width` bytes; `value` is the first).
    PortOut { port: u16, value: u32, width: u8, count: u32 },
    /// `KVM_EXIT_IO`, in: the guest reads a port, and the bus has answered.
    PortIn { port: u16, width: u8, count: u32 },
    /// `KVM_EXIT_MMIO`: the guest wrote to a physical address where no memory is.
    MmioWrite { address: u64, value: u64, width: u8 },
    /// `KVM_EXIT_MMIO`: the guest reads such an address, and the bus has answered.
    MmioRead { address: u64, width: u8 },
    /// `KVM_EXIT_HLT`: it has nothing to do until an interrupt.
    Halt,
    /// `KVM_EXIT_DEBUG`: a single step or a breakpoint.
    Debug { rip: u64 },
    /// `KVM_EXIT_SHUTDOWN`: on x86, a triple fault.
    Shutdown,
    /// `KVM_EXIT_INTERNAL_ERROR`: KVM itself could not go on.
    InternalError { suberror: u32, data: Vec<u64> },
    /// `KVM_EXIT_FAIL_ENTRY`: the processor refused the state that we had set.
    FailEntry { reason: u64 },
    /// `KVM_EXIT_MEMORY_FAULT`: private memory, or memory that the host cannot give.
    MemoryFault { address: u64, flags: u64 },
    /// `EINTR`: a signal to this thread, or `immediate_exit`.
    Interrupted,
    /// Any other reason, by number.
    Other(u32),
}

impl Why {
    /// The constant in linux/kvm.h (or the errno).
    pub fn name(&self) -> &'static str {
        match self {
            Why::PortOut { .. } | Why::PortIn { .. } => "KVM_EXIT_IO",
            Why::MmioWrite { .. } | Why::MmioRead { .. } => "KVM_EXIT_MMIO",
            Why::Halt => "KVM_EXIT_HLT",
            Why::Debug { .. } => "KVM_EXIT_DEBUG",
            Why::Shutdown => "KVM_EXIT_SHUTDOWN",
            Why::InternalError { .. } => "KVM_EXIT_INTERNAL_ERROR",
            Why::FailEntry { .. } => "KVM_EXIT_FAIL_ENTRY",
            Why::MemoryFault { .. } => "KVM_EXIT_MEMORY_FAULT",
            Why::Interrupted => "EINTR",
            Why::Other(_) => "another exit reason",
        }
    }
}

/// The suberror of `KVM_EXIT_INTERNAL_ERROR`, by name (linux/kvm.h).
pub fn suberror_name(suberror: u32) -> &'static str {
    match suberror {
        1 => "KVM_INTERNAL_ERROR_EMULATION",
        2 => "KVM_INTERNAL_ERROR_SIMUL_EX",
        3 => "KVM_INTERNAL_ERROR_DELIVERY_EV",
        4 => "KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON",
        _ => "an unknown suberror",
    }
}

/// The instruction bytes that KVM could not emulate, from the data of `KVM_INTERNAL_ERROR_EMULATION`.
///
/// `struct { u64 flags; u8 size; u8 bytes[15]; }`, the bytes valid where flag 0 is set (linux/kvm.h).
pub fn not_emulated(data: &[u64]) -> Option<Vec<u8>> {
    let [flags, first, second, ..] = *data else { return None };
    let words = [first.to_le_bytes(), second.to_le_bytes()].concat();
    let size = usize::from(words[0]).min(15);
    (flags & 1 == 1).then(|| words[1..=size].to_vec())
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::PortOut { port, count: 1, .. } => write!(f, "IO out {port:#x}"),
            Why::PortOut { port, count, .. } => write!(f, "IO out {port:#x} x{count}"),
            Why::PortIn { port, .. } => write!(f, "IO in {port:#x}"),
            Why::MmioWrite { address, .. } => write!(f, "MMIO write {address:#x}"),
            Why::MmioRead { address, .. } => write!(f, "MMIO read {address:#x}"),
            Why::Halt => write!(f, "HLT"),
            Why::Debug { .. } => write!(f, "DEBUG"),
            Why::Shutdown => write!(f, "SHUTDOWN"),
            Why::InternalError { suberror, .. } => write!(f, "INTERNAL_ERROR {}", suberror_name(*suberror)),
            Why::FailEntry { reason } => write!(f, "FAIL_ENTRY {reason:#x}"),
            Why::MemoryFault { address, .. } => write!(f, "MEMORY_FAULT {address:#x}"),
            Why::Interrupted => write!(f, "EINTR"),
            Why::Other(number) => write!(f, "exit reason {number}"),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

/// What answers when a guest talks to the world outside its memory.
///
/// The defaults are those of an empty bus: writes vanish, reads give all ones.
pub trait Bus {
    /// `out`: `data` came from the guest.
    fn port_out(&mut self, _port: u16, _data: &[u8]) {}
    /// `in`: `data` goes to the guest when it next runs.
    fn port_in(&mut self, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    /// A store to an address without memory.
    fn mmio_write(&mut self, _address: u64, _data: &[u8]) {}
    /// A load from an address without memory.
    fn mmio_read(&mut self, _address: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
}

/// A bus with nothing on it.
#[derive(Debug, Clone, Copy)]
pub struct NoBus;
impl Bus for NoBus {}

impl Vcpu {
    /// Runs the guest until it leaves, once; the bus has answered when this returns.
    ///
    /// # Errors
    /// What `KVM_RUN` says, except `EINTR` and `KVM_EXIT_MEMORY_FAULT`, which are exits.
    #[doc(alias = "KVM_RUN")]
    pub fn run(&mut self, bus: &mut impl Bus) -> Result<Exit, SysError> {
        let start = Instant::now();
        let left = self.fd_mut().run();
        let took = start.elapsed();
        let why = match left {
            Ok(VcpuExit::IoOut(port, data)) => {
                bus.port_out(port, data);
                let value = low_bytes(data) as u32;
                let (count, width) = io_shape(self.fd_mut().get_kvm_run());
                Why::PortOut { port, value, width, count }
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                bus.port_in(port, data);
                let (count, width) = io_shape(self.fd_mut().get_kvm_run());
                Why::PortIn { port, width, count }
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                bus.mmio_write(address, data);
                Why::MmioWrite { address, value: low_bytes(data), width: data.len() as u8 }
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                bus.mmio_read(address, data);
                Why::MmioRead { address, width: data.len() as u8 }
            }
            Ok(VcpuExit::Hlt) => Why::Halt,
            Ok(VcpuExit::Debug(debug)) => Why::Debug { rip: debug.pc },
            Ok(VcpuExit::Shutdown) => Why::Shutdown,
            Ok(VcpuExit::InternalError) => {
                let (suberror, data) = internal_error(self.fd_mut().get_kvm_run());
                Why::InternalError { suberror, data }
            }
            Ok(VcpuExit::FailEntry(reason, _)) => Why::FailEntry { reason },
            Ok(VcpuExit::MemoryFault { flags, gpa, .. }) => Why::MemoryFault { address: gpa, flags },
            Ok(_) => Why::Other(self.fd_mut().get_kvm_run().exit_reason),
            Err(e) if e.errno() == libc::EINTR => Why::Interrupted,
            Err(e) => return Err(SysError::new("KVM_RUN", e.errno())),
        };
        Ok(Exit { why, took })
    }

    /// Maps the page where KVM notes stores to zones registered as coalesced.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn map_coalesced_ring(&mut self) -> Result<(), SysError> {
        self.fd_mut().map_coalesced_mmio_ring().map_err(kvm("mmap(coalesced MMIO ring)"))
    }

    /// The oldest noted store: its address and value.
    ///
    /// # Errors
    /// If the ring is not mapped.
    pub fn next_coalesced(&mut self) -> Result<Option<(u64, u64)>, SysError> {
        let entry = self.fd_mut().coalesced_mmio_read().map_err(kvm("coalesced MMIO ring"))?;
        Ok(entry.map(|e| (e.phys_addr, low_bytes(&e.data[..e.len as usize]))))
    }

    /// Has the guest come back after every instruction, or not.
    ///
    /// # Errors
    /// What the ioctl says.
    #[doc(alias = "KVM_SET_GUEST_DEBUG")]
    pub fn single_step(&mut self, on: bool) -> Result<(), SysError> {
        let control = if on { KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP } else { 0 };
        let debug = kvm_guest_debug { control, ..Default::default() };
        self.fd().set_guest_debug(&debug).map_err(kvm("KVM_SET_GUEST_DEBUG"))
    }

    /// Ends an exit that the guest's last instruction is still waiting for.
    ///
    /// After a port or MMIO exit, registers are final only once `KVM_RUN` was entered again: with
    /// `immediate_exit` set, that finishes the instruction and runs no other. Needed before a snapshot.
    ///
    /// # Errors
    /// What `KVM_RUN` says.
    #[doc(alias = "immediate_exit")]
    pub fn settle(&mut self) -> Result<(), SysError> {
        self.fd_mut().set_kvm_immediate_exit(1);
        let left = self.fd_mut().run().map(|_| ());
        self.fd_mut().set_kvm_immediate_exit(0);
        match left {
            Err(e) if e.errno() != libc::EINTR => Err(SysError::new("KVM_RUN", e.errno())),
            _ => Ok(()),
        }
    }
}

/// Up to eight bytes as a number, lowest first.
fn low_bytes(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
