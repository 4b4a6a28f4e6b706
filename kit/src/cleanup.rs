//! Nothing is left behind: what a lab sets up is undone on return, on panic and on Ctrl-C.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{process, thread};

use nix::fcntl::OFlag;

use crate::sys;

type Undo = Box<dyn FnOnce() + Send>;

/// What is to be undone, oldest first; `started`: whether the thread that waits for Ctrl-C is there.
struct Registry {
    next: u64,
    undo: BTreeMap<u64, (&'static str, u32, Undo)>,
    started: bool,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, undo: BTreeMap::new(), started: false });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Undoes something when dropped, or when the run is interrupted, whichever comes first, once.
#[must_use = "dropped at once, it cleans up at once"]
pub struct Deferred {
    id: u64,
    what: &'static str,
}

/// Has `undo` run when the result is dropped, on panic, and on SIGINT, SIGTERM and SIGHUP. In a forked child it
/// does not run: what is to be undone is the parent's.
///
/// `undo` must not panic nor wait for long: the presenter has pressed Ctrl-C.
pub fn defer(what: &'static str, undo: impl FnOnce() + Send + 'static) -> Deferred {
    if sys::interrupted_already() {
        // The clean-up may already have passed: undo at once, and wait for the end of the process.
        undo();
        loop {
            thread::park();
        }
    }
    let mut registry = registry();
    if !registry.started {
        registry.started = start().is_ok();
    }
    let id = registry.next;
    registry.next += 1;
    registry.undo.insert(id, (what, process::id(), Box::new(undo)));
    Deferred { id, what }
}

impl Deferred {
    /// Forgets what was to be undone: somebody else did it.
    pub fn disarm(self) {
        registry().undo.remove(&self.id);
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        let entry = registry().undo.remove(&self.id);
        if let Some((_, pid, undo)) = entry
            && pid == process::id()
        {
            undo();
        }
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deferred({})", self.what)
    }
}

/// Undoes everything, newest first.
pub fn run_all() {
    loop {
        // Taken out one by one, without the lock held: an undo may itself drop a `Deferred`.
        let last = registry().undo.pop_last();
        match last {
            Some((_, (_, pid, undo))) if pid == process::id() => undo(),
            Some(_) => {}
            None => return,
        }
    }
}

/// Makes Ctrl-C end the process with 130; nothing to clean up yet.
pub fn on_interrupt_exit() {
    // Without a handler, Ctrl-C ends the process all the same.
    let _ = sys::catch_interrupts(None);
}

/// Starts the thread that undoes everything on a signal. Signal handlers may not lock or allocate, so the
/// handler only writes to a pipe.
fn start() -> Result<(), crate::SysError> {
    let (read, write) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(crate::SysError::nix("pipe2"))?;
    thread::Builder::new()
        .name("on-interrupt".into())
        .spawn(move || wait(&read))
        .map_err(crate::SysError::io("clone"))?;
    sys::catch_interrupts(Some(write.into_raw_fd()))
}

fn wait(read: &OwnedFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
    while !poll(&mut fds, PollTimeout::NONE).is_ok_and(|n| n > 0) {}
    let _ = writeln!(std::io::stderr(), "\ninterrupted: cleaning up");
    run_all();
    sys::exit_now(130);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn runs_once_on_drop_and_never_when_disarmed() {
        let count = Arc::new(AtomicUsize::new(0));
        let add = |by: usize| {
            let count = Arc::clone(&count);
            defer("test", move || {
                count.fetch_add(by, Ordering::Relaxed);
            })
        };
        drop(add(1));
        add(100).disarm();
        let _ = std::panic::catch_unwind({
            let guard = add(10);
            move || {
                let _guard = guard;
                panic!("on purpose");
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 11);
    }
}
