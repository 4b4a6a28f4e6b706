//! clone3, pidfd, user namespaces, ptrace: makes children that do nothing, and ends them.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};

use super::machine::{Who, read_number};
use super::{Answer, Finding, Fix};
use crate::error::{Obstacle, SysError};
use crate::sys::child::{Child, How, sleep_until_killed, unshare};
use crate::sys::pidfd;

pub(super) const NAMES: [&str; 8] = [
    "clone3",
    "clone3.set_tid",
    "clone3.into_cgroup",
    "pidfd",
    "pidfd.info",
    "pidfd.getfd",
    "userns",
    "ptrace",
];

#[derive(Debug)]
pub(super) struct Process {
    pub(super) clone3: Answer<()>,
    /// With a thread id of our choice here; else in a new user and PID namespace.
    pub(super) set_tid: Answer<()>,
    pub(super) set_tid_userns: Answer<()>,
    pub(super) into_cgroup: Answer<()>,
    pub(super) pidfd: Answer<()>,
    pub(super) pidfd_info: Answer<u64>,
    pub(super) pidfd_getfd: Answer<()>,
    /// A user namespace, and something that takes a capability in it.
    pub(super) userns: Answer<()>,
    pub(super) userns_caps: Answer<()>,
    pub(super) ptrace: Answer<()>,
    /// Settings that explain a refusal: Yama's ptrace_scope, user.max_user_namespaces, Debian's
    /// kernel.unprivileged_userns_clone, AppArmor's restriction.
    pub(super) ptrace_scope: Option<i64>,
    pub(super) max_user_namespaces: Option<i64>,
    pub(super) userns_clone: Option<i64>,
    pub(super) apparmor_userns: Option<i64>,
}

impl Process {
    pub(super) fn collect() -> Self {
        Self {
            clone3: clone3(How::default()),
            set_tid: set_tid(),
            set_tid_userns: clone3(How {
                flags: (libc::CLONE_NEWUSER | libc::CLONE_NEWPID) as u64,
                set_tid: Some(1),
                ..How::default()
            }),
            into_cgroup: into_cgroup(),
            pidfd: pidfd::open(pid()).and_then(|fd| pidfd::signal_0(fd.as_fd())),
            pidfd_info: pidfd::open(pid()).and_then(|fd| Ok(pidfd::info(fd.as_fd(), 0)?.0)),
            pidfd_getfd: pidfd_getfd(),
            userns: Child::fork(|| unshare(libc::CLONE_NEWUSER))
                .and_then(|c| exit_errno(c, "unshare(CLONE_NEWUSER)")),
            userns_caps: Child::fork(|| {
                unshare(libc::CLONE_NEWUSER);
                unshare(libc::CLONE_NEWNS)
            })
            .and_then(|c| exit_errno(c, "unshare(CLONE_NEWNS)")),
            ptrace: ptrace(),
            ptrace_scope: read_number("/proc/sys/kernel/yama/ptrace_scope"),
            max_user_namespaces: read_number("/proc/sys/user/max_user_namespaces"),
            userns_clone: read_number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_userns: read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        }
    }
}

fn pid() -> libc::pid_t {
    std::process::id() as libc::pid_t
}

/// A child's exit status as the errno of what it did.
fn exit_errno(child: Child, call: &'static str) -> Answer<()> {
    match child.wait()? {
        0 => Ok(()),
        errno => Err(SysError::new(call, i32::from(errno))),
    }
}

fn clone3(how: How<'_>) -> Answer<()> {
    let (child, _pidfd) = Child::clone3(how, || 0)?;
    child.wait().map(drop)
}

/// The id of a child that has just been reaped is free, unless somebody is quicker: then again.
fn set_tid() -> Answer<()> {
    let mut answer = Ok(());
    for _ in 0..5 {
        let (child, _pidfd) = Child::clone3(How::default(), || 0)?;
        let free = child.pid();
        child.wait()?;
        answer = clone3(How { set_tid: Some(free), ..How::default() });
        match &answer {
            Err(e) if e.errno == libc::EEXIST => (),
            _ => break,
        }
    }
    answer.map_err(|e| SysError { call: "clone3(set_tid)".into(), ..e })
}

fn into_cgroup() -> Answer<()> {
    let own = super::cgroup::own_v2_folder().ok_or_else(|| {
        SysError::new("find a cgroup2 mount", 0).with_detail("/proc/self/mountinfo has none")
    })?;
    let folder = File::open(own).map_err(SysError::io("open(cgroup)"))?;
    clone3(How { cgroup: Some(folder.as_fd()), ..How::default() })
        .map_err(|e| SysError { call: "clone3(CLONE_INTO_CGROUP)".into(), ..e })
}

/// Takes a descriptor from a child, which has it by inheritance.
fn pidfd_getfd() -> Answer<()> {
    let ours = File::open("/dev/null").map_err(SysError::io("open(\"/dev/null\")"))?;
    let child = Child::fork(sleep_until_killed)?;
    let pidfd = pidfd::open(child.pid())?;
    pidfd::getfd(pidfd.as_fd(), ours.as_raw_fd()).map(drop)
}

fn ptrace() -> Answer<()> {
    let mut child = Child::fork(sleep_until_killed)?;
    pidfd::seize_and_interrupt(child.pid())?;
    let status = child.wait_stop()?;
    if libc::WIFSTOPPED(status) {
        Ok(())
    } else {
        Err(SysError::new("ptrace(PTRACE_INTERRUPT)", 0).with_detail(format!("wait status {status:#x}")))
    }
}

impl Process {
    pub(super) fn judge(&self, who: &Who) -> Vec<Finding> {
        let cannot = |name, e: &SysError, since: &str| match e.kind() {
            Obstacle::Forbidden => Finding::filtered(name, e, who),
            _ => Finding::old(name, e, since),
        };
        let plain = |name, answer: &Answer<()>, did: &str, since: &str| match answer {
            Ok(()) => Finding::ok(name, did, ""),
            Err(e) => cannot(name, e, since),
        };
        let info = match &self.pidfd_info {
            Ok(mask) => Finding::ok(NAMES[4], "PIDFD_GET_INFO answers", format!("mask {mask:#x}")),
            Err(e) => cannot(NAMES[4], e, "6.13"),
        };
        vec![
            plain(NAMES[0], &self.clone3, "made a child with a pidfd", "5.3"),
            self.judge_set_tid(),
            self.judge_into_cgroup(),
            plain(NAMES[3], &self.pidfd, "opened one, sent signal 0", "5.3"),
            info,
            plain(NAMES[5], &self.pidfd_getfd, "took a descriptor from a child", "5.6"),
            self.judge_userns(who),
            self.judge_ptrace(who),
        ]
    }

    fn judge_set_tid(&self) -> Finding {
        let name = NAMES[1];
        match (&self.set_tid, &self.set_tid_userns) {
            (Ok(()), _) => Finding::ok(name, "made a child with a chosen PID", ""),
            (Err(e), Ok(())) => Finding::note(
                name,
                "a chosen PID only in a new user and PID namespace",
                format!("here {}: takes CAP_CHECKPOINT_RESTORE", e.symbol()),
            ),
            (Err(e), Err(_)) if e.kind() == Obstacle::Forbidden => {
                Finding::no(name, e, "takes CAP_CHECKPOINT_RESTORE, or a user namespace")
                    .with_fix(Fix::elevate("the lab's binary runs as root"))
            }
            (Err(e), Err(_)) => Finding::old(name, e, "5.5"),
        }
    }

    fn judge_into_cgroup(&self) -> Finding {
        let name = NAMES[2];
        match &self.into_cgroup {
            Ok(()) => Finding::ok(name, "made a child in a given cgroup", ""),
            Err(e) if e.kind() == Obstacle::Forbidden => {
                Finding::no(name, e, "the cgroup's cgroup.procs is not yours to write")
                    .with_fix(super::cgroup::delegate())
            }
            Err(e) if e.errno == libc::EBUSY => {
                Finding::no(name, e, "the cgroup hands controllers to its children, so it takes no processes")
                    .with_fix(super::cgroup::delegate())
            }
            Err(e) if e.errno == 0 => {
                Finding::no(name, e, "no cgroup2 mount").with_fix(super::cgroup::mount())
            }
            Err(e) => Finding::old(name, e, "5.7"),
        }
    }

    fn judge_userns(&self, who: &Who) -> Finding {
        let name = NAMES[6];
        let attack_surface = "users reach kernel code that only root reached";
        match (&self.userns, &self.userns_caps) {
            (Ok(()), Ok(())) => Finding::ok(name, "made one, with capabilities in it", ""),
            (Ok(()), Err(e)) => {
                let limit = if self.apparmor_userns == Some(1) {
                    "kernel.apparmor_restrict_unprivileged_userns = 1"
                } else {
                    "a security module takes the capabilities away"
                };
                Finding::no(name, e, limit).with_fix(Fix::root(
                    "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
                    attack_surface,
                ))
            }
            (Err(e), _) if self.userns_clone == Some(0) => {
                Finding::no(name, e, "kernel.unprivileged_userns_clone = 0")
                    .with_fix(Fix::root("sudo sysctl kernel.unprivileged_userns_clone=1", attack_surface))
            }
            (Err(e), _) if self.max_user_namespaces == Some(0) || e.errno == libc::ENOSPC => {
                Finding::no(name, e, "user.max_user_namespaces is used up or 0")
                    .with_fix(Fix::root("sudo sysctl user.max_user_namespaces=10000", attack_surface))
            }
            (Err(e), _) => {
                if e.kind() == Obstacle::Forbidden {
                    Finding::filtered(name, e, who)
                } else {
                    Finding::no(name, e, "the kernel has none")
                        .with_fix(Fix::kernel("a kernel with CONFIG_USER_NS"))
                }
            }
        }
    }

    fn judge_ptrace(&self, who: &Who) -> Finding {
        let name = NAMES[7];
        match (&self.ptrace, self.ptrace_scope) {
            (Ok(()), Some(n @ 1..)) => Finding::note(
                name,
                "seized a child; nobody else's processes",
                format!("kernel.yama.ptrace_scope = {n}"),
            ),
            (Ok(()), _) => Finding::ok(name, "seized a child and stopped it", ""),
            (Err(e), Some(3..)) => Finding::no(name, e, "kernel.yama.ptrace_scope = 3").with_fix(
                Fix::root(
                    "take 3 out of /etc/sysctl.d, and reboot: it cannot be lowered",
                    "a process may trace its own children",
                )
                .for_good(),
            ),
            (Err(e), Some(n @ 2)) => Finding::no(name, e, format!("kernel.yama.ptrace_scope = {n}"))
                .with_fix(Fix::root(
                    "sudo sysctl kernel.yama.ptrace_scope=1",
                    "a process may trace its own children",
                )),
            (Err(e), _) => Finding::filtered(name, e, who),
        }
    }
}
