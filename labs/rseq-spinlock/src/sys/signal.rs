//! A signal that counts itself, and may do more.
#![allow(unsafe_code, reason = "installing a handler, and code that runs in one")]

use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, Ordering};

use kit::SysError;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;

/// The signal used: its default is to be ignored, should one come late.
pub const SIGNAL: Signal = Signal::SIGURG;

thread_local! {
    /// Signals that this thread has handled. Const, no drop: a handler may touch it.
    static HANDLED: Cell<u64> = const { Cell::new(0) };
}

/// What the handler calls besides; null: nothing.
static HOOK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// How many of our signals the calling thread has handled.
pub fn handled() -> u64 {
    HANDLED.get()
}

extern "C" fn handle(_: libc::c_int) {
    HANDLED.set(HANDLED.get() + 1);
    let hook = HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only `on_signal` stores here, and it stores function pointers of this type, which live for
        // ever.
        let hook = unsafe { std::mem::transmute::<*mut (), fn()>(hook) };
        hook();
    }
}

/// Installs the handler. `hook` runs in it: it must be async-signal-safe, which operations on per-CPU data
/// are.
///
/// # Errors
/// sigaction(2).
pub fn on_signal(hook: Option<fn()>) -> Result<(), SysError> {
    HOOK.store(hook.map_or(std::ptr::null_mut(), |f| f as *mut ()), Ordering::Release);
    let action = SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: `handle` touches a thread-local without destructor, an atomic, and the hook, which the caller
    // vouches for.
    unsafe { sigaction(SIGNAL, &action) }.map(drop).map_err(SysError::nix("sigaction"))
}

/// Sends our signal to a thread of this process. One that has ended meanwhile (ESRCH) gets none.
pub fn send(thread: Pid) {
    // SAFETY: tgkill takes integers; within our own process the signal can only reach a thread of ours.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread.as_raw(), SIGNAL as libc::c_int) };
}
