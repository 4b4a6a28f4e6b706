//! All that is unsafe in this lab: assembly, raw system calls, and the cell behind a lock.

pub mod cell;
pub mod child;
pub mod clock;
pub mod futex;
pub mod membarrier;
pub mod ops;
pub mod rseq;
pub mod sched;
pub mod sections;
pub mod signal;
pub mod slice;
