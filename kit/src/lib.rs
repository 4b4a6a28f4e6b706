//! What every lab shares: narration, checks, reports, probes, errors.
//!
//! Data flows one way. A lab's library does the experiment and returns facts; its `main.rs` tells them to a
//! [`Session`]; each telling is an event; the renderers read the events:
//!
//! ```text
//! mechanism -> facts -> Session -> events -+-> terminal (--big, --step)
//!                                          +-> Run -+-> JSON (--json), saved run (--save)
//!                                                   +-> HTML (--report)
//!                               Run -> events again (--replay)
//! ```
//!
//! | to … | look at |
//! | --- | --- |
//! | tell an experiment | [`Session`], [`main!`], the shapes in [`event`] |
//! | report a failed call | [`SysError`], [`Unavailable`], [`Usage`] |
//! | undo what was set up | [`cleanup::defer`] |
//! | say how figures spread | [`stats::Summary`], [`stats::Ratio`] |
//! | find out what the machine can do | [`probe`] |
//! | leave or guard a test | [`skip!`], [`testing::watchdog`] |
//! | test an exercise | [`spec`] |

pub mod cleanup;
#[cfg(feature = "session")]
pub mod entry;
pub mod error;
pub mod event;
pub mod machine;
pub mod probe;
#[cfg(feature = "session")]
mod render;
pub mod run;
#[cfg(feature = "session")]
pub mod session;
pub mod spec;
pub mod stats;
mod sys;
pub mod testing;

#[cfg(feature = "session")]
pub use entry::{Interrupted, Lab, NoOptions, Unavailable, Usage};
pub use error::{Obstacle, SysError};
pub use event::{
    Axis, Bar, Bars, Hexdump, Item, Lane, Lanes, Lines, Listing, Place, Predict, Scale, Series, Span, Table,
};
#[cfg(feature = "session")]
pub use session::{Progress, Session};
pub use stats::Summary;
