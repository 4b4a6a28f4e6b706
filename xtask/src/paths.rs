//! Where things are.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout: what `cargo run` says it runs, or else the one that we stand in.
///
/// Nothing of the checkout's place is compiled in: what was built in one checkout is fresh in its copy, too.
pub(crate) fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    if let Some(root) = xtask.as_deref().filter(|p| p.ends_with("xtask")).and_then(Path::parent) {
        return root.to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    let root = here.ancestors().find(|p| p.join("xtask/Cargo.toml").is_file());
    root.map_or_else(|| ".".into(), Path::to_owned)
}

/// The cargo that runs us, in the checkout.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// A path as it is named from the checkout.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
