//! What else the machine was doing while something was measured.

use std::fs;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long it is watched while we sleep, each time: some ticks of the kernel's accounting.
const WATCH: Duration = Duration::from_millis(60);

/// Below this share of the machine, nothing is said of noise, and every verdict stands.
pub const QUIET: f64 = 0.05;

/// What was seen around a measurement; shares are of all processors together, 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Noise {
    /// What other processes used while we slept: before, after, and between rounds.
    pub others: f64,
    /// What the hypervisor gave to others, of the time that we were measuring.
    pub steal: f64,
    /// Load average over one minute; it lags, and counts our own work as well.
    pub load: f64,
    /// The processors' frequencies in MHz, least and most seen; none where the kernel does not tell. Idle ones are slow:
    /// this is told, and nothing is concluded from it.
    pub mhz: Option<(f64, f64)>,
}

impl Noise {
    /// The share of the machine that others may have had, as far as it can have touched the costs: that of other
    /// processes not, where the costs are such that it cannot.
    pub fn share(&self, apart: bool) -> f64 {
        let share = if apart { self.steal } else { self.others + self.steal };
        share.clamp(0.0, 0.95)
    }

    /// In words: what there is to say of it.
    pub fn words(&self) -> String {
        let mut words = vec![
            format!("others {:.0} % of the CPUs", 100.0 * self.others),
            format!("steal {:.1} %", 100.0 * self.steal),
            format!("load {:.1}", self.load),
        ];
        if let Some((low, high)) = self.mhz {
            words.push(format!("{low:.0} to {high:.0} MHz"));
        }
        words.join(", ")
    }
}

/// Watches from its making to [`Watch::end`].
#[derive(Debug)]
pub struct Watch {
    began: Ticks,
    /// While we slept: all ticks, and the busy ones.
    slept: (u64, u64),
    mhz: Vec<f64>,
}

impl Watch {
    /// Begins.
    pub fn begin() -> Self {
        let mut watch = Self { began: Ticks::now(), slept: (0, 0), mhz: Vec::new() };
        watch.look();
        watch
    }

    /// Sleeps a little, and sees what is done meanwhile.
    pub fn look(&mut self) {
        let before = Ticks::now();
        thread::sleep(WATCH);
        let after = Ticks::now();
        let total = after.total.saturating_sub(before.total);
        self.slept.0 += total;
        self.slept.1 += total.saturating_sub(after.idle.saturating_sub(before.idle));
        self.mhz.extend(frequencies());
    }

    /// Ends.
    pub fn end(mut self) -> Noise {
        self.look();
        let (now, then) = (Ticks::now(), self.began);
        let total = now.total.saturating_sub(then.total).max(1) as f64;
        let least = self.mhz.iter().copied().reduce(f64::min);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Noise {
            others: self.slept.1 as f64 / self.slept.0.max(1) as f64,
            steal: now.steal.saturating_sub(then.steal) as f64 / total,
            load: load.split_whitespace().next().and_then(|l| l.parse().ok()).unwrap_or(0.0),
            mhz: least.zip(self.mhz.iter().copied().reduce(f64::max)),
        }
    }
}

/// The first line of /proc/stat (proc_stat(5)), in ticks since the boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ticks {
    total: u64,
    /// Idle, waiting for a disk, and given to others by the hypervisor, which is told apart.
    idle: u64,
    steal: u64,
}

impl Ticks {
    fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guest time is in user time already.
        let fields: Vec<u64> =
            line.split_whitespace().skip(1).take(8).map_while(|f| f.parse().ok()).collect();
        let at = |i: usize| fields.get(i).copied().unwrap_or(0);
        Self { total: fields.iter().sum(), idle: at(3) + at(4) + at(7), steal: at(7) }
    }
}

/// Current frequencies, MHz: cpufreq in sysfs; of a virtual machine none.
fn frequencies() -> Vec<f64> {
    let policies = fs::read_dir("/sys/devices/system/cpu/cpufreq").into_iter().flatten().flatten();
    policies
        .filter_map(|p| {
            fs::read_to_string(p.path().join("scaling_cur_freq")).ok()?.trim().parse::<f64>().ok()
        })
        .map(|khz| khz / 1e3)
        .collect()
}
