//! The unsafe part: system calls that no crate wraps, and the code that runs in a new child.

pub(crate) mod child;
pub(crate) mod create;
pub(crate) mod pidfd;
pub(crate) mod race;
pub(crate) mod raw;
pub(crate) mod zygote;
