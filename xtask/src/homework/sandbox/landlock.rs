//! The view without mounts: Landlock (Linux 5.13), by which a process gives up files for itself and its descendants.

use std::path::Path;

use anyhow::Context as _;

use super::{View, sys, view};

/// Access rights that Landlock's first version knows; see landlock(7).
const READ: u64 = 1 | 1 << 2 | 1 << 3; // execute, read_file, read_dir
const ALL: u64 = (1 << 13) - 1;

/// Restricts us and what we start to a view, `/proc`, and the system's own folders.
pub(super) fn restrict(view: &View) -> anyhow::Result<()> {
    let rules = sys::landlock_ruleset(ALL).context("landlock_create_ruleset")?;
    let allow = |path: &Path, access: u64| -> anyhow::Result<()> {
        let Ok(kind) = path.metadata() else { return Ok(()) };
        // What is not a folder has no entries: execute, write_file, read_file.
        let access = if kind.is_dir() { access } else { access & 0b111 };
        sys::landlock_allow(&rules, path, access).with_context(|| path.display().to_string())
    };
    for path in view::SYSTEM.iter().map(Path::new).chain(["/proc".as_ref()]) {
        allow(path, READ)?;
    }
    for path in &view.read {
        allow(path, READ)?;
    }
    for path in view::DEVICES.iter().map(Path::new).chain(view.devices.iter().map(AsRef::as_ref)) {
        allow(path, READ | 0b10)?;
    }
    for path in &view.write {
        allow(path, ALL)?;
    }
    sys::landlock_restrict(&rules).context("landlock_restrict_self")
}
