//! One thing that a machine can or cannot do.

use serde::Serialize;

use super::machine::Who;
use crate::SysError;

/// Whether it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It works.
    Ok,
    /// It works, and the reader should know something about how.
    Note,
    /// It does not work here.
    No,
}

/// A finding of the doctor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// One of [`NAMES`](super::NAMES), or `noise`.
    pub name: &'static str,
    /// Whether it works.
    pub verdict: Verdict,
    /// What was done and came of it: `created a VM, ran hlt`, or `open("/dev/kvm") = EACCES`.
    pub what: String,
    /// What shows it, and why it is so: a value, a path, a setting.
    pub evidence: String,
    /// The call that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The symbol of its errno.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// What to do about it, where something can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

/// How to make it work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What to type, or to do.
    pub command: String,
    /// Whether it takes root.
    pub root: bool,
    /// Whether it holds after a reboot.
    pub survives_reboot: bool,
    /// What it gives away; empty if nothing.
    pub security_cost: String,
}

impl Finding {
    /// It works.
    pub(super) fn ok(name: &'static str, what: impl Into<String>, evidence: impl Into<String>) -> Self {
        let (what, evidence) = (what.into(), evidence.into());
        Self { name, verdict: Verdict::Ok, what, evidence, call: None, errno: None, fix: None }
    }

    /// It works, but.
    pub(super) fn note(name: &'static str, what: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::ok(name, what, evidence) }
    }

    /// It does not work: the call that said so, and the likely cause.
    pub(super) fn no(name: &'static str, error: &SysError, cause: impl Into<String>) -> Self {
        let symbol = (error.errno != 0).then(|| error.symbol());
        let what = match &symbol {
            Some(symbol) => format!("{} = {symbol}", error.call),
            None if error.detail.is_empty() => error.call.to_string(),
            None => format!("{}: {}", error.call, error.detail),
        };
        Self {
            verdict: Verdict::No,
            call: Some(error.call.to_string()),
            errno: symbol,
            ..Self::ok(name, what, cause)
        }
    }

    /// The kernel has not got it; the first one that has.
    pub(super) fn old(name: &'static str, error: &SysError, since: &str) -> Self {
        // A seccomp filter may answer ENOSYS, so that programs fall back as on an old kernel.
        let or = if error.errno == libc::ENOSYS { ", or a filter hides it" } else { "" };
        Self::no(name, error, format!("needs Linux {since}{or}"))
            .with_fix(Fix::kernel(&format!("Linux {since} or newer")))
    }

    /// Forbidden, where only a seccomp filter can have forbidden it.
    pub(super) fn filtered(name: &'static str, error: &SysError, who: &Who) -> Self {
        let fix = Fix::user("run it outside the container, or with --security-opt seccomp=unconfined");
        let cost = "the container's filter is off".to_owned();
        Self::no(name, error, format!("a seccomp filter, it seems (Seccomp: {})", who.seccomp))
            .with_fix(Fix { security_cost: cost, ..fix })
    }

    /// The same, with what to do about it.
    pub(super) fn with_fix(mut self, fix: Fix) -> Self {
        self.fix = Some(fix);
        self
    }

    /// Whether a lab can use it.
    pub fn works(&self) -> bool {
        self.verdict != Verdict::No
    }
}

impl Fix {
    /// A command for root that holds until reboot.
    pub(super) fn root(command: impl Into<String>, security_cost: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            root: true,
            survives_reboot: false,
            security_cost: security_cost.into(),
        }
    }

    /// The lab's binary, and only that, by sudo; for one run.
    pub(super) fn elevate(security_cost: &str) -> Self {
        Self::root("cargo xtask run LAB --elevate", security_cost)
    }

    /// Another kernel.
    pub(super) fn kernel(which: &str) -> Self {
        Self {
            survives_reboot: true,
            ..Self::root(format!("boot {which}; there is nothing to set on this one"), "")
        }
    }

    /// Something that anyone can do, for one shell or one run.
    pub(super) fn user(command: impl Into<String>) -> Self {
        Self { root: false, ..Self::root(command, "") }
    }

    /// The same, but lasting.
    pub(super) fn for_good(mut self) -> Self {
        self.survives_reboot = true;
        self
    }
}

impl std::fmt::Display for Fix {
    /// `sudo modprobe kvm_intel (root; until reboot; lets you run VMs)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let root = if self.root { "root" } else { "no root needed" };
        let lasts = if self.survives_reboot { "survives reboot" } else { "until reboot" };
        write!(f, "{} ({root}; {lasts}", self.command)?;
        if !self.security_cost.is_empty() {
            write!(f, "; {}", self.security_cost)?;
        }
        write!(f, ")")
    }
}
