//! tracefs and perf events.

use std::io::Read as _;
use std::path::Path;

use super::machine::{Who, read_number};
use super::{Answer, Finding, Fix};
use crate::error::{Obstacle, SysError};
use crate::sys::bpf::perf_event;
use crate::sys::child::{Child, can_open, mount_private};

pub(super) const NAMES: [&str; 3] = ["tracefs", "perf_event", "perf_event.hw"];

#[derive(Debug)]
pub(super) struct Tracing {
    /// Reading a tracepoint's id where tracefs is mounted.
    pub(super) mounted: Answer<&'static str>,
    /// The same in a private mount.
    pub(super) private: Answer<()>,
    pub(super) software: Answer<()>,
    pub(super) hardware: Answer<u64>,
    /// kernel.perf_event_paranoid.
    pub(super) paranoid: Option<i64>,
}

const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

impl Tracing {
    pub(super) fn collect() -> Self {
        Self {
            mounted: mounted(),
            private: private(),
            software: perf_event(1, 0, None, 0, EXCLUDE_KERNEL).map(drop), // PERF_TYPE_SOFTWARE, cpu-clock
            hardware: count_cycles(),
            paranoid: read_number("/proc/sys/kernel/perf_event_paranoid"),
        }
    }
}

fn mounted() -> Answer<&'static str> {
    let read = |mount: &str| std::fs::read(Path::new(mount).join("events/sched/sched_switch/id"));
    if let Some(mount) = MOUNTS.into_iter().find(|m| read(m).is_ok()) {
        return Ok(mount);
    }
    let first = read(MOUNTS[0]).map(|_| MOUNTS[0]);
    first.map_err(SysError::io("open(\"/sys/kernel/tracing\")"))
}

/// Mounts it in a child's own mount namespace, which ends with the child.
fn private() -> Answer<()> {
    let child = Child::fork(|| match mount_private(c"tracefs", c"/sys/kernel") {
        0 => can_open(c"/sys/kernel/events/sched/sched_switch/id"),
        errno => errno,
    })?;
    match child.wait()? {
        0 => Ok(()),
        errno => Err(SysError::new("mount(tracefs)", i32::from(errno))),
    }
}

/// Bit 5 of perf_event_attr's flags: allowed to plain users more often.
const EXCLUDE_KERNEL: u64 = 1 << 5;

/// Counts this thread's CPU cycles for a moment.
pub(super) fn count_cycles() -> Answer<u64> {
    // PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES
    let mut counter = perf_event(0, 0, None, 0, EXCLUDE_KERNEL)?;
    (0..10_000u64).for_each(|i| {
        std::hint::black_box(i);
    });
    let mut count = [0; 8];
    counter.read_exact(&mut count).map_err(SysError::io("read(perf_event)"))?;
    match u64::from_ne_bytes(count) {
        0 => Err(SysError::new("the cycle counter stands still", 0)),
        cycles => Ok(cycles),
    }
}

impl Tracing {
    pub(super) fn judge(&self, who: &Who) -> Vec<Finding> {
        vec![self.judge_tracefs(who), self.judge_software(), self.judge_hardware()]
    }

    fn judge_tracefs(&self, who: &Who) -> Finding {
        let name = NAMES[0];
        let elevate = Fix::elevate("the lab's binary runs as root");
        match (&self.mounted, &self.private) {
            (Ok(mount), _) => Finding::ok(name, "read a tracepoint's id", *mount),
            (Err(e), Ok(())) => Finding::note(
                name,
                "not mounted; a private mount works",
                format!("{} = {}", e.call, e.symbol()),
            ),
            (Err(e), Err(private)) => {
                let cause = format!("and a private mount: {}", private.symbol());
                let finding = Finding::no(name, e, cause);
                if who.uid == 0 { finding } else { finding.with_fix(elevate) }
            }
        }
    }

    fn judge_software(&self) -> Finding {
        let name = NAMES[1];
        let paranoid =
            self.paranoid.map_or("no sysctl".to_owned(), |n| format!("kernel.perf_event_paranoid = {n}"));
        match &self.software {
            Ok(()) => Finding::ok(name, "opened cpu-clock on this thread", paranoid),
            Err(e) if e.kind() == Obstacle::Forbidden => Finding::no(name, e, paranoid).with_fix(Fix::root(
                "sudo sysctl kernel.perf_event_paranoid=1",
                "users may profile their own processes",
            )),
            Err(e) => Finding::no(name, e, "the kernel was built without it")
                .with_fix(Fix::kernel("a kernel with CONFIG_PERF_EVENTS")),
        }
    }

    fn judge_hardware(&self) -> Finding {
        let name = NAMES[2];
        match &self.hardware {
            Ok(cycles) => Finding::ok(name, "counted CPU cycles", format!("{cycles} for a short loop")),
            Err(e) if e.kind() == Obstacle::Forbidden => Finding::no(name, e, "kernel.perf_event_paranoid")
                .with_fix(Fix::root(
                    "sudo sysctl kernel.perf_event_paranoid=1",
                    "users may profile their own processes",
                )),
            Err(e) => Finding::no(name, e, "no counters: a virtual machine without a virtual PMU?").with_fix(
                Fix::root("on the host: give the VM a PMU (QEMU: -cpu host,pmu=on)", "").for_good(),
            ),
        }
    }
}
