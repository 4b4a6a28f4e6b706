//! Which pages did the guest write? KVM's two ways to tell.

use kit::SysError;
use kvm_bindings::{KVM_CAP_DIRTY_LOG_RING, kvm_enable_cap};
use kvm_ioctls::VmFd;

use crate::error::kvm;

/// Bytes of a `struct kvm_dirty_gfn`.
pub const RING_ENTRY: usize = 16;

/// Turns the dirty ring on; only before the first vCPU.
pub(crate) fn enable_ring(vm: &VmFd, entries: u32) -> Result<(), SysError> {
    let bytes = u64::from(entries) * RING_ENTRY as u64;
    let cap = kvm_enable_cap { cap: KVM_CAP_DIRTY_LOG_RING, args: [bytes, 0, 0, 0], ..Default::default() };
    vm.enable_cap(&cap).map_err(kvm("KVM_ENABLE_CAP(KVM_CAP_DIRTY_LOG_RING)"))
}
