//! What can go wrong, and what was wrong with the file though it could be read.

use std::fmt;
use std::path::PathBuf;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// open(2) or read(2) failed.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A directory, device, socket or FIFO.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// No ELF header.
    #[error("not an ELF file: {0}")]
    NotElf(String),
    /// An ELF file of another kind.
    #[error("an ELF file, but {kind}, not a core (e_type {e_type})")]
    NotCore {
        /// What it is, in words.
        kind: &'static str,
        /// `e_type`.
        e_type: u16,
    },
    /// A system call of the snapshot writer or the collector failed.
    #[error(transparent)]
    Sys(#[from] kit::SysError),
    /// Something about the process or the setting is not as needed.
    #[error("{0}")]
    State(String),
}

/// Something wrong with a file that was read nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Problem {
    /// A structure ends after the file does.
    Truncated {
        /// Which structure.
        part: String,
        /// Bytes that are there.
        have: u64,
        /// Bytes that there should be.
        want: u64,
    },
    /// The file says something that cannot be.
    Lie {
        /// Which structure.
        part: String,
        /// What it says, and what was done about it.
        detail: String,
    },
}

impl Problem {
    pub(crate) fn lie(part: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Lie { part: part.into(), detail: detail.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { part, have, want } => write!(f, "{part}: truncated: {have} of {want} bytes"),
            Self::Lie { part, detail } => write!(f, "{part}: {detail}"),
        }
    }
}
