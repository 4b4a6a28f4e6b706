//! BPF: loads a program that returns 0, as each kind that a lab uses, and attaches it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use super::machine::{CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, Who, read_number};
use super::{Answer, Finding, Fix};
use crate::error::{Obstacle, SysError};
use crate::sys::bpf;

pub(super) const NAMES: [&str; 7] =
    ["bpf", "bpf.raw_tp", "bpf.tp_btf", "bpf.fentry", "bpf.kprobe", UPROBE, "btf"];
const UPROBE: &str = "bpf.uprobe";

#[derive(Debug)]
pub(super) struct Bpf {
    pub(super) load: Answer<()>,
    pub(super) raw_tp: Answer<()>,
    pub(super) tp_btf: Answer<()>,
    pub(super) fentry: Answer<()>,
    pub(super) kprobe: Answer<()>,
    /// Asked only if wanted: taking a uprobe back waits a tenth of a second for an RCU grace period.
    pub(super) uprobe: Option<Answer<()>>,
    /// Bytes of /sys/kernel/btf/vmlinux.
    pub(super) btf: Answer<usize>,
    /// kernel.unprivileged_bpf_disabled.
    pub(super) unprivileged_disabled: Option<i64>,
}

// enum bpf_prog_type and enum bpf_attach_type
const SOCKET_FILTER: u32 = 1;
const KPROBE: u32 = 2;
const RAW_TRACEPOINT: u32 = 17;
const TRACING: u32 = 26;
const TRACE_RAW_TP: u32 = 23;
const TRACE_FENTRY: u32 = 24;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

impl Bpf {
    pub(super) fn collect(with_uprobe: bool) -> Self {
        let btf = read_btf();
        let id = |kind, name| match &btf {
            Ok(bytes) => find(bytes, kind, name)
                .ok_or_else(|| SysError::new("look up in BTF", libc::ENOENT).with_detail(name)),
            Err(e) => Err(e.clone()),
        };
        let traced = |attach_type, id: Answer<u32>| {
            let program = bpf::load(TRACING, attach_type, id?)?;
            bpf::attach(program.as_fd(), None).map(drop)
        };
        Self {
            load: bpf::load(SOCKET_FILTER, 0, 0).map(drop),
            raw_tp: raw_tp(),
            tp_btf: traced(TRACE_RAW_TP, id(KIND_TYPEDEF, "btf_trace_sched_switch")),
            // A function that exists to be attached to, and that nothing calls.
            fentry: traced(TRACE_FENTRY, id(KIND_FUNC, "bpf_fentry_test1")),
            kprobe: kprobe(),
            uprobe: with_uprobe.then(uprobe),
            btf: btf.as_ref().map(Vec::len).map_err(Clone::clone),
            unprivileged_disabled: read_number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        }
    }
}

fn raw_tp() -> Answer<()> {
    let program = bpf::load(RAW_TRACEPOINT, 0, 0)?;
    bpf::attach(program.as_fd(), Some(c"sched_switch")).map(drop)
}

fn kprobe() -> Answer<()> {
    let event = dynamic_event("kprobe", c"do_nanosleep", 0)?;
    bpf::set_bpf(&event, kprobe_program()?.as_fd())
}

/// On a function of our own, in our own process, never enabled.
fn uprobe() -> Answer<()> {
    let exe = std::env::current_exe().map_err(SysError::io("readlink(\"/proc/self/exe\")"))?;
    let path = CString::new(exe.into_os_string().into_vec()).expect("a path has no NUL");
    let offset = file_offset(uprobe as fn() -> Answer<()> as usize)
        .ok_or_else(|| SysError::new("/proc/self/maps", 0))?;
    let event = dynamic_event("uprobe", &path, offset)?;
    bpf::set_bpf(&event, kprobe_program()?.as_fd())
}

fn kprobe_program() -> Answer<OwnedFd> {
    bpf::load(KPROBE, 0, 0)
}

/// A disabled perf event of the dynamic PMU `kind`.
fn dynamic_event(kind: &'static str, name: &CStr, offset: u64) -> Answer<std::fs::File> {
    let path = format!("/sys/bus/event_source/devices/{kind}/type");
    let text = std::fs::read_to_string(&path).map_err(SysError::io(format!("open(\"{path}\")")))?;
    let number = text.trim().parse().map_err(|_| SysError::new(path, 0).with_detail(text.clone()))?;
    const DISABLED: u64 = 1;
    let event = bpf::perf_event(number, 0, Some(name), offset, DISABLED);
    event.map_err(|e| SysError { call: format!("perf_event_open({kind})").into(), ..e })
}

/// Where in its file the code at `address` of this process is.
fn file_offset(address: usize) -> Option<u64> {
    std::fs::read_to_string("/proc/self/maps").ok()?.lines().find_map(|line| {
        // start-end perms offset …
        let mut words = line.split(' ');
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |s: &str| u64::from_str_radix(s, 16).ok();
        let range = hex(start)?..hex(end)?;
        let offset = hex(words.nth(1)?)?;
        range.contains(&(address as u64)).then(|| address as u64 - range.start + offset)
    })
}

fn read_btf() -> Answer<Vec<u8>> {
    std::fs::read(VMLINUX).map_err(SysError::io("open(\"/sys/kernel/btf/vmlinux\")"))
}

const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;

/// The id of the type of `kind` called `name`; see Documentation/bpf/btf.rst.
fn find(btf: &[u8], kind: u32, name: &str) -> Option<u32> {
    let word = |at: usize| Some(u32::from_ne_bytes(btf.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let (header, type_off, type_len, str_off) = (word(4)?, word(8)?, word(12)?, word(16)?);
    if word(0)? & 0xffff != 0xeb9f {
        return None;
    }
    let strings = btf.get((header + str_off) as usize..)?;
    let mut at = (header + type_off) as usize;
    let end = at + type_len as usize;
    let mut id = 1;
    while at < end {
        // struct btf_type: name_off, info (vlen in 16 bits, kind in bits 24 to 28), size or type.
        let (name_off, info) = (word(at)? as usize, word(at + 4)?);
        let this = info >> 24 & 0x1f;
        if this == kind {
            let rest = strings.get(name_off..)?;
            if rest.get(..name.len()) == Some(name.as_bytes()) && rest.get(name.len()) == Some(&0) {
                return Some(id);
            }
        }
        at += 12 + extra(this, info as usize & 0xffff)?;
        id += 1;
    }
    None
}

/// Bytes that follow a btf_type of `kind` with `n` members.
fn extra(kind: u32, n: usize) -> Option<usize> {
    Some(match kind {
        // ptr, fwd, typedef, volatile, const, restrict, func, float, type_tag
        2 | 7..=12 | 16 | 18 => 0,
        1 | 14 | 17 => 4,          // int, var, decl_tag
        3 => 12,                   // array
        4 | 5 | 15 | 19 => 12 * n, // struct, union, datasec, enum64
        6 | 13 => 8 * n,           // enum, func_proto
        _ => return None,
    })
}

impl Bpf {
    pub(super) fn judge(&self, who: &Who) -> Vec<Finding> {
        let kind = |name, answer: &Answer<()>, did: &str| match answer {
            Ok(()) => Finding::ok(name, did, ""),
            Err(e) => self.cannot(name, e, who),
        };
        let btf = match &self.btf {
            Ok(bytes) => {
                Finding::ok(NAMES[6], format!("{:.1} MB of kernel types", *bytes as f64 / 1e6), VMLINUX)
            }
            Err(e) => Finding::no(NAMES[6], e, "the kernel was built without it")
                .with_fix(Fix::kernel("a kernel with CONFIG_DEBUG_INFO_BTF")),
        };
        let mut findings = vec![
            kind(NAMES[0], &self.load, "loaded a program"),
            kind(NAMES[1], &self.raw_tp, "attached to sched_switch"),
            kind(NAMES[2], &self.tp_btf, "attached to sched_switch by BTF"),
            kind(NAMES[3], &self.fentry, "attached to bpf_fentry_test1"),
            kind(NAMES[4], &self.kprobe, "attached to do_nanosleep"),
        ];
        findings.extend(
            self.uprobe.as_ref().map(|a| kind(NAMES[5], a, "attached to a function of this program")),
        );
        findings.push(btf);
        findings
    }

    fn cannot(&self, name: &'static str, e: &SysError, who: &Who) -> Finding {
        let log = |cause: String| match e.detail.lines().last() {
            _ if !e.call.contains("PROG_LOAD") => cause,
            None => format!("{cause}; empty verifier log"),
            Some(line) => format!("{cause}; verifier: {line}"),
        };
        match (e.kind(), who.lockdown_mode()) {
            (Obstacle::Forbidden, _) if !may(name, who) => {
                let takes = match self.unprivileged_disabled {
                    _ if name == UPROBE => {
                        "takes CAP_SYS_ADMIN: a breakpoint at the wrong place breaks a program \
                         (kernels before 2025 are content with CAP_BPF and CAP_PERFMON)"
                            .into()
                    }
                    Some(n) => {
                        format!("takes CAP_BPF and CAP_PERFMON (kernel.unprivileged_bpf_disabled = {n})")
                    }
                    None => "takes CAP_BPF and CAP_PERFMON".into(),
                };
                Finding::no(name, e, takes).with_fix(Fix::elevate("the lab's binary runs as root"))
            }
            (Obstacle::Forbidden, Some(mode)) if mode != "none" => {
                let fix = "boot with lockdown=none on the kernel's command line (not under Secure Boot)";
                Finding::no(name, e, log(format!("lockdown: {mode}")))
                    .with_fix(Fix::root(fix, "root can then change the running kernel").for_good())
            }
            (Obstacle::Forbidden, _) => {
                Finding::no(name, e, log("refused to root: lockdown, seccomp or a security module".into()))
            }
            (Obstacle::Absent, _) => {
                let cause = if e.detail.is_empty() { "the kernel was built without it" } else { &e.detail };
                Finding::no(name, e, cause).with_fix(Fix::kernel("a kernel that has it"))
            }
            _ => Finding::no(name, e, log("the kernel was built without it, or is too old".into()))
                .with_fix(Fix::kernel("a kernel that has it")),
        }
    }
}

/// Whether a program may be attached there for all that capabilities have to say. CAP_SYS_ADMIN includes the other two.
fn may(name: &str, who: &Who) -> bool {
    who.can(CAP_SYS_ADMIN) || name != UPROBE && who.can(CAP_BPF) && who.can(CAP_PERFMON)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF blob by hand: an int `a`, a typedef `b`, a func `b`.
    fn blob() -> Vec<u8> {
        let mut words = vec![0x0001_eb9f, 24, 0, 4 * 10, 40, 5];
        words.extend([1, 1 << 24, 4, 32]); // int a: four words
        words.extend([3, 8 << 24, 1]);
        words.extend([3, 12 << 24, 2]);
        let mut bytes: Vec<u8> = words.iter().flat_map(|w: &u32| w.to_ne_bytes()).collect();
        bytes.extend(b"\0a\0b\0");
        bytes
    }

    #[test]
    fn btf_names_are_found_by_kind() {
        assert_eq!(find(&blob(), KIND_TYPEDEF, "b"), Some(2));
        assert_eq!(find(&blob(), KIND_FUNC, "b"), Some(3));
        assert_eq!(find(&blob(), KIND_FUNC, "a"), None);
    }

    #[test]
    fn cut_btf_is_no_crash() {
        let whole = blob();
        for end in 0..whole.len() {
            let _ = find(&whole[..end], KIND_FUNC, "b");
        }
    }
}
