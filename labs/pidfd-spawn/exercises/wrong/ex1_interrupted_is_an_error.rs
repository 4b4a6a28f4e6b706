//! Fails `all_are_started_and_reaped`: EINTR is taken for a failure.

use super::kernel::{End, Errno, Fd, Kernel, Ms, Signal};

/// What to do about a service.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// How often it is started again after it failed: ended by a signal, or with an exit code other than 0.
    pub restarts: u32,
}

/// A service and its process.
struct Unit {
    /// The handle, while it runs. Its number is nobody's business: it means nothing after the reaping.
    pidfd: Option<Fd>,
    restarts: u32,
    end: Option<End>,
}

/// Starts all services, and returns when all have ended for good.
pub fn supervise(
    kernel: &mut dyn Kernel,
    services: &[Service],
    grace: Ms,
) -> Result<Vec<Option<End>>, Errno> {
    // Blocked before there is anything to stop: whenever it comes from here on, it waits for us to read it.
    kernel.block_term();
    let term = kernel.term_fd()?;
    let mut units: Vec<Unit> =
        services.iter().map(|s| Unit { pidfd: None, restarts: s.restarts, end: None }).collect();
    let result = serve(kernel, term, &mut units, grace);
    if result.is_err() {
        end_all(kernel, &mut units);
    }
    kernel.close(term);
    result.map(|()| units.iter().map(|u| u.end).collect())
}

fn serve(kernel: &mut dyn Kernel, term: Fd, units: &mut [Unit], grace: Ms) -> Result<(), Errno> {
    for (i, unit) in units.iter_mut().enumerate() {
        unit.pidfd = Some(kernel.spawn(i)?.1);
    }
    let mut stopping = false;
    // A point in time, not a length: however often something else wakes us, it stays where it is.
    let mut deadline: Option<Ms> = None;
    loop {
        let mut fds: Vec<Fd> = units.iter().filter_map(|u| u.pidfd).collect();
        if fds.is_empty() {
            return Ok(());
        }
        if !stopping {
            fds.push(term);
        }
        let timeout = deadline.map(|at| at.saturating_sub(kernel.now()));
        let ready = kernel.poll(&fds, timeout)?;
        if ready.contains(&term) {
            kernel.read_term(term)?;
            stopping = true;
            deadline = Some(kernel.now() + grace);
            signal_all(kernel, units, Signal::Term);
        }
        for (i, unit) in units.iter_mut().enumerate() {
            let Some(pidfd) = unit.pidfd.filter(|fd| ready.contains(fd)) else { continue };
            let Some(end) = kernel.reap(pidfd)? else { continue };
            kernel.close(pidfd);
            (unit.pidfd, unit.end) = (None, Some(end));
            if !stopping && end != End::Exited(0) && unit.restarts > 0 {
                unit.restarts -= 1;
                unit.pidfd = Some(kernel.spawn(i)?.1);
            }
        }
        if deadline.is_some_and(|at| at <= kernel.now()) {
            signal_all(kernel, units, Signal::Kill);
            deadline = None;
        }
    }
}

fn signal_all(kernel: &mut dyn Kernel, units: &[Unit], signal: Signal) {
    for pidfd in units.iter().filter_map(|u| u.pidfd) {
        // Not reaped yet, so it is there; one that has ended takes no notice.
        let _ = kernel.pidfd_send_signal(pidfd, signal);
    }
}

/// Ends, reaps and closes, whatever the calls say.
fn end_all(kernel: &mut dyn Kernel, units: &mut [Unit]) {
    signal_all(kernel, units, Signal::Kill);
    for pidfd in units.iter_mut().filter_map(|u| u.pidfd.take()) {
        while let Ok(None) = kernel.reap(pidfd) {
            let _ = kernel.poll(&[pidfd], None);
        }
        kernel.close(pidfd);
    }
}
