//! What every lab shares.

pub mod error;
pub mod testing;

pub use error::{Obstacle, SysError};
