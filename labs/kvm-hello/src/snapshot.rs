//! A machine, frozen: its registers and its memory, and three ways to have it again.
//!
//! ```text
//! copy            new memory, every byte copied                 costs by the size of the memory
//! copy-on-write   mmap(MAP_PRIVATE) of the snapshot's file      costs by the pages that get written
//! reset           madvise(MADV_DONTNEED) on such a mapping      the same VM, back at the snapshot
//! ```
//!
//! This guest has no more state than general, system and FPU registers. A monitor for real guests also
//! saves XSAVE, MSRs, local APIC, interrupt chips, timer, clock and pending events; see KVM API,
//! `KVM_GET_XSAVE2` to `KVM_GET_CLOCK`.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kit::SysError;
use kvm_bindings::{kvm_fpu, kvm_regs, kvm_sregs};

use crate::dirty::{differing, work};
use crate::error::{Error, kvm};
use crate::layout;
use crate::machine::{Machine, Plan};
use crate::sys::mem::{Mapping, memfd};

/// A machine at a moment.
#[derive(Debug)]
pub struct Snapshot {
    regs: kvm_regs,
    sregs: kvm_sregs,
    fpu: kvm_fpu,
    /// The memory, as a file that lives in memory.
    file: File,
    memory: usize,
}

/// Where a machine is frozen and thawed.
pub const HERE: kit::Place = kit::here!();

impl Snapshot {
    /// Copies a machine's state. Its last exit must be settled (see [`crate::sys::kvm::Vcpu::settle`]).
    ///
    /// # Errors
    /// A call that failed.
    pub fn take(machine: &mut Machine) -> Result<Self, SysError> {
        let memory = machine.memory().len();
        let file = memfd(c"snapshot", memory as u64)?;
        Mapping::shared(&file, memory)?.copy_from(machine.memory());
        let fpu = machine.vcpu.fd().get_fpu().map_err(kvm("KVM_GET_FPU"))?;
        Ok(Self { regs: machine.regs()?, sregs: machine.sregs()?, fpu, file, memory })
    }

    /// A new machine with a copy of the memory.
    ///
    /// # Errors
    /// A call that failed.
    pub fn restore_copy(&self) -> Result<Machine, SysError> {
        self.restore(|| {
            let memory = Mapping::anonymous(self.memory)?;
            memory.copy_from(&Mapping::shared(&self.file, self.memory)?);
            Ok(memory)
        })
    }

    /// A new machine whose memory is the snapshot's file until it is written.
    ///
    /// # Errors
    /// A call that failed.
    #[doc(alias = "copy-on-write")]
    pub fn restore_cow(&self) -> Result<Machine, SysError> {
        self.restore(|| Mapping::private(&self.file, self.memory))
    }

    fn restore(&self, memory: impl FnOnce() -> Result<Mapping, SysError>) -> Result<Machine, SysError> {
        let plan = Plan { memory: self.memory, cpuid: true, ..Plan::default() };
        let mut machine = Machine::build_on(&plan, || memory().map(Arc::new))?;
        self.set_registers(&mut machine)?;
        Ok(machine)
    }

    /// Takes a machine of [`Snapshot::restore_cow`] back to the snapshot, the VM staying as it is.
    ///
    /// # Errors
    /// A call that failed.
    pub fn reset(&self, machine: &mut Machine) -> Result<(), SysError> {
        machine.memory().forget_writes()?;
        self.set_registers(machine)
    }

    fn set_registers(&self, machine: &mut Machine) -> Result<(), SysError> {
        machine.set_sregs(&self.sregs)?;
        machine.set_regs(&self.regs)?;
        machine.vcpu.fd().set_fpu(&self.fpu).map_err(kvm("KVM_SET_FPU"))
    }

    /// The pages in which a machine differs from the snapshot.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn pages_changed(&self, machine: &Machine) -> Result<usize, SysError> {
        Ok(differing(&Mapping::shared(&self.file, self.memory)?, machine.memory()).len())
    }
}

/// One clone of a snapshot.
#[derive(Debug)]
pub struct Clone {
    /// The number that it was given in RBX.
    pub id: u64,
    /// From asking for it to its being ready to run.
    pub ready: Duration,
    /// How long its work took.
    pub work: Duration,
    /// What it computed: its number, squared.
    pub result: u64,
    /// Memory of its own, in pages: what it wrote.
    pub own_pages: usize,
}

/// Makes copy-on-write clones that all live at the same time, and has each work.
///
/// # Errors
/// A call that failed, or an exit that was not due.
pub fn clones(snapshot: &Snapshot, count: u64) -> Result<Vec<Clone>, Error> {
    let mut machines = Vec::new();
    for id in 1..=count {
        let start = Instant::now();
        let mut machine = snapshot.restore_cow()?;
        machine.set_regs(&kvm_regs { rbx: id, r8: id, ..snapshot.regs })?;
        machines.push((id, machine, start.elapsed()));
    }
    let mut done = Vec::new();
    for (id, machine, ready) in &mut machines {
        let took = work(machine)?;
        let own_pages = snapshot.pages_changed(machine)?;
        done.push(Clone {
            id: *id,
            ready: *ready,
            work: took,
            result: machine.read_u64(layout::RESULT),
            own_pages,
        });
    }
    Ok(done)
}
