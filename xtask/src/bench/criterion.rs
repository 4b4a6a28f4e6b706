//! What Criterion has left in `target/criterion`: medians with their intervals.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use benches::record::Part;
use serde::Deserialize;

use crate::paths;

/// `new/benchmark.json`
#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Option<serde_json::Value>,
}

/// `new/estimates.json`, in ns.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// Where it keeps its files, for itself and for us.
pub(super) fn home() -> PathBuf {
    paths::root().join("target/criterion")
}

/// What was written since, by name.
pub(super) fn since(start: SystemTime) -> Vec<Part> {
    let mut parts = Vec::new();
    collect(&home(), start, &mut parts);
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    parts
}

/// Criterion nests folders by group, function and parameter; `new` holds the latest figures.
fn collect(folder: &Path, start: SystemTime, parts: &mut Vec<Part>) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
        if !path.is_dir() {
            continue;
        }
        if path.file_name().is_some_and(|n| n == "new") {
            parts.extend(read(&path, start));
        } else {
            collect(&path, start, parts);
        }
    }
}

fn read(folder: &Path, start: SystemTime) -> Option<Part> {
    let estimates = folder.join("estimates.json");
    if fs::metadata(&estimates).ok()?.modified().ok()? < start {
        return None;
    }
    let benchmark = fs::read_to_string(folder.join("benchmark.json")).ok()?;
    part(&benchmark, &fs::read_to_string(estimates).ok()?)
}

fn part(benchmark: &str, estimates: &str) -> Option<Part> {
    let Benchmark { full_id, throughput } = serde_json::from_str(benchmark).ok()?;
    let Estimates { median } = serde_json::from_str(estimates).ok()?;
    let throughput = throughput.as_ref().and_then(|t| {
        let (unit, amount) = t.as_object()?.iter().next()?;
        let unit = if unit.starts_with("Bytes") { "B" } else { "elements" };
        Some((amount.as_f64()?, unit.to_owned()))
    });
    let Interval { lower_bound: low, upper_bound: high } = median.confidence_interval;
    Some(Part { name: full_id, ns: median.point_estimate, low, high, throughput })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_criterion_are_read() {
        let benchmark = r#"{"group_id":"a","function_id":"b","value_str":null,"throughput":{"Bytes":64},
            "full_id":"a/b","directory_name":"a/b","title":"a/b"}"#;
        let estimates = r#"{"median":{"confidence_interval":{"confidence_level":0.95,"lower_bound":1.5,
            "upper_bound":2.5},"point_estimate":2.0,"standard_error":0.1}}"#;
        let expected =
            Part { name: "a/b".into(), ns: 2.0, low: 1.5, high: 2.5, throughput: Some((64.0, "B".into())) };
        assert_eq!(part(benchmark, estimates), Some(expected));
        assert_eq!(part("{}", estimates), None);
    }
}
