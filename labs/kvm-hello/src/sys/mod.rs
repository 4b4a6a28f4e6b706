//! Everything `unsafe` in this lab: mapped memory, ioctls that kvm-ioctls lacks, the kick signal, guest code.

pub mod guest;
pub mod kick;
pub mod kvm;
pub mod mem;
