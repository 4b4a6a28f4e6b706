//! KVM's ioctls, and the smallest machine; see Documentation/virt/kvm/api.rst.
//!
//! The raw ioctls stay private: the kernel keeps the address of a machine's memory, so memory and machine are one
//! [`Machine`], whose vCPU nobody else can run.
#![allow(unsafe_code, reason = "ioctl(2) is untyped")]

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use super::map::Map;
use crate::SysError;

/// An opened /dev/kvm.
#[derive(Debug)]
pub struct Kvm(OwnedFd);

impl Kvm {
    /// Opens /dev/kvm.
    pub fn open() -> Result<Self, SysError> {
        let device = std::fs::File::options().read(true).write(true).open("/dev/kvm");
        Ok(Self(device.map_err(SysError::io("open(\"/dev/kvm\")"))?.into()))
    }

    /// KVM_GET_API_VERSION: 12 since Linux 2.6.22.
    pub fn api_version(&self) -> Result<i32, SysError> {
        int(self.0.as_fd(), "KVM_GET_API_VERSION", 0x00, 0)
    }

    /// A machine of one page with `code` at 0, and one CPU in real mode about to run it.
    ///
    /// # Panics
    /// If `code` is longer than a page.
    pub fn machine(&self, code: &[u8]) -> Result<Machine, SysError> {
        let vm = fd(self.0.as_fd(), "KVM_CREATE_VM", 0x01, 0)?;
        let memory = Map::anonymous(4096)?;
        memory.write(0, code);
        // struct kvm_userspace_memory_region: slot and flags, guest_phys_addr, memory_size, userspace_addr.
        let mut region = [0, 0, memory.len() as u64, memory.address()];
        data(vm.as_fd(), "KVM_SET_USER_MEMORY_REGION", 0x46, Way::In, &mut region)?;
        let vcpu = fd(vm.as_fd(), "KVM_CREATE_VCPU", 0x41, 0)?;
        let size = int(self.0.as_fd(), "KVM_GET_VCPU_MMAP_SIZE", 0x04, 0)?;
        let run = Map::of(vcpu.as_fd(), size as usize)?;

        // struct kvm_sregs starts with CS: base, then limit (u32) and selector (u16).
        let mut sregs = [0u64; 39];
        data(vcpu.as_fd(), "KVM_GET_SREGS", 0x83, Way::Out, &mut sregs)?;
        sregs[0] = 0;
        sregs[1] &= !(0xffff << 32);
        data(vcpu.as_fd(), "KVM_SET_SREGS", 0x84, Way::In, &mut sregs)?;
        // struct kvm_regs: sixteen registers, rip, rflags (of which bit 1 is always set).
        let mut regs = [0u64; 18];
        regs[17] = 2;
        data(vcpu.as_fd(), "KVM_SET_REGS", 0x82, Way::In, &mut regs)?;
        Ok(Machine { vcpu, run, _vm: vm, _memory: memory })
    }

    /// Makes a VM and turns its dirty ring on: KVM_CAP_DIRTY_LOG_RING, Linux 5.11.
    pub fn try_dirty_ring(&self, entries: u64) -> Result<(), SysError> {
        const KVM_CAP_DIRTY_LOG_RING: u64 = 192;
        let vm = fd(self.0.as_fd(), "KVM_CREATE_VM", 0x01, 0)?;
        // struct kvm_enable_cap: cap (u32) and flags (u32), four arguments, 64 reserved bytes.
        let mut cap = [0u64; 13];
        cap[0] = KVM_CAP_DIRTY_LOG_RING;
        cap[1] = entries * 16;
        data(vm.as_fd(), "KVM_ENABLE_CAP(KVM_CAP_DIRTY_LOG_RING)", 0xa3, Way::In, &mut cap)
    }
}

/// A machine, with its memory: it can run only while the memory is mapped.
#[derive(Debug)]
pub struct Machine {
    vcpu: OwnedFd,
    run: Map,
    _vm: OwnedFd,
    _memory: Map,
}

impl Machine {
    /// Runs to the next exit; its reason.
    pub fn run(&self) -> Result<u32, SysError> {
        loop {
            match int(self.vcpu.as_fd(), "KVM_RUN", 0x80, 0) {
                Err(e) if e.errno == libc::EINTR => continue,
                other => other?,
            };
            return Ok(self.run.read_u32(8));
        }
    }

    /// The vCPU's counters: KVM_GET_STATS_FD, Linux 5.14.
    pub fn stats(&self) -> Result<std::fs::File, SysError> {
        fd(self.vcpu.as_fd(), "KVM_GET_STATS_FD", 0xce, 0).map(Into::into)
    }
}

/// An ioctl that takes a plain integer (or nothing) and returns one.
fn int(fd: BorrowedFd<'_>, call: &'static str, nr: u8, value: u64) -> Result<i32, SysError> {
    let request = 0xae00 | libc::c_ulong::from(nr);
    // SAFETY: the callers above pass `_IO(KVMIO, nr)` requests, whose argument is an integer; KVM_RUN only on a
    // `Machine`, whose memory is mapped.
    let returned = unsafe { libc::ioctl(fd.as_raw_fd(), request, value) };
    super::check(call, libc::c_long::from(returned)).map(|v| v as i32)
}

/// An ioctl that returns a new descriptor.
fn fd(fd: BorrowedFd<'_>, call: &'static str, nr: u8, value: u64) -> Result<OwnedFd, SysError> {
    super::check_fd(call, libc::c_long::from(int(fd, call, nr, value)?))
}

/// Which way an ioctl's structure goes.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// `_IOW`: the kernel reads it.
    In = 1,
    /// `_IOR`: the kernel writes it.
    Out = 2,
}

/// An ioctl on a structure of exactly `buffer`'s size.
fn data(
    fd: BorrowedFd<'_>,
    call: &'static str,
    nr: u8,
    way: Way,
    buffer: &mut [u64],
) -> Result<(), SysError> {
    let size = size_of_val(buffer) as libc::c_ulong;
    let request = (way as libc::c_ulong) << 30 | size << 16 | 0xae00 | libc::c_ulong::from(nr);
    // SAFETY: the request number encodes the size, so KVM copies just what `buffer` has, or refuses the number.
    // Of the structures that the callers pass, only the memory region holds an address: that of a mapping which
    // the `Machine` keeps for as long as its vCPU can run, and of which no reference is ever given out.
    let returned = unsafe { libc::ioctl(fd.as_raw_fd(), request, buffer.as_mut_ptr()) };
    super::check(call, libc::c_long::from(returned)).map(drop)
}
