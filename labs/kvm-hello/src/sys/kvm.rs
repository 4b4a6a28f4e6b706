//! KVM calls that kvm-ioctls leaves unsafe or does not have.
#![allow(unsafe_code, reason = "ioctls by number, and the union in struct kvm_run")]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd as _};
use std::sync::Arc;
use std::time::Duration;

use kit::SysError;
use kvm_bindings::{kvm_run, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};

use super::kick::Kick;
use super::mem::Mapping;

/// `KVM_GET_STATS_FD`, `_IO(0xAE, 0xce)`: linux/kvm.h, Linux 5.14.
const KVM_GET_STATS_FD: libc::c_ulong = 0xaece;
/// `KVM_RESET_DIRTY_RINGS`, `_IO(0xAE, 0xc7)`: linux/kvm.h, Linux 5.11.
const KVM_RESET_DIRTY_RINGS: libc::c_ulong = 0xaec7;

/// A VM with one slab of memory, from guest-physical address 0 on.
///
/// Holding one proves that the memory stays mapped: the guest writes to those host addresses,
/// whatever is mapped there, so neither the VM nor a vCPU of it may outlive the mapping.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    memory: Arc<Mapping>,
}

impl Vm {
    /// Makes `memory` the guest's physical memory.
    ///
    /// # Errors
    /// What the ioctl says.
    #[doc(alias = "KVM_SET_USER_MEMORY_REGION")]
    pub fn with_memory(fd: VmFd, memory: Arc<Mapping>) -> Result<Self, SysError> {
        let vm = Self { fd, memory };
        vm.set_region(0)?;
        Ok(vm)
    }

    /// Has KVM note which pages the guest writes, or stop noting.
    ///
    /// # Errors
    /// What the ioctl says.
    #[doc(alias = "KVM_MEM_LOG_DIRTY_PAGES")]
    pub fn log_dirty(&self, on: bool) -> Result<(), SysError> {
        self.set_region(if on { kvm_bindings::KVM_MEM_LOG_DIRTY_PAGES } else { 0 })
    }

    /// Raises or lowers an input of the interrupt controllers inside KVM.
    ///
    /// # Errors
    /// What the ioctl says: `ENXIO` where the plan had no interrupt controllers.
    #[doc(alias = "KVM_IRQ_LINE")]
    pub fn set_line(&self, line: u32, up: bool) -> Result<(), SysError> {
        self.fd.set_irq_line(line, up).map_err(|e| SysError::new("KVM_IRQ_LINE", e.errno()))
    }

    fn set_region(&self, flags: u32) -> Result<(), SysError> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags,
            guest_phys_addr: 0,
            memory_size: self.memory.len() as u64,
            userspace_addr: self.memory.address(),
        };
        // SAFETY: the mapping lives as long as self, and as every Vcpu made from self: both hold its Arc.
        unsafe { self.fd.set_user_memory_region(region) }
            .map_err(|e| SysError::new("KVM_SET_USER_MEMORY_REGION", e.errno()))
    }

    /// Makes the vCPU number `id`, and maps its `kvm_run`.
    ///
    /// # Errors
    /// What the ioctl or mmap(2) says.
    #[doc(alias = "KVM_CREATE_VCPU")]
    pub fn create_vcpu(&self, id: u64) -> Result<Vcpu, SysError> {
        let fd = self.fd.create_vcpu(id).map_err(|e| SysError::new("KVM_CREATE_VCPU", e.errno()))?;
        Ok(Vcpu { deadline: None, fd, _memory: Arc::clone(&self.memory) })
    }

    /// For all calls that cannot outlive the memory.
    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Mapping {
        &self.memory
    }
}

/// A virtual CPU: a thread of the host becomes it while it is in `KVM_RUN`.
#[derive(Debug)]
pub struct Vcpu {
    // Before fd: a Kick must go before the kvm_run that it points into.
    deadline: Option<Kick>,
    fd: VcpuFd,
    _memory: Arc<Mapping>,
}

impl Vcpu {
    /// For all calls that only need to read the descriptor.
    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// For `KVM_RUN` and the fields of `kvm_run`.
    pub(crate) fn fd_mut(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// From `after` on, `KVM_RUN` in this thread returns `EINTR`; `None` takes that back.
    ///
    /// # Errors
    /// What the timer's calls say.
    pub fn set_deadline(&mut self, after: Option<Duration>) -> Result<(), SysError> {
        self.deadline = None;
        if let Some(after) = after {
            let run: *mut kvm_run = self.fd.get_kvm_run();
            // SAFETY: kvm_run stays mapped while self.fd lives, and the Kick, which no caller can take out of
            // self, is dropped before self.fd.
            self.deadline = Some(unsafe { Kick::arm(run, after) }?);
        }
        Ok(())
    }
}

/// A file with KVM's counters of a VM or of a vCPU.
///
/// # Errors
/// `ENOTTY` before Linux 5.14.
pub fn stats_fd(of: &impl AsRawFd) -> Result<File, SysError> {
    // SAFETY: the ioctl takes no argument.
    let fd = unsafe { libc::ioctl(of.as_raw_fd(), KVM_GET_STATS_FD, 0) };
    if fd < 0 {
        return Err(SysError::last("KVM_GET_STATS_FD"));
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Tells KVM that the collected entries of all dirty rings may be used again; returns how many.
///
/// # Errors
/// `EINVAL` where the ring was not enabled.
pub fn reset_dirty_rings(vm: &VmFd) -> Result<u32, SysError> {
    // SAFETY: the ioctl takes no argument.
    let reset = unsafe { libc::ioctl(vm.as_raw_fd(), KVM_RESET_DIRTY_RINGS, 0) };
    u32::try_from(reset).map_err(|_| SysError::last("KVM_RESET_DIRTY_RINGS"))
}

/// What `KVM_EXIT_INTERNAL_ERROR` carries: the suberror and the words after it.
pub fn internal_error(run: &kvm_run) -> (u32, Vec<u64>) {
    // SAFETY: every member of the union is plain integers, so any bytes in it are a valid value.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let words = internal.data.iter().take(internal.ndata as usize).copied().collect();
    (internal.suberror, words)
}

/// The repeat count and width in bytes of a `KVM_EXIT_IO`.
pub fn io_shape(run: &kvm_run) -> (u32, u8) {
    // SAFETY: every member of the union is plain integers, so any bytes in it are a valid value.
    let io = unsafe { run.__bindgen_anon_1.io };
    (io.count, io.size)
}
