//! Benches only: Criterion groups and comparisons with peers, one file per lab.
//!
//! Criterion times functions. What it cannot do (whole processes, percentiles, peers that must run in turn) goes
//! through [`compare::Comparison`].

pub mod compare;
