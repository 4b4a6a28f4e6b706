//! echo
pub mod conn;
pub mod control;
pub mod counts;
mod listen;
pub mod load;
pub mod measure;
pub mod s1_blocking;
pub mod s2_poll;
pub mod s3_epoll;
pub mod s4_epoll_edge;
pub mod s5_oneshot;
pub mod s6_multishot;
pub mod server;
pub mod slab;
pub mod spec;
mod sys;
mod uring;
