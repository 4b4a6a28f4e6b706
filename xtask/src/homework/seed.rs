//! Where a spec's random inputs begin.

use std::fs::File;
use std::io::Read as _;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Seed {
    /// Draw the same random inputs again
    #[arg(long)]
    seed: Option<u64>,
}

impl Seed {
    /// The one that was asked for, or another one each time.
    pub(crate) fn seed(&self) -> anyhow::Result<u64> {
        self.seed.map_or_else(drawn, Ok)
    }
}

/// A seed from the kernel.
pub(crate) fn drawn() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    // Short enough to be typed again.
    Ok(u64::from_le_bytes(bytes) >> 24)
}
