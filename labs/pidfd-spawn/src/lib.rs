//! Why is a PID not a handle, and what is?
//!
//! A PID is a number that the kernel gives away again once its process was reaped. Who keeps one and uses it
//! later may hit a stranger: between the look and the act lies a gap that no check closes. A *pidfd* is a file
//! descriptor that refers to the process itself: once that has ended, signals say ESRCH, for ever.
//!
//! ```text
//!   by number                                 by handle
//!   pid = fork()              4242            clone3(CLONE_PIDFD)      4242, pidfd
//!   … it ends, is reaped      4242 is free    … it ends, is reaped
//!   … someone else forks      4242 again      … someone else forks     4242 again
//!   kill(4242)                hits them       pidfd_send_signal(pidfd) ESRCH
//! ```
//!
//! [`race`] makes that happen on demand. The rest is what follows from having handles:
//!
//! - **Create.** [`spawn::Spawn`] is one request; [`ways`] has one module for each way to carry it out, from
//!   fork to `clone3(CLONE_VM|CLONE_VFORK|CLONE_PIDFD|CLONE_CLEAR_SIGHAND|CLONE_INTO_CGROUP)`, which gives
//!   process, handle and cgroup in one call. They differ in what the child shares with its parent:
//!
//! ```text
//!              memory      stack      handlers reset by    error comes back by   handle
//!   fork       copied      copied     64 sigactions        a pipe                pidfd_open, after
//!   vfork      shared      parent's   64 sigactions        shared memory         pidfd_open, after
//!   clone3     shared      its own    the kernel           shared memory         with the child
//!   zygote     zygote's    its own    the kernel           memory shared by both SCM_RIGHTS
//! ```
//!
//!   What the child does before exec is the same for all, in `sys/child.rs`: system calls only, no
//!   allocation, no lock, since it shares memory with a parent that has other threads.
//! - **Wait.** A pidfd becomes readable when its process ends: [`wait`] has poll, epoll and io_uring.
//! - **Reach in.** [`pidfd`]: the exit status after reaping, a descriptor taken out of another process, a
//!   thread's handle; [`handover`] upgrades a running server with it.
//! - **Supervise.** [`supervise`] builds a small supervisor that survives a thousand random kills.
//! - **Measure.** [`measure`]: fork's price grows with the parent, the others' does not.
//!
//! References: pidfd_open(2), clone(2), waitid(2), pidfd_getfd(2), cgroups(7); `include/uapi/linux/pidfd.h`,
//! `kernel/fork.c`, `fs/pidfs.c`; lwn.net/Articles/794707 (pidfd), 943022 (race-free creation in glibc), 908268
//! (spawning by io_uring); Baumann and others, "A fork() in the road" (HotOS 2019).
#![cfg(target_arch = "x86_64")]

pub mod cgroup;
pub mod error;
pub mod evidence;
pub mod fds;
pub mod handover;
pub mod leaks;
pub mod measure;
pub mod pidfd;
mod plan;
pub mod process;
pub mod race;
pub mod spawn;
pub mod supervise;
mod sys;
pub mod tiny;
pub mod wait;
pub mod ways;
