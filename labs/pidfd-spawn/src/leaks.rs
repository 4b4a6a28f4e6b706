//! What reaches a child that should not: descriptors of other threads; and what stays behind.

use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use kit::SysError;
use nix::fcntl::OFlag;

use crate::error::SpawnError;
use crate::spawn::Spawn;

/// The heart of it.
pub const HERE: kit::Place = kit::here!();

/// Starts `spawns` children that list their descriptors, while another thread opens and closes
/// descriptors that exec keeps: how many children saw one that they were not given.
///
/// # Errors
/// [`SpawnError`].
pub fn leaked(spawns: usize) -> Result<usize, SpawnError> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Relaxed) {
                // dup without close-on-exec, as many C libraries open.
                let _inheritable = File::open("/dev/null").map(|f| nix::unistd::dup(&f));
            }
        });
        let saw: Result<Vec<bool>, SpawnError> = (0..spawns).map(|_| child_saw_more()).collect();
        stop.store(true, Relaxed);
        saw.map(|all| all.into_iter().filter(|&more| more).count())
    })
}

fn child_saw_more() -> Result<bool, SpawnError> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)
        .map_err(|e| SpawnError::Invalid(SysError::new("pipe2", e as i32).to_string()))?;
    let list = Spawn::new("/bin/sh").args(["-c", "cd /proc/self/fd && echo *"]);
    let mut child = list.fd(1, &write).spawn()?;
    drop(write);
    let mut text = String::new();
    let _ = File::from(read).read_to_string(&mut text);
    let _ = child.wait();
    // 0, 1 and 2, and the one with which the shell reads the directory: the lowest that is free.
    Ok(text.split_whitespace().any(|n| n.parse::<u32>().is_ok_and(|n| n > 3)))
}

/// Children of this process that have not been reaped, zombies among them.
pub fn unreaped() -> Vec<i32> {
    crate::supervise::children()
}
