//! The machine: four system calls, and each one's cost.

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kit::SysError;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_sregs};
use kvm_ioctls::Kvm;

use crate::error::kvm;
use crate::exits::{Bus, Exit};
use crate::layout;
use crate::sys::kvm::{Vcpu, Vm};
use crate::sys::mem::Mapping;

/// One call to the kernel on the way to a machine.
#[derive(Debug, Clone)]
pub struct Call {
    /// As a reader would look it up.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Where in this lab it is made.
    pub place: &'static Location<'static>,
}

/// What a machine is to have beyond a CPU and memory.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Bytes of memory, a multiple of 4096.
    pub memory: usize,
    /// Interrupt controllers (two PICs, IOAPIC, a local APIC a vCPU) and timer (PIT) inside KVM.
    pub irqchip: bool,
    /// Long mode: KVM has to be told that the processor knows it.
    pub cpuid: bool,
    /// Entries of the dirty ring; 0 for none. A power of two.
    pub dirty_ring: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self { memory: layout::SMALL, irqchip: false, cpuid: false, dirty_ring: 0 }
    }
}

/// A virtual machine with one vCPU.
#[derive(Debug)]
pub struct Machine {
    /// The virtual CPU.
    pub vcpu: Vcpu,
    /// The VM that it belongs to.
    pub vm: Vm,
    /// /dev/kvm. A machine no longer needs it; closing it can wait until the end.
    _system: Kvm,
    /// What building it took, in order.
    pub calls: Vec<Call>,
    /// When `KVM_CREATE_VM` began.
    pub created: Instant,
}

impl Machine {
    /// A machine with 2 MiB of memory and nothing else.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn new() -> Result<Self, SysError> {
        Self::build(&Plan::default())
    }

    /// A machine to a plan, with fresh memory.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn build(plan: &Plan) -> Result<Self, SysError> {
        Self::build_on(plan, || Mapping::anonymous(plan.memory).map(Arc::new))
    }

    /// Where a machine is built, call by call.
    pub const HERE: kit::Place = kit::here!();

    /// A machine to a plan, with memory from somewhere else: a file, a snapshot.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn build_on(
        plan: &Plan,
        memory: impl FnOnce() -> Result<Arc<Mapping>, SysError>,
    ) -> Result<Self, SysError> {
        let mut calls = Calls(Vec::with_capacity(16));
        let system = calls.time("open(\"/dev/kvm\")", || Kvm::new().map_err(kvm("open(\"/dev/kvm\")")))?;
        let created = Instant::now();
        let vm = calls.time("KVM_CREATE_VM", || system.create_vm().map_err(kvm("KVM_CREATE_VM")))?;
        if plan.irqchip {
            calls.time("KVM_CREATE_IRQCHIP", || vm.create_irq_chip().map_err(kvm("KVM_CREATE_IRQCHIP")))?;
            calls.time("KVM_CREATE_PIT2", || {
                vm.create_pit2(Default::default()).map_err(kvm("KVM_CREATE_PIT2"))
            })?;
        }
        if plan.dirty_ring > 0 {
            calls.time("KVM_ENABLE_CAP dirty ring", || crate::dirty::enable_ring(&vm, plan.dirty_ring))?;
        }
        let memory = calls.time("mmap", memory)?;
        let vm = calls.time("KVM_SET_USER_MEMORY_REGION", || Vm::with_memory(vm, memory))?;
        let vcpu = calls.time("KVM_CREATE_VCPU", || vm.create_vcpu(0))?;
        if plan.cpuid {
            // Linux checks EFER against the guest's CPUID, so this comes before any KVM_SET_SREGS
            // that turns on long mode.
            let cpuid = calls.time("KVM_GET_SUPPORTED_CPUID", || {
                system.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(kvm("KVM_GET_SUPPORTED_CPUID"))
            })?;
            calls.time("KVM_SET_CPUID2", || vcpu.fd().set_cpuid2(&cpuid).map_err(kvm("KVM_SET_CPUID2")))?;
        }
        Ok(Self { vcpu, vm, _system: system, calls: calls.0, created })
    }

    /// The guest's physical memory.
    pub fn memory(&self) -> &Mapping {
        self.vm.memory()
    }

    /// Eight bytes at a physical address.
    pub fn read_u64(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory().read(address as usize, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Where KVM's own walk of the guest's page tables leads a virtual address; none if nowhere.
    ///
    /// # Errors
    /// What the ioctl says.
    #[doc(alias = "KVM_TRANSLATE")]
    pub fn translate(&self, virt: u64) -> Result<Option<u64>, SysError> {
        let found = self.vcpu.fd().translate_gva(virt).map_err(kvm("KVM_TRANSLATE"))?;
        Ok((found.valid != 0).then_some(found.physical_address))
    }

    /// The general registers.
    ///
    /// # Errors
    /// What the ioctl says.
    pub fn regs(&self) -> Result<kvm_regs, SysError> {
        self.vcpu.fd().get_regs().map_err(kvm("KVM_GET_REGS"))
    }

    /// Sets the general registers.
    ///
    /// # Errors
    /// What the ioctl says.
    pub fn set_regs(&mut self, regs: &kvm_regs) -> Result<(), SysError> {
        self.timed("KVM_SET_REGS", |m| m.vcpu.fd().set_regs(regs).map_err(kvm("KVM_SET_REGS")))
    }

    /// The segment, control and table registers.
    ///
    /// # Errors
    /// What the ioctl says.
    pub fn sregs(&mut self) -> Result<kvm_sregs, SysError> {
        self.timed("KVM_GET_SREGS", |m| m.vcpu.fd().get_sregs().map_err(kvm("KVM_GET_SREGS")))
    }

    /// Sets them: this is what chooses the processor's mode.
    ///
    /// # Errors
    /// What the ioctl says: `EINVAL` for a state that no processor can be in.
    pub fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), SysError> {
        self.timed("KVM_SET_SREGS", |m| m.vcpu.fd().set_sregs(sregs).map_err(kvm("KVM_SET_SREGS")))
    }

    /// Runs the guest until it leaves, once.
    ///
    /// # Errors
    /// See [`Vcpu::run`].
    pub fn run(&mut self, bus: &mut impl Bus) -> Result<Exit, SysError> {
        self.vcpu.run(bus)
    }

    #[track_caller]
    fn timed<T>(
        &mut self,
        name: &'static str,
        call: impl FnOnce(&Self) -> Result<T, SysError>,
    ) -> Result<T, SysError> {
        let start = Instant::now();
        let result = call(self);
        self.calls.push(Call { name, took: start.elapsed(), place: Location::caller() });
        result
    }
}

/// The calls made so far.
struct Calls(Vec<Call>);

impl Calls {
    #[track_caller]
    fn time<T>(
        &mut self,
        name: &'static str,
        call: impl FnOnce() -> Result<T, SysError>,
    ) -> Result<T, SysError> {
        let start = Instant::now();
        let result = call();
        self.0.push(Call { name, took: start.elapsed(), place: Location::caller() });
        result
    }
}
