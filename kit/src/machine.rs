//! Where a run was made: what a reader needs to judge its figures.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys;

/// A machine's fingerprint. What could not be found out is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// Architecture, as `uname -m`.
    pub arch: String,
    /// The processor's name, from /proc/cpuinfo.
    pub cpu: String,
    /// Processors that this process may run on: sched_getaffinity(2).
    pub cpus: usize,
    /// The hypervisor's signature from CPUID leaf 0x4000_0000, where the processor says that it is virtual;
    /// empty on bare metal.
    pub hypervisor: String,
    /// C library and version.
    pub libc: String,
    /// Frequency governor of the first processor, from cpufreq in sysfs.
    pub governor: String,
    /// Load average over one minute when the run began.
    pub load: f64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Git revision that is checked out where the sources are, when the run is made.
    pub revision: String,
}

impl Machine {
    /// What uname(2) and sched_getaffinity(2) tell, a microsecond's work: for runs whose own time is the point.
    pub fn brief() -> Self {
        let (kernel, arch) = sys::uname();
        Self { kernel, arch, cpus: sys::cpus(), ..Self::default() }
    }

    /// The whole fingerprint. `sources` is a folder inside the checkout.
    pub fn fingerprint(sources: impl AsRef<Path>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let first_word = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
        Self {
            cpu: cpu_model(&read("/proc/cpuinfo")),
            hypervisor: sys::hypervisor(),
            libc: sys::libc_version(),
            governor: first_word(read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            load: first_word(read("/proc/loadavg")).parse().unwrap_or(0.0),
            memory_mib: memory_kib(&read("/proc/meminfo")) / 1024,
            revision: revision(sources.as_ref()),
            ..Self::brief()
        }
    }

    /// One line, as every run begins.
    pub fn line(&self) -> String {
        let mut parts = vec![format!("Linux {}", short_release(&self.kernel)), self.arch.clone()];
        let cpus = format!("{} CPU{}", self.cpus, if self.cpus == 1 { "" } else { "s" });
        parts.push(match self.hypervisor.as_str() {
            "" => cpus,
            name => format!("{cpus}, virtualised ({name})"),
        });
        parts.extend([self.governor.clone()].into_iter().filter(|g| !g.is_empty()));
        parts.join(" · ")
    }

    /// Whether figures of the two can be compared: same kernel, processor and number of processors.
    pub fn like(&self, other: &Self) -> bool {
        self.kernel == other.kernel && self.cpu == other.cpu && self.cpus == other.cpus
    }
}

/// `6.18.44-generic` → `6.18.44`: a distribution's suffix says nothing to the back row.
fn short_release(release: &str) -> &str {
    release.split(['-', '+']).next().unwrap_or(release)
}

/// The processor's name in the text of /proc/cpuinfo; `model name` on x86, `CPU part` and others elsewhere.
fn cpu_model(cpuinfo: &str) -> String {
    ["model name", "Model", "cpu model", "uarch", "CPU part"]
        .iter()
        .find_map(|key| {
            cpuinfo.lines().find_map(|l| {
                let (k, v) = l.split_once(':')?;
                (k.trim() == *key).then(|| v.trim().to_owned())
            })
        })
        .unwrap_or_default()
}

fn memory_kib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    total.and_then(|t| t.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The checked-out commit, read from `.git` (gitrepository-layout(5)) without starting git. Twelve digits;
/// whether the tree has edits is not known this way, so nothing is said of that.
fn revision(sources: &Path) -> String {
    let find = || {
        let top = sources.ancestors().find(|d| d.join(".git").exists())?;
        let mut git = top.join(".git");
        if let Ok(link) = fs::read_to_string(&git) {
            // A linked worktree or submodule: `.git` is a file that names the folder.
            git = top.join(link.strip_prefix("gitdir:")?.trim());
        }
        let head = fs::read_to_string(git.join("HEAD")).ok()?;
        let Some(name) = head.trim().strip_prefix("ref: ") else { return Some(head) };
        let common = match fs::read_to_string(git.join("commondir")) {
            Ok(dir) => git.join(dir.trim()),
            Err(_) => git,
        };
        fs::read_to_string(common.join(name)).ok().or_else(|| {
            let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
            packed.lines().find_map(|l| l.strip_suffix(name).map(str::to_owned))
        })
    };
    find().map(|r| r.trim().chars().take(12).collect()).unwrap_or_default()
}

/// A day, as ISO 8601 writes it, of seconds since 1970: days to civil date by Howard Hinnant's algorithm
/// (chrono-Compatible Low-Level Date Algorithms).
pub fn date(seconds: u64) -> String {
    let days = (seconds / 86400) as i64 + 719_468;
    let era = days / 146_097;
    let day_of_era = days - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        // Oracle: date -u -d @N +%F
        let cases = [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (951_868_800, "2000-03-01")];
        for (seconds, day) in
            cases.into_iter().chain([(1_798_761_599, "2026-12-31"), (4_107_542_400, "2100-03-01")])
        {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn this_machine_has_a_fingerprint() {
        let m = Machine::fingerprint(env!("CARGO_MANIFEST_DIR"));
        assert!(!m.kernel.is_empty() && m.cpus >= 1 && m.memory_mib > 0 && !m.libc.is_empty(), "{m:?}");
        assert!(m.like(&m));
    }

    #[test]
    fn cpu_name_is_found_on_x86_and_arm() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"), "Some CPU @ 2 GHz");
        assert_eq!(cpu_model("processor : 0\nCPU part : 0xd0c\n"), "0xd0c");
        assert_eq!(cpu_model(""), "");
    }

    #[test]
    fn the_line_names_kernel_and_processors() {
        let m = Machine { kernel: "6.18.3-foo".into(), arch: "x86_64".into(), cpus: 1, ..Machine::default() };
        assert_eq!(m.line(), "Linux 6.18.3 · x86_64 · 1 CPU");
    }

    #[test]
    fn revision_is_read_from_loose_and_packed_refs() {
        let dir = tempfile::tempdir().unwrap();
        let git = dir.path().join(".git");
        fs::create_dir(&git).unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(git.join("packed-refs"), "# pack-refs\n0123456789abcdef0123 refs/heads/main\n").unwrap();
        let inside = dir.path().join("labs");
        fs::create_dir(&inside).unwrap();
        assert_eq!(revision(&inside), "0123456789ab");
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        fs::write(git.join("refs/heads/main"), "fedcba9876543210\n").unwrap();
        assert_eq!(revision(&inside), "fedcba987654");
    }
}
