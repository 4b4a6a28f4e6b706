//! Benches only: Criterion groups and comparisons with peers, one file of each per lab.
//!
//! Criterion times functions. What it cannot do (whole processes, percentiles, peers that must run in turn) goes
//! through [`compare::Comparison`]:
//!
//! ```text
//! Comparison -> rounds in turn -> judge (paired ratios, noise) -> Outcome -> table, record, report
//! ```
//!
//! | to … | look at |
//! | --- | --- |
//! | measure contenders in turn | [`compare`] |
//! | say which costs less, or that nothing can be said | [`judge`] |
//! | count what explains a time | [`counts`] |
//! | know what else the machine was doing | [`noise`] |
//! | keep and read results | [`record`] |

pub mod asked;
pub mod compare;
pub mod counts;
pub mod judge;
pub mod noise;
pub mod peers;
pub mod record;
