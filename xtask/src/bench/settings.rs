//! What of the machine and the tools can matter for a figure, besides what its fingerprint has.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// By name; what is not there is left out.
pub(super) fn all() -> BTreeMap<String, String> {
    let read = |path: &str| Some(fs::read_to_string(path).ok()?.trim().to_owned());
    let mut all = BTreeMap::new();
    let files = [
        ("clock source", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        ("huge pages", "/sys/kernel/mm/transparent_hugepage/enabled"),
        ("SMT", "/sys/devices/system/cpu/smt/control"),
        ("frequency driver", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
        ("turbo off", "/sys/devices/system/cpu/intel_pstate/no_turbo"),
        ("ASLR", "/proc/sys/kernel/randomize_va_space"),
        ("BPF JIT", "/proc/sys/net/core/bpf_jit_enable"),
        ("real-time limit", "/proc/sys/kernel/sched_rt_runtime_us"),
    ];
    for (name, path) in files {
        all.extend(read(path).map(|value| (name.to_owned(), value)));
    }
    let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
    let microcode = cpuinfo.lines().find_map(|l| l.strip_prefix("microcode")?.split_once(": "));
    all.extend(microcode.map(|(_, m)| ("microcode".to_owned(), m.to_owned())));
    let up = read("/proc/uptime").and_then(|u| u.split('.').next()?.parse::<u64>().ok());
    all.extend(up.map(|s| ("up for".to_owned(), format!("{} min", s / 60))));
    let mitigations = mitigations();
    if !mitigations.is_empty() {
        all.insert("mitigations".into(), mitigations);
    }
    all.extend(rustc().map(|v| ("compiler".to_owned(), v)));
    all
}

/// What makes system calls and switches dearer: mitigations in force, by the kernel's word.
fn mitigations() -> String {
    let files = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let mut all: Vec<String> = files
        .filter_map(|f| {
            let text = fs::read_to_string(f.path()).ok()?;
            let how = text.trim().strip_prefix("Mitigation: ")?.split(';').next()?.to_owned();
            Some(format!("{} ({how})", f.file_name().to_string_lossy()))
        })
        .collect();
    all.sort();
    all.join(", ")
}

/// The compiler's version, with its commit.
pub(super) fn rustc() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).arg("--version").current_dir(crate::paths::root()).output().ok()?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned()).filter(|v| !v.is_empty())
}
