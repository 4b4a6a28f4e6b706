//! Who asks, what is locked, and how steady the machine is.

use std::fs;
use std::time::{Duration, Instant};

use super::{Finding, Fix};
use crate::SysError;
use crate::sys::child::{Child, mount_private, position};

/// Who asks: what decides between "forbidden" and "not there".
#[derive(Debug)]
pub(super) struct Who {
    pub(super) uid: u32,
    /// CapEff of /proc/self/status.
    pub(super) caps: u64,
    /// Seccomp of /proc/self/status: 0 off, 2 a filter.
    pub(super) seccomp: u64,
    pub(super) release: String,
    /// /sys/kernel/security/lockdown: `none [integrity] confidentiality`.
    pub(super) lockdown: Result<String, SysError>,
}

const CAP_SYS_PTRACE: u32 = 19;
pub(super) const CAP_SYS_ADMIN: u32 = 21;
pub(super) const CAP_PERFMON: u32 = 38;
pub(super) const CAP_BPF: u32 = 39;
const CAP_SYS_RESOURCE: u32 = 24;

/// Capabilities that some lab does something with.
const CAPS: [(u32, &str); 7] = [
    (5, "CAP_KILL"),
    (CAP_SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
    (23, "CAP_SYS_NICE"),
    (CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE"),
    (CAP_PERFMON, "CAP_PERFMON"),
    (CAP_BPF, "CAP_BPF"),
];

impl Default for Who {
    /// Root on a kernel that nothing is known of.
    fn default() -> Self {
        Self { uid: 0, caps: u64::MAX, seccomp: 0, release: String::new(), lockdown: Ok("[none]".into()) }
    }
}

impl Who {
    pub(super) fn collect() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("0").trim();
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            caps: u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0),
            seccomp: field("Seccomp:").parse().unwrap_or(0),
            release: read_trimmed("/proc/sys/kernel/osrelease").unwrap_or_default(),
            lockdown: lockdown(),
        }
    }

    pub(super) fn can(&self, cap: u32) -> bool {
        self.caps >> cap & 1 == 1
    }

    /// `none`, `integrity` or `confidentiality`, if known.
    pub(super) fn lockdown_mode(&self) -> Option<&str> {
        self.lockdown.as_ref().ok()?.split_once('[')?.1.split_once(']').map(|(mode, _)| mode)
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let lockdown = match (self.lockdown_mode(), &self.lockdown) {
            (Some("none"), _) => Finding::ok("lockdown", "off", LOCKDOWN),
            (Some(mode), _) => Finding::note(
                "lockdown",
                format!("{mode}: some tracing and bpf helpers are refused, also to root"),
                LOCKDOWN,
            ),
            (None, Err(why)) => Finding::note("lockdown", "cannot tell", why.to_string()),
            (None, Ok(text)) => Finding::note("lockdown", "cannot tell", text.clone()),
        };
        let missing: Vec<_> = CAPS.iter().filter(|(n, _)| !self.can(*n)).map(|(_, name)| *name).collect();
        let evidence = format!("uid {}, CapEff {:x}", self.uid, self.caps);
        let caps = if missing.is_empty() {
            Finding::ok("caps", "all that a lab uses", evidence)
        } else if self.can(CAP_SYS_ADMIN) {
            Finding::note("caps", format!("all but {}", missing.join(", ")), evidence)
        } else {
            let e = SysError::new("no CAP_SYS_ADMIN", 0);
            Finding::no("caps", &e, evidence)
                .with_fix(Fix::elevate("the lab's binary runs as root, cargo does not"))
        };
        vec![lockdown, caps]
    }
}

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// What the file says in each of the three modes.
const LOCKDOWN_MODES: [&str; 3] = [
    "[none] integrity confidentiality",
    "none [integrity] confidentiality",
    "none integrity [confidentiality]",
];

/// The file's text; where securityfs is not mounted, from a mount of a child's own.
fn lockdown() -> Result<String, SysError> {
    let not_there = match fs::read_to_string(LOCKDOWN) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(e) => SysError::io("open(\"/sys/kernel/security/lockdown\")")(e),
    };
    let child = Child::fork(|| {
        mount_private(c"securityfs", c"/sys/kernel");
        position(c"/sys/kernel/lockdown", b'[').unwrap_or(u8::MAX)
    })?;
    let bracket = usize::from(child.wait()?);
    let text = LOCKDOWN_MODES.iter().find(|text| text.find('[') == Some(bracket));
    text.map(|t| (*t).to_owned()).ok_or(not_there)
}

/// How steady the machine is.
#[derive(Debug)]
pub(super) struct Noise {
    pub(super) cpus: usize,
    /// One-minute load average.
    pub(super) load: f64,
    /// Share of the last tenth of a second that the hypervisor took, 0 to 1.
    pub(super) steal: f64,
    /// The same piece of work many times: median and 99th percentile in microseconds.
    pub(super) spin_us: (f64, f64),
    pub(super) hardware_counters: bool,
    pub(super) governor: Option<String>,
    /// The CPU says that it is virtual.
    pub(super) hypervisor: bool,
}

impl Noise {
    pub(super) fn collect() -> Self {
        let before = cpu_ticks();
        let spin_us = spin(Duration::from_millis(100));
        let after = cpu_ticks();
        let all = after.0.saturating_sub(before.0).max(1);
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load: read_trimmed("/proc/loadavg")
                .and_then(|l| l.split(' ').next()?.parse().ok())
                .unwrap_or(f64::NAN),
            steal: after.1.saturating_sub(before.1) as f64 / all as f64,
            spin_us,
            hardware_counters: super::tracing::count_cycles().is_ok(),
            governor: read_trimmed("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            hypervisor: fs::read_to_string("/proc/cpuinfo")
                .is_ok_and(|text| text.split_whitespace().any(|word| word == "hypervisor")),
        }
    }

    pub(super) fn judge(&self) -> Finding {
        let busy = self.load > 0.5 * self.cpus as f64;
        let (median, p99) = self.spin_us;
        let wobble = p99 / median;
        let mut facts = vec![format!("{} CPUs", self.cpus), format!("load {:.1}", self.load)];
        facts.push(format!("steal {:.0} %", self.steal * 100.0));
        if self.hypervisor {
            facts.push("virtualised".into());
        }
        if !self.hardware_counters {
            facts.push("no hardware counters".into());
        }
        if let Some(governor) = &self.governor {
            facts.push(format!("governor {governor}"));
        }
        facts.push(format!("the same work takes {median:.0} to {p99:.0} us"));
        let steady_clock = self.governor.as_deref().is_none_or(|g| g == "performance");
        let quiet = !busy && self.steal < 0.01 && wobble < 1.1;
        match (quiet, self.hypervisor || !steady_clock) {
            (true, false) => Finding::ok(super::NOISE, facts.join(", "), "fine for absolute times"),
            (true, true) => {
                Finding::note(super::NOISE, facts.join(", "), "fine for ratios, not for absolute times")
            }
            (false, _) => {
                Finding::note(super::NOISE, facts.join(", "), "noisy: trust only ratios of interleaved runs")
            }
        }
    }
}

/// All ticks and stolen ticks of all CPUs, from /proc/stat.
fn cpu_ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> =
        stat.lines().next().unwrap_or_default().split(' ').filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal (guest time is in user already)
    (ticks.iter().take(8).sum(), ticks.get(7).copied().unwrap_or(0))
}

/// Median and 99th percentile in microseconds of one small piece of work, repeated for `time`.
fn spin(time: Duration) -> (f64, f64) {
    let mut samples = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let start = Instant::now();
        let mut x = 1u64;
        for i in 0..20_000u64 {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(i));
        }
        samples.push(start.elapsed().as_secs_f64() * 1e6);
    }
    samples.sort_by(f64::total_cmp);
    (samples[samples.len() / 2], samples[samples.len() * 99 / 100])
}

pub(super) fn read_trimmed(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
}

pub(super) fn read_number(path: &str) -> Option<i64> {
    read_trimmed(path)?.parse().ok()
}

pub(super) fn group_name(gid: u32) -> String {
    let group = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(gid));
    group.ok().flatten().map_or_else(|| format!("gid {gid}"), |g| g.name)
}
