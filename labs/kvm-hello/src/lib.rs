//! # kvm-hello: what is a virtual machine, from outside?
//!
//! From inside, a guest has a processor, memory and devices. From outside it is a process that holds a few
//! file descriptors and runs a loop around one system call:
//!
//! ```text
//!   our process                        Linux (KVM)                     the guest
//!   -----------                        -----------                     ---------
//!   open("/dev/kvm")  ───────────────> KVM itself
//!   KVM_CREATE_VM     ───────────────> an address space, empty
//!   mmap, KVM_SET_USER_MEMORY_REGION > our pages are its memory
//!   KVM_CREATE_VCPU   ───────────────> a processor, and a page that we share: struct kvm_run
//!   KVM_SET_SREGS, KVM_SET_REGS ─────> where it starts, and in which mode
//!
//!   ┌> KVM_RUN        ───────────────> enter ────────────────────────> mov dx,0x3f8
//!   │                                                                  mov al,'H'
//!   │  kvm_run says: IO, out, 0x3f8 <─ exit <───────────────────────── out dx,al
//!   │  print 'H'
//!   └──┘ until it says: HLT
//! ```
//!
//! A guest leaves for what its processor has not got: ports, addresses without memory, sleep. All else it does by
//! itself, at its own speed. So the price of a virtual machine is the number of its exits times their cost, and
//! the art of virtual devices is to need few.
//!
//! ## Where to read
//!
//! | question | file |
//! | --- | --- |
//! | what is a machine made of? | [`machine`] |
//! | what does it say when it comes back? | [`exits`] |
//! | how does it get into a mode? | [`s1_real`], [`s2_protected`], [`s3_paging32`], [`s4_long`], [`s5_user`] |
//! | how does an address become memory? | [`paging`] |
//! | what runs inside? | `src/guest/*.s`, listed by [`listing`] |
//! | what does an exit cost, by its kind? | [`cost`], [`stats`] |
//! | what is a device? | [`devices`] |
//! | which pages were written, and what is that good for? | [`dirty`], [`snapshot`] |
//! | what if the guest goes wrong? | [`misbehave`] |
//!
//! ## References
//!
//! - [The KVM API](https://docs.kernel.org/virt/kvm/api.html): every call and every exit reason.
//! - [Using the KVM API](https://lwn.net/Articles/658511/), Josh Triplett: the smallest guest, in C.
//! - [kvm-hello-world](https://github.com/dpw/kvm-hello-world), David Wragg: the modes, in C.
//! - Intel SDM volume 3: chapters 3 (segments), 5 (paging), 6 (interrupts), 10 (modes).
#![cfg(target_arch = "x86_64")]

pub mod cost;
pub mod devices;
pub mod dirty;
pub mod error;
pub mod exits;
pub mod hello;
pub mod layout;
pub mod listing;
pub mod machine;
pub mod misbehave;
pub mod mode;
pub mod paging;
pub mod s1_real;
pub mod s2_protected;
pub mod s3_paging32;
pub mod s4_long;
pub mod s5_user;
pub mod segments;
pub mod snapshot;
pub mod stats;
pub mod sys;
