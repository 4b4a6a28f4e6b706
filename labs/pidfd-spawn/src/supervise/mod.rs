//! A small supervisor on top of it all: starts services in order, restarts them, stops them in reverse.
//!
//! Two processes, so that the death of either leaves nothing running:
//!
//! ```text
//! guard (what you started)     subreaper; made the cgroup; reads events
//!   |  ^ events and pidfds, by a socket
//!   v  |
//! supervisor                   subreaper; PDEATHSIG: SIGTERM when the guard dies
//!   +- service                 own cgroup, own process group; PDEATHSIG: SIGKILL
//!   |    `- its children       in the same cgroup, whatever they do
//!   `- adopted orphan          a grandchild whose parent ended
//! ```
//!
//! Supervisor dies: its orphans fall to the guard, which kills the cgroup and every child it has.
//! Guard dies: the supervisor gets SIGTERM and stops everything as if asked to.

pub mod config;
pub mod event;
pub mod guard;
pub mod soak;
pub mod supervisor;

use std::os::fd::RawFd;

/// The hidden argument with which the guard runs this program again.
pub const INNER: &str = "--supervisor-inner";
/// The supervisor's end of the event socket.
pub(crate) const EVENT_FD: RawFd = 3;

/// The children this process has now, zombies and adopted ones too. Their PIDs are safe to use as
/// long as nobody else here reaps: an unreaped child keeps its number.
pub(crate) fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// Ends and reaps every child of this process, and the orphans that become its children thereby.
///
/// Only for a process all of whose children are meant: guard and supervisor.
pub(crate) fn sweep() -> usize {
    let mut swept = 0;
    loop {
        let children = children();
        for &pid in &children {
            let _ = crate::sys::raw::kill(pid, libc::SIGKILL);
        }
        for &pid in &children {
            while crate::sys::raw::waitid(libc::P_PID, pid, libc::WEXITED) == Err(libc::EINTR) {}
            swept += 1;
        }
        if children.is_empty() {
            return swept;
        }
    }
}
