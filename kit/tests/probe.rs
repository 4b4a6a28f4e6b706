//! The probes on this machine. A program of its own, so that what it counts is the probes' alone.

use std::fs;
use std::path::PathBuf;

use kit::probe::{self, NAMES, NOISE};
use kit::testing::watchdog;

#[test]
fn every_name_has_its_finding_and_nothing_is_left() {
    let _dog = watchdog(180);
    let names: Vec<_> = probe::all().iter().map(|f| f.name).collect();
    assert_eq!(names[..names.len() - 1], NAMES);
    assert_eq!(names.last(), Some(&NOISE));

    let before = left_behind();
    for name in NAMES {
        assert_eq!(probe::finding(name).map(|f| f.name), Some(name));
    }
    assert_eq!(left_behind(), before);
    assert_eq!(probe::finding("no such thing"), None);
}

/// Descriptors, children (zombies too) and mounts of this process, and cgroups that carry its id.
fn left_behind() -> (usize, String, String, Vec<PathBuf>) {
    let mut children = String::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        children += &fs::read_to_string(task.path().join("children")).unwrap_or_default();
    }
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    (descriptors, children, fs::read_to_string("/proc/self/mounts").unwrap(), cgroups())
}

fn cgroups() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(&format!("-{}", std::process::id())) {
                found.push(entry.path());
            }
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    found
}
