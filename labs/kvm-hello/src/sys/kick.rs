//! How to get a vCPU out of the guest: a signal, and the `immediate_exit` byte.
//!
//! A signal alone is not enough: arriving just before the ioctl, it would be handled and forgotten,
//! and the guest would run on. So the handler also sets `kvm_run.immediate_exit`, which makes the
//! next `KVM_RUN` return at once (KVM API, "immediate_exit"; Linux 4.12).
#![allow(unsafe_code, reason = "a signal handler, a timer aimed at a thread, a byte shared with the kernel")]

use std::cell::Cell;
use std::ptr::null_mut;
use std::time::Duration;

use kit::SysError;
use kvm_bindings::kvm_run;

thread_local! {
    /// The `immediate_exit` byte of the vCPU that this thread runs, or null. Const and without a
    /// destructor, so reading it in a signal handler allocates nothing.
    static FLAG: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

/// Runs in the thread that the timer names: the one that is in `KVM_RUN`.
extern "C" fn on_signal(_: libc::c_int) {
    let flag = FLAG.get();
    if !flag.is_null() {
        // SAFETY: FLAG is null or the flag of a Kick of this thread that is not dropped yet (its Drop takes it
        // out of FLAG), and until then kvm_run is mapped, as the caller of `arm` promised.
        unsafe { flag.write_volatile(1) };
    }
}

/// A timer that makes the calling thread's `KVM_RUN` return with `EINTR`, and again every 10 ms:
/// should someone clear the flag at the wrong moment, that costs 10 ms and not the way out.
///
/// It is dropped on the thread that made it, for it is not `Send`. With two in one thread, FLAG is the later
/// one's: its vCPU may be taken back early by the other's signal, and the other leaves by its signals alone.
#[derive(Debug)]
pub struct Kick {
    timer: libc::timer_t,
    flag: *mut u8,
}

impl Kick {
    /// Arms the timer: `after` from now, this thread leaves the guest.
    ///
    /// # Errors
    /// What sigaction(2), timer_create(2) or timer_settime(2) says.
    ///
    /// # Safety
    /// `run` must stay mapped until the `Kick` is dropped.
    pub unsafe fn arm(run: *mut kvm_run, after: Duration) -> Result<Self, SysError> {
        install()?;
        // SAFETY: `run` is mapped, as the caller promises; this makes an address, not a reference.
        let flag = unsafe { &raw mut (*run).immediate_exit };
        // SAFETY: sigevent is plain integers and a pointer that may be null: zeroes are a valid value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal();
        // SAFETY: gettid(2) takes nothing and cannot fail.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer: libc::timer_t = null_mut();
        // SAFETY: both pointers are to locals that outlive the call.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } != 0 {
            return Err(SysError::last("timer_create"));
        }
        // From here on Drop undoes all of it. The timer is not set yet, so no signal comes before FLAG is set.
        let kick = Self { timer, flag };
        FLAG.set(flag);
        let at = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 },
            it_value: libc::timespec {
                tv_sec: after.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                // A zero time would disarm it.
                tv_nsec: i64::from(after.subsec_nanos().max(1)),
            },
        };
        // SAFETY: the timer is the one just made, and `at` outlives the call.
        if unsafe { libc::timer_settime(kick.timer, 0, &raw const at, null_mut()) } != 0 {
            return Err(SysError::last("timer_settime"));
        }
        Ok(kick)
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and deleted once. A signal still under way does not find our flag in FLAG.
        unsafe { libc::timer_delete(self.timer) };
        if FLAG.get() == self.flag {
            FLAG.set(null_mut());
        }
        // SAFETY: `run` is still mapped, as `arm`'s caller promised.
        unsafe { self.flag.write_volatile(0) };
    }
}

/// The first real-time signal that glibc leaves to us.
fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

fn install() -> Result<(), SysError> {
    // SAFETY: sigaction is plain integers, so zeroes are a valid value: no flags, nothing blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // No SA_RESTART: the ioctl must return with EINTR.
    // SAFETY: the handler does one store, which is async-signal-safe; both pointers are valid.
    if unsafe { libc::sigaction(signal(), &raw const action, null_mut()) } != 0 {
        return Err(SysError::last("sigaction"));
    }
    Ok(())
}
