//! Ctrl-C and its kin.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::SysError;

/// Write end of the pipe to the clean-up thread; -1: there is none, so there is nothing to clean up.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// Whether a first signal came: a second one does not wait for the clean-up.
static ASKED: AtomicBool = AtomicBool::new(false);
/// The process that the handlers are for; a forked child inherits them, but not what there is to clean up.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// On a signal: with nothing to clean up, end at once with 130; else wake the thread that cleans up.
extern "C" fn interrupted(signal: libc::c_int) {
    // SAFETY: no obligations; async-signal-safe.
    let pid = unsafe { libc::getpid() };
    if pid != OWNER.load(Ordering::Relaxed) {
        // SAFETY: async-signal-safe; the default disposition holds from here on.
        let _ = unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: async-signal-safe; the signal arrives when this handler returns, and ends the child.
        let _ = unsafe { libc::raise(signal) };
        return;
    }
    let wake = WAKE.load(Ordering::Relaxed);
    let again = ASKED.swap(true, Ordering::Relaxed);
    if wake < 0 || again {
        let text = b"\ninterrupted\n";
        // SAFETY: write(2) is async-signal-safe; the buffer is a live static of that length.
        let _ = unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        exit_now(130);
    }
    let errno = Errno::last_raw();
    // SAFETY: async-signal-safe; one byte from a live static. The pipe is non-blocking: it cannot hang here.
    let _ = unsafe { libc::write(wake, b"!".as_ptr().cast(), 1) };
    Errno::set_raw(errno);
}

/// Whether a signal asked the run to end.
pub fn interrupted_already() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Ends the process without running anything more: _exit(2).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: no obligations; async-signal-safe.
    unsafe { libc::_exit(code) }
}

/// Catches SIGINT, SIGTERM and SIGHUP, without SA_RESTART so that a blocking call returns EINTR. A signal that
/// the starter of this process had set to be ignored (nohup) stays ignored. `wake` is the write end of a
/// non-blocking pipe that gets a byte at the first signal; without one, the first signal ends the process.
pub fn catch_interrupts(wake: Option<i32>) -> Result<(), SysError> {
    OWNER.store(std::process::id().cast_signed(), Ordering::Relaxed);
    if let Some(fd) = wake {
        WAKE.store(fd, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(interrupted), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does only what is async-signal-safe: atomics, write(2), _exit(2).
        let old = unsafe { sigaction(signal, &action) }.map_err(SysError::nix("sigaction"))?;
        if matches!(old.handler(), SigHandler::SigIgn) {
            // SAFETY: puts back the disposition that was there before.
            unsafe { sigaction(signal, &old) }.map_err(SysError::nix("sigaction"))?;
        }
    }
    Ok(())
}
