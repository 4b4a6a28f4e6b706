//! Shared by the test programs of this lab.
#![allow(dead_code, reason = "each test program uses a part of it")]

use pidfd_spawn::spawn::Spawn;
use pidfd_spawn::ways::Way;
use pidfd_spawn::ways::zygote::Zygote;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tests that count children or descriptors of the process must not run beside others.
static ALONE: Mutex<()> = Mutex::new(());

/// The lock on this process's children and descriptors.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the way of a spawn.
pub type Base<'z> = &'z dyn for<'a> Fn(Spawn<'a>) -> Spawn<'a>;

/// Calls `test` for every way, with a function that sets it; alone in this process.
pub fn each_way(mut test: impl FnMut(Way, Base<'_>)) {
    let _alone = alone();
    for way in [Way::Fork, Way::Vfork, Way::PosixSpawn, Way::Clone3] {
        test(way, &|spawn| spawn.way(way));
    }
    let zygote = Arc::new(Zygote::start().unwrap());
    test(Way::Zygote, &|spawn| spawn.zygote(&zygote));
    drop(zygote);
    assert_eq!(children(), Vec::<i32>::new(), "a child or zombie is left");
}

/// The children that this process has now, zombies too.
pub fn children() -> Vec<i32> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|p| p.parse::<i32>().ok()));
    }
    all
}

/// The descriptors of this process.
pub fn open_fds() -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

/// A directory that other users can look into.
pub fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}
