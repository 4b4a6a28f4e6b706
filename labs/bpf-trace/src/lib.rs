//! How can a program see every system call on a machine at a cost of a few percent, and why is that safe?

pub mod command;
pub mod cost;
pub mod filter;
pub mod gallery;
pub mod histogram;
pub mod names;
pub mod overhead;
pub mod ring;
pub mod s1_by_hand;
pub mod sys;
pub mod syscalls;
pub mod tracer;
pub mod verify;
pub mod workload;

pub use filter::Filter;
pub use tracer::{Attached, Lost, Means, Plan, TraceError, Tracer};
