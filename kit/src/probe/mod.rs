//! What this machine can do, found out by doing it.
//!
//! Each area *collects* [facts](Answers) by trying the thing itself (never by kernel version or CPU
//! flag), and *judges* them: a pure function from answers to [`Finding`]s, so that its judgement of
//! machines that are not at hand is tested by injected answers.
//!
//! A probe changes nothing, leaves nothing, takes milliseconds, and is given up after seconds. Where it
//! needs a process, it makes a child that does one thing and ends.
//!
//! ```
//! let clone3 = kit::probe::finding("clone3").expect("a name of NAMES");
//! assert!(clone3.works() || !clone3.evidence.is_empty());
//! ```

mod bpf;
mod cgroup;
mod core;
mod finding;
mod kvm;
mod machine;
mod process;
mod rseq;
mod tracing;
mod uring;

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

pub use self::finding::{Finding, Fix, Verdict};
use self::machine::Who;
use crate::SysError;

/// The answer to one question: a value, or the call that failed.
type Answer<T> = Result<T, SysError>;

/// An area's answers: nobody asked, it never came back, or what it found.
type Area<T> = Option<Answer<T>>;

/// Every name that a finding can have, in the order of a report.
///
/// These are the words for `needs` and `wants` in a lab's manifest.
pub const NAMES: [&str; 37] = [
    "kvm",
    "kvm.speed",
    "kvm.dirty_ring",
    "io_uring",
    "io_uring.sqpoll",
    "io_uring.defer_taskrun",
    "io_uring.buffer_ring",
    "io_uring.bundle",
    "clone3",
    "clone3.set_tid",
    "clone3.into_cgroup",
    "pidfd",
    "pidfd.info",
    "pidfd.getfd",
    "userns",
    "ptrace",
    "core_pattern",
    "rlimit_core",
    "coredump_socket",
    "rseq",
    "rseq.mm_cid",
    "rseq.slice",
    "membarrier.rseq",
    "bpf",
    "bpf.raw_tp",
    "bpf.tp_btf",
    "bpf.fentry",
    "bpf.kprobe",
    "bpf.uprobe",
    "btf",
    "tracefs",
    "perf_event",
    "perf_event.hw",
    "cgroup2",
    "cgroup1",
    "lockdown",
    "caps",
];

/// The finding on how noisy the machine is: no lab needs it, and it takes a tenth of a second.
pub const NOISE: &str = "noise";

/// What the machine answered, before anybody judges it.
#[derive(Debug, Default)]
pub struct Answers {
    who: Who,
    kvm: Area<kvm::Kvm>,
    uring: Area<uring::Uring>,
    process: Area<process::Process>,
    core: Area<core::Core>,
    rseq: Area<rseq::Rseq>,
    bpf: Area<bpf::Bpf>,
    tracing: Area<tracing::Tracing>,
    cgroup: Area<cgroup::Cgroup>,
    noise: Area<machine::Noise>,
}

/// Asks what the findings of `names` need to know, and nothing else; areas side by side, noise alone.
pub fn collect(names: &[&str]) -> Answers {
    let wanted = |area: &[&str]| names.iter().any(|n| area.contains(n));
    let with_uprobe = names.contains(&"bpf.uprobe");
    let kvm = start(wanted(&kvm::NAMES), kvm::Kvm::collect);
    let uring = start(wanted(&uring::NAMES), uring::Uring::collect);
    let process = start(wanted(&process::NAMES), process::Process::collect);
    let core = start(wanted(&core::NAMES), core::Core::collect);
    let rseq = start(wanted(&rseq::NAMES), rseq::Rseq::collect);
    let bpf = start(wanted(&bpf::NAMES), move || bpf::Bpf::collect(with_uprobe));
    let tracing = start(wanted(&tracing::NAMES), tracing::Tracing::collect);
    let cgroup = start(wanted(&cgroup::NAMES), cgroup::Cgroup::collect);
    Answers {
        who: Who::collect(),
        kvm: finish(kvm),
        uring: finish(uring),
        process: finish(process),
        core: finish(core),
        rseq: finish(rseq),
        bpf: finish(bpf),
        tracing: finish(tracing),
        cgroup: finish(cgroup),
        noise: finish(start(wanted(&[NOISE]), machine::Noise::collect)),
    }
}

/// What the answers mean, in the order of [`NAMES`]; noise last. Pure.
pub fn judge(answers: &Answers) -> Vec<Finding> {
    let Answers { who, kvm, uring, process, core, rseq, bpf, tracing, cgroup, noise } = answers;
    let mut findings = Vec::new();
    findings.extend(area(kvm, &kvm::NAMES, |a| a.judge(who)));
    findings.extend(area(uring, &uring::NAMES, |a| a.judge(who)));
    findings.extend(area(process, &process::NAMES, |a| a.judge(who)));
    findings.extend(area(core, &core::NAMES, |a| a.judge(who)));
    findings.extend(area(rseq, &rseq::NAMES, |a| a.judge(who)));
    findings.extend(area(bpf, &bpf::NAMES, |a| a.judge(who)));
    findings.extend(area(tracing, &tracing::NAMES, |a| a.judge(who)));
    findings.extend(area(cgroup, &cgroup::NAMES, |a| a.judge(who)));
    findings.extend(who.judge());
    findings.extend(area(noise, &[NOISE], |a| vec![a.judge()]));
    findings
}

/// The findings of `names`, in the order of [`NAMES`]; names that there are not are left out.
pub fn findings(names: &[&str]) -> Vec<Finding> {
    let mut found = judge(&collect(names));
    found.retain(|f| names.contains(&f.name));
    found
}

/// One finding; `None` if there is none of that name.
///
/// Costs only the probes of its area: milliseconds.
pub fn finding(name: &str) -> Option<Finding> {
    findings(&[name]).pop()
}

/// Every finding, noise included.
pub fn all() -> Vec<Finding> {
    let mut names = NAMES.to_vec();
    names.push(NOISE);
    findings(&names)
}

/// How long an area's probes may take; they take milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// Runs `collect`, if it is wanted, on a thread of its own.
fn start<T: Send + 'static>(
    wanted: bool,
    collect: impl FnOnce() -> T + Send + 'static,
) -> Option<Receiver<T>> {
    let (answer, answers) = mpsc::sync_channel(1);
    wanted.then(|| {
        thread::spawn(move || answer.send(collect()));
        answers
    })
}

/// Waits for an area's answers, and gives up after [`DEADLINE`].
fn finish<T>(area: Option<Receiver<T>>) -> Area<T> {
    let answers = area?;
    Some(answers.recv_timeout(DEADLINE).map_err(|_| SysError::new("probe", libc::ETIMEDOUT)))
}

/// Judges an area that answered; every one of its findings is a "no" if it never came back.
fn area<T>(area: &Area<T>, names: &[&'static str], judge: impl FnOnce(&T) -> Vec<Finding>) -> Vec<Finding> {
    match area {
        None => Vec::new(),
        Some(Ok(answers)) => judge(answers),
        Some(Err(e)) => {
            let hung = |name: &&'static str| {
                Finding::no(name, e, format!("the probe did not come back in {} s", DEADLINE.as_secs()))
            };
            names.iter().map(hung).collect()
        }
    }
}

#[cfg(test)]
mod tests;
