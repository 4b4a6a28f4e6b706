//! The second step: process 1 of the new namespaces. Makes the view, sets the limits, starts the program, and waits.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid, setsid};

use super::limits::{field, tasks_of};
use super::outer::map_users;
use super::{LATE, Plan, SIGNAL, landlock, sys, view};

pub(super) fn run(plan: &Plan) -> anyhow::Result<i32> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if plan.namespaces {
        // kill(0, …) in there reaches nobody outside.
        let _ = setsid();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .context("mount(MS_PRIVATE)")?;
        match &plan.view {
            Some(view) => {
                sys::loopback_up().context("cannot set up the loopback device")?;
                view::enter(view, plan.limits.unwrap_or_default().scratch)?;
            }
            None => view::mount_proc("/proc".as_ref())?,
        }
    } else {
        // Orphans become our children, which we then find and kill.
        prctl::set_child_subreaper(true)?;
    }
    let mut command = Command::new(&plan.program);
    command.args(&plan.arguments).env_clear().envs(&plan.variables).current_dir(&plan.folder);
    if let Some(limits) = &plan.limits {
        // In a user namespace only what is in it counts; so it is for a user that only this program has.
        let shared = !plan.namespaces && plan.user.is_none();
        limits.set(if shared { tasks_of(geteuid().as_raw()) } else { 0 })?;
    }
    if plan.namespaces && root_only_here() {
        drop_root()?;
    } else if let Some((uid, gid)) = plan.user {
        command.uid(uid).gid(gid);
    }
    // Nobody in there reads our memory or holds us up.
    prctl::set_dumpable(false)?;
    if let Some(view) = &plan.view {
        prctl::set_no_new_privs()?;
        if geteuid().is_root() {
            let kept: &[u32] = if plan.privileged { &[sys::CAP_PERFMON, sys::CAP_BPF] } else { &[] };
            sys::keep_capabilities(kept).context("prctl(PR_CAPBSET_DROP)")?;
        }
        if plan.landlock {
            landlock::restrict(view)?;
        }
        sys::deny_calls(plan).context("seccomp")?;
    }
    let child = command.spawn().with_context(|| format!("cannot run {}", plan.program.display()))?;
    let ended = wait(Pid::from_raw(child.id() as i32), Duration::from_secs(plan.seconds))?;
    if !plan.namespaces {
        kill_the_rest(plan.user.map(|(uid, _)| uid));
    }
    Ok(ended)
}

/// Whether we are root by a user namespace that `outer` made, and not of the machine.
fn root_only_here() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && map.split_whitespace().eq(["0", map.split_whitespace().nth(1).unwrap_or("0"), "1"])
}

/// Another user namespace, in which we are whom we were before the first: what is started then has no capability.
fn drop_root() -> anyhow::Result<()> {
    let map = |file: &str| -> anyhow::Result<u32> {
        let text = fs::read_to_string(file)?;
        Ok(text.split_whitespace().nth(1).context("an empty map")?.parse()?)
    };
    let (uid, gid) = (map("/proc/self/uid_map")?, map("/proc/self/gid_map")?);
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare(CLONE_NEWUSER), the second")?;
    map_users(uid, 0, gid, 0)
}

/// Waits for the program, and reaps whatever else ends.
fn wait(program: Pid, limit: Duration) -> anyhow::Result<i32> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return Ok(code.min(SIGNAL - 1)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => return Ok(SIGNAL + signal as i32),
            Ok(WaitStatus::StillAlive) if start.elapsed() > limit => {
                let _ = kill(program, Signal::SIGKILL);
                return Ok(LATE);
            }
            Ok(WaitStatus::StillAlive) => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
            Ok(_) | Err(Errno::EINTR) => (),
            Err(e) => return Err(e).context("waitpid"),
        }
    }
}

/// Without a PID namespace: kills all that descends from the program, until nothing does. What it started meanwhile has
/// become our child.
fn kill_the_rest(user: Option<u32>) {
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        let found = descendants(user);
        for pid in &found {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(s) if s != WaitStatus::StillAlive) {}
        if found.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Processes below us, or of the user that only this program has.
fn descendants(user: Option<u32>) -> Vec<i32> {
    let me = std::process::id() as i32;
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let theirs = user.is_some_and(|u| field(&status, "Uid:") == Some(u64::from(u)));
        if status.contains("State:\tZ") {
            continue;
        }
        parents.push((pid, field(&status, "PPid:").unwrap_or(0) as i32, theirs));
    }
    let mut found: Vec<i32> =
        parents.iter().filter(|(_, parent, theirs)| *parent == me || *theirs).map(|p| p.0).collect();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent, _)| *parent == pid).map(|p| p.0));
        found.sort_unstable();
        found.dedup();
        next += 1;
        if next > 100_000 {
            break;
        }
    }
    found
}
