//! KVM's ioctls; see Documentation/virt/kvm/api.rst.
#![allow(unsafe_code, reason = "ioctl(2) is untyped")]

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use crate::SysError;

/// An ioctl that takes a plain integer (or nothing) and returns one.
pub fn int(fd: BorrowedFd<'_>, call: &'static str, nr: u8, value: u64) -> Result<i32, SysError> {
    let request = 0xae00 | libc::c_ulong::from(nr);
    // SAFETY: the callers pass `_IO(KVMIO, nr)` requests, whose argument is an integer.
    let returned = unsafe { libc::ioctl(fd.as_raw_fd(), request, value) };
    super::check(call, libc::c_long::from(returned)).map(|v| v as i32)
}

/// An ioctl that returns a new descriptor.
pub fn fd(fd: BorrowedFd<'_>, call: &'static str, nr: u8, value: u64) -> Result<OwnedFd, SysError> {
    super::check_fd(call, libc::c_long::from(int(fd, call, nr, value)?))
}

/// Which way an ioctl's structure goes.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// `_IOW`: the kernel reads it.
    In = 1,
    /// `_IOR`: the kernel writes it.
    Out = 2,
}

/// An ioctl on a structure of exactly `buffer`'s size.
///
/// Not for KVM_SET_USER_MEMORY_REGION, which hands memory over: see [`set_memory`].
pub fn data(
    fd: BorrowedFd<'_>,
    call: &'static str,
    nr: u8,
    way: Way,
    buffer: &mut [u64],
) -> Result<(), SysError> {
    let size = size_of_val(buffer) as libc::c_ulong;
    let request = (way as libc::c_ulong) << 30 | size << 16 | 0xae00 | libc::c_ulong::from(nr);
    // SAFETY: the request number encodes the size, so KVM copies just what `buffer` has, or refuses the number.
    let returned = unsafe { libc::ioctl(fd.as_raw_fd(), request, buffer.as_mut_ptr()) };
    super::check(call, libc::c_long::from(returned)).map(drop)
}

/// KVM_SET_USER_MEMORY_REGION: the whole of `memory` becomes guest-physical 0 and up, in slot 0.
///
/// The kernel keeps the address. That is sound whatever the caller does with `memory`: once it is unmapped, a guest
/// that touches it ends with an error (EFAULT), as with any access of the kernel by a user address. What a guest can
/// write is memory that [`Map`](super::map::Map) never lends out as a reference.
pub fn set_memory(vm: BorrowedFd<'_>, memory: &super::map::Map) -> Result<(), SysError> {
    // slot and flags, guest_phys_addr, memory_size, userspace_addr
    let mut region = [0, 0, memory.len() as u64, memory.address()];
    data(vm, "KVM_SET_USER_MEMORY_REGION", 0x46, Way::In, &mut region)
}
