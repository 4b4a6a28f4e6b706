//! A folder of a bench's own, that nobody finds afterwards.

use std::io::Result;
use std::path::PathBuf;

/// A folder below the temporary one, removed when dropped, and on Ctrl-C.
pub struct Scratch {
    pub path: PathBuf,
    _undo: kit::cleanup::Deferred,
}

impl Scratch {
    /// `name` and this process's number.
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let gone = path.clone();
        let undo = kit::cleanup::defer("remove the bench's folder", move || {
            let _ = std::fs::remove_dir_all(&gone);
        });
        Ok(Self { path, _undo: undo })
    }
}
