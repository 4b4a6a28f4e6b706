//! The first step: new namespaces, which the child is then in.

use std::fs;
use std::process::Command;

use anyhow::Context as _;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid, setgid, setgroups, setuid};

use super::{BROKEN, OURSELVES, Plan, inner, sys};

pub(super) fn run(plan: &Plan, words: &str) -> anyhow::Result<i32> {
    sys::keep_descriptors();
    // Killed, the runner takes us along.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if plan.view.is_some() {
        sys::leave_terminal();
    }
    for file in &plan.cgroups {
        fs::write(file, std::process::id().to_string()).with_context(|| file.display().to_string())?;
    }
    if !plan.namespaces {
        return inner::run(plan);
    }
    let uid = geteuid();
    let mut flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    if plan.view.is_some() {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    }
    // Root in a container may lack the right, and still be allowed a user namespace.
    if !uid.is_root() || unshare(flags).is_err() {
        if let Some((user, group)) = plan.user {
            become_user(user, group)?;
        }
        let (uid, gid) = (geteuid(), getegid());
        unshare(flags | CloneFlags::CLONE_NEWUSER).context("unshare(CLONE_NEWUSER | …)")?;
        // Root in there, to mount; the program is ourselves again.
        map_users(0, uid.as_raw(), 0, gid.as_raw())?;
    }
    let mut child = Command::new(OURSELVES);
    child.args(["homework", "sandbox", words, "--inner"]);
    let status = child.status().context("cannot start process 1 of the sandbox")?;
    Ok(status.code().unwrap_or(BROKEN))
}

/// Nobody's root owns what a submission's root would be mapped to: the machine's root may write more than files.
fn become_user(user: u32, group: u32) -> anyhow::Result<()> {
    setgroups(&[]).context("setgroups")?;
    setgid(group.into()).context("setgid")?;
    setuid(user.into()).context("setuid")?;
    // Otherwise /proc/self still belongs to root.
    Ok(prctl::set_dumpable(true)?)
}

/// See user_namespaces(7).
pub(super) fn map_users(uid_in: u32, uid_out: u32, gid_in: u32, gid_out: u32) -> anyhow::Result<()> {
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{uid_in} {uid_out} 1")),
        ("gid_map", format!("{gid_in} {gid_out} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text).with_context(|| format!("write({path:?})"))?;
    }
    Ok(())
}
