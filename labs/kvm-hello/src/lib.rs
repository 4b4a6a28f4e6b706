//! # kvm-hello: what is a virtual machine, from outside?

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
