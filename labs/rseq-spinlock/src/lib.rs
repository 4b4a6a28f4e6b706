//! When may a lock spin, and what can restartable sequences do instead?
//!
//! # Spinning
//!
//! Waiting for a lock by looking at it again and again is right for as long as its holder is running and
//! about to leave. A spinner cannot see whether that is so. With a CPU for each thread it usually is; with
//! more threads than CPUs the holder is sooner or later preempted in its section, and then every spinner
//! burns a time slice for nothing, perhaps the very one that the holder needs:
//!
//! ```text
//! CPU 0   holder ==lock==|  spinner ~~~~~~~~~~~~~~~~~~~~~~~~|  holder ==unlock
//! CPU 1   spinner ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~|
//! ```
//!
//! [`locks`] holds ten answers, each a file that fits on a screen: from test-and-set by way of fair queues
//! and the futex to a lock whose word says on which CPU its holder is, so that a waiter on that CPU knows
//! that it must not spin.
//!
//! # Restartable sequences
//!
//! Per-CPU data needs no lock: on one CPU only one thread runs at a time. It can be interrupted, though,
//! between load and store. A restartable sequence is a few instructions that end in one store, the *commit*;
//! the kernel promises that a thread which it preempts, migrates or signals in between does not come back
//! there, but at an abort handler:
//!
//! ```text
//!            struct rseq (one a thread)          struct rseq_cs (one a section)
//!            cpu_id    <- kernel                 start_ip, length, abort_ip
//!            rseq_cs   -------------------------->
//!
//! user       arm | load cpu_id, load, add | store = commit |
//!                 \________ here the kernel intervenes ____/
//! kernel     back to user mode: moved since, and ip inside? then ip = abort_ip
//! ```
//!
//! [`sys::sections`] has the frame of such a section, [`sys::ops`] six of them in assembly, [`percpu`] what
//! is made of them.
//!
//! # How we know
//!
//! - [`inject`]: something happens at *every* instruction of every section, and each is counted; without rseq
//!   the same instructions lose updates, and the tests prove that they do.
//! - `tests/loom.rs`: the locks' own source under a model checker.
//! - [`contend`], [`preempt`], [`count`], [`structures`]: what it costs.
//!
//! # References
//!
//! - Linux: `kernel/rseq.c`, `include/uapi/linux/rseq.h`, `tools/testing/selftests/rseq`,
//!   `Documentation/userspace-api/rseq.rst`.
//! - Desnoyers, "The 5-year journey to bring restartable sequences to Linux", EfficiOS 2019;
//!   lwn.net/Articles/697979, 944895, 946870.
//! - Deferred preemption, lwn.net/Articles/948870; user-space adaptive spinning, lwn.net/Articles/931789;
//!   directed yield, lwn.net/Articles/419961.
//! - Mellor-Crummey and Scott, "Algorithms for Scalable Synchronization on Shared-Memory Multiprocessors",
//!   TOCS 1991.
//! - Drepper, "Futexes Are Tricky", 2011. futex(2), membarrier(2), sched(7).

#[cfg(not(target_arch = "x86_64"))]
compile_error!("this lab's critical sections are written in x86-64 assembly");

pub mod anatomy;
pub mod contend;
pub mod count;
pub mod cpus;
pub mod inject;
pub mod locks;
pub mod percpu;
pub mod preempt;
pub mod raw;
pub mod structures;
pub mod subject;
pub mod sync;
pub mod sys;
pub mod throttle;

pub use raw::RawLock;
pub use sys::cell::{Guard, Lock};
