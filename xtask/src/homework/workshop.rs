//! What all building and judging is done with: the room, and the guard at its door.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::catalogue::{Exercise, Test};
use super::room::Room;
use super::sandbox::{self, Guard};

/// What takes capabilities on the machine itself.
pub(crate) const PRIVILEGED: [&str; 2] = ["bpf", "perf_event"];

/// Whether a test takes them.
pub(crate) fn is_privileged(test: &Test) -> bool {
    test.needs.iter().any(|n| PRIVILEGED.contains(&n.split('.').next().unwrap_or(n)))
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) room: Room,
    pub(crate) guard: Guard,
    /// Hidden tests, which go over the room's own.
    pub(crate) hidden: Option<PathBuf>,
    /// Seconds that rustc may take.
    pub(crate) compile_limit: u64,
    /// Findings of the doctor that are not given to tests, and why not.
    withheld: BTreeMap<&'static str, String>,
    /// Findings asked for: why something does not work here, if it does not.
    asked: Mutex<BTreeMap<String, Option<String>>>,
}

impl Workshop {
    /// For code of the user's own.
    pub(crate) fn own() -> anyhow::Result<Self> {
        Ok(Self::with(Room::open()?, Guard::own()))
    }

    /// For code of somebody else. `privileged`: tests that need it get the capabilities for BPF and perf events.
    pub(crate) fn closed(privileged: bool) -> anyhow::Result<Self> {
        Self::close(Room::open()?, privileged)
    }

    /// The same room, from now on for code of somebody else.
    pub(crate) fn closed_from_now(self, privileged: bool) -> anyhow::Result<Self> {
        Self::close(self.room, privileged)
    }

    fn close(room: Room, privileged: bool) -> anyhow::Result<Self> {
        // What is there to be built with: the guard is tried on it.
        std::fs::create_dir_all(room.target())?;
        let guard = Guard::closed(&room)?;
        let mut shop = Self::with(room, guard);
        if !privileged {
            for area in PRIVILEGED {
                let why = "a submission is not given the rights for it; --privileged does";
                shop.withheld.insert(area, why.to_owned());
            }
        }
        if let Some(device) = sandbox::device("kvm")
            && let Err(e) = shop.guard.opens(device)
        {
            shop.withheld.insert("kvm", format!("a submission cannot open it here: {e:#}"));
        }
        for area in ["cgroup1", "cgroup2", "core_pattern", "tracefs"] {
            shop.withheld.insert(area, "a submission does not reach it in the sandbox".to_owned());
        }
        Ok(shop)
    }

    fn with(room: Room, guard: Guard) -> Self {
        Self {
            room,
            guard,
            hidden: None,
            compile_limit: 300,
            withheld: BTreeMap::new(),
            asked: Mutex::default(),
        }
    }

    /// Why a test cannot be run here, if so.
    pub(crate) fn missing(&self, test: &Test) -> Option<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for need in &test.needs {
            let answer = asked.entry(need.clone()).or_insert_with(|| {
                let area = need.split('.').next().unwrap_or(need);
                self.withheld.get(area).cloned().or_else(|| why_not(need))
            });
            if let Some(why) = answer {
                return Some(format!("{need}: {why}"));
            }
        }
        None
    }

    /// The folder of hidden tests for an exercise, if there is one.
    pub(crate) fn overlay(&self, exercise: &Exercise) -> Option<PathBuf> {
        let hidden = self.hidden.as_ref()?;
        let own = hidden.join(&exercise.lab);
        [own, hidden.clone()].into_iter().find(|f| f.join(format!("{}.rs", exercise.id)).is_file())
    }
}

/// What the doctor says of something that does not work.
fn why_not(need: &str) -> Option<String> {
    let findings = kit::probe::findings(&[need]);
    let here: BTreeSet<_> = findings.iter().filter(|f| f.works()).map(|f| f.name).collect();
    if here.contains(need) {
        return None;
    }
    Some(
        findings
            .iter()
            .find(|f| f.name == need)
            .map_or_else(|| "the doctor does not know it".into(), |f| f.what.clone()),
    )
}
