//! How can a program see every system call on a machine at a cost of a few percent, and why is that safe?
//!
//! # Looking from inside
//!
//! The kernel can be asked to call a program of ours wherever something happens: at a tracepoint, at a function, at
//! each tick of a timer. The program runs in the kernel, in the name of whoever got there, and leaves what it has found
//! in maps. Nobody is stopped, and only sums cross the border:
//!
//! ```text
//!              +---------------------------- kernel ----------------------------+
//! any process  |  sys_enter -> our program -+                                   |
//!   read() ----|-> read() in the kernel     +-> map: (process, call) -> count --|-> bpf(2) lookup
//!          <---|- sys_exit  -> our program -+        ring buffer: events -------|-> mmap, poll
//!              +----------------------------------------------------------------+      this lab
//! ```
//!
//! # Why the kernel dares
//!
//! Before the first run the verifier follows every path through the program, and knows of each register what it can
//! be. What it cannot prove to end, to stay inside its memory and to leak nothing, it refuses: [`gallery`]. Then it is
//! compiled to machine code: [`inside`].
//!
//! # Stages
//!
//! 1. [`s1_by_hand`]: a counter in eleven instructions, with nothing but [`sys::bpf`].
//! 2. `bpf/*.bpf.c`: programs in C, each with a module that loads it by [`tracer`] and turns its maps into facts:
//!    [`syscalls`] and the other views.
//!
//! # References
//!
//! - bpf(2), bpf-helpers(7), perf_event_open(2), fsopen(2).
//! - Linux: `include/uapi/linux/bpf.h`, `Documentation/bpf/`, `kernel/trace/bpf_trace.c`, `kernel/bpf/verifier.c`.
//! - en.wikipedia.org/wiki/EBPF; thume.ca/2023/12/02/tracing-methods.
//! - Gregg, "BPF Performance Tools", 2019.

pub mod attach_points;
pub mod command;
pub mod cost;
pub mod disasm;
pub mod elf_symbols;
pub mod error;
pub mod exec;
pub mod filter;
pub mod flame;
pub mod gallery;
pub mod histogram;
pub mod inside;
pub mod json;
pub mod kallsyms;
mod libraries;
pub mod memlock;
pub mod names;
pub mod offcpu;
pub mod open;
pub mod overhead;
pub mod perf_map;
pub mod profile;
pub mod ring;
pub mod runq;
pub mod s1_by_hand;
pub mod softirq;
pub mod stacks;
pub mod symbols;
pub mod sys;
pub mod syscalls;
pub mod target;
pub mod tasks;
pub mod tracer;
pub mod uprobe;
pub mod verifier_log;
pub mod verify;
pub mod workload;

pub use error::TraceError;
pub use filter::Filter;
pub use tracer::{Attached, Lost, Means, Plan, Tracer};
