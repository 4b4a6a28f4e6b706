//! Benches only: Criterion groups and comparisons with peers, one file per lab.
