//! Control groups: makes a child group and removes it, where we are in the hierarchy.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::Who;
use super::{Answer, Finding, Fix};
use crate::error::{Obstacle, SysError};

pub(super) const NAMES: [&str; 2] = ["cgroup2", "cgroup1"];

#[derive(Debug)]
pub(super) struct Cgroup {
    /// A group made below ours in the v2 hierarchy.
    pub(super) v2: Answer<Made>,
    /// The same in each mounted v1 hierarchy: its name and the answer.
    pub(super) v1: Vec<(String, Answer<()>)>,
}

/// What a new v2 group offers.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) parent: PathBuf,
    pub(super) controllers: String,
    /// Whether it has cgroup.kill (Linux 5.14) and cgroup.freeze (5.2).
    pub(super) kill: bool,
    pub(super) freeze: bool,
}

impl Cgroup {
    pub(super) fn collect() -> Self {
        let none = || SysError::new("find a cgroup2 mount", 0).with_detail("/proc/self/mountinfo has none");
        let v2 = own_v2_folder().ok_or_else(none).and_then(|parent| {
            let group = Group::make(&parent)?;
            let has = |file| group.0.join(file).exists();
            let controllers = fs::read_to_string(group.0.join("cgroup.controllers")).unwrap_or_default();
            let (kill, freeze) = (has("cgroup.kill"), has("cgroup.freeze"));
            drop(group);
            Ok(Made { controllers: controllers.trim().to_owned(), kill, freeze, parent })
        });
        let v1 = mounts("cgroup").into_iter().filter_map(|mount| {
            let name = mount.file_name()?.to_str()?.to_owned();
            let parent = join(&mount, &own_path(Some(&name)).unwrap_or_default());
            Some((name, Group::make(&parent).map(drop)))
        });
        Self { v2, v1: v1.collect() }
    }
}

/// A cgroup that is removed on drop.
struct Group(PathBuf);

impl Group {
    fn make(parent: &Path) -> Answer<Self> {
        let path = parent.join(format!("benchtop-probe-{}", std::process::id()));
        fs::create_dir(&path).map_err(SysError::io("mkdir(cgroup)"))?;
        Ok(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Our own folder in the v2 hierarchy.
pub(super) fn own_v2_folder() -> Option<PathBuf> {
    let mount = mounts("cgroup2").into_iter().next()?;
    Some(join(&mount, &own_path(None)?))
}

fn join(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// Our path in the v1 hierarchy of a controller, or in v2: a line `id:controllers:path` of /proc/self/cgroup.
fn own_path(controller: Option<&str>) -> Option<String> {
    fs::read_to_string("/proc/self/cgroup").ok()?.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match controller {
            None => id == "0" && controllers.is_empty(),
            Some(c) => controllers.split(',').any(|name| name == c || name.strip_prefix("name=") == Some(c)),
        };
        ours.then(|| path.to_owned())
    })
}

/// Mount points of a file system type, from /proc/self/mountinfo.
fn mounts(kind: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == kind).then(|| PathBuf::from(left.split(' ').nth(4).unwrap_or_default()))
    };
    text.lines().filter_map(mount).collect()
}

/// A group of our own, from systemd.
pub(super) fn delegate() -> Fix {
    Fix::user("systemd-run --user --scope -p Delegate=yes cargo xtask run LAB")
}

/// The v2 hierarchy, where it is not mounted.
pub(super) fn mount() -> Fix {
    Fix::root("boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line", "").for_good()
}

impl Cgroup {
    pub(super) fn judge(&self, _who: &Who) -> Vec<Finding> {
        vec![self.judge_v2(), self.judge_v1()]
    }

    fn judge_v2(&self) -> Finding {
        let name = NAMES[0];
        match &self.v2 {
            Ok(made) => {
                let mut lacks = Vec::new();
                for (controller, what) in [("cpu", "cpu"), ("memory", "memory"), ("pids", "pids")] {
                    if !made.controllers.split(' ').any(|c| c == controller) {
                        lacks.push(what);
                    }
                }
                if !made.kill {
                    lacks.push("cgroup.kill (Linux 5.14)");
                }
                if !made.freeze {
                    lacks.push("cgroup.freeze (Linux 5.2)");
                }
                let place = made.parent.display().to_string();
                if lacks.is_empty() {
                    Finding::ok(name, format!("made a group, with {}", made.controllers), place)
                } else {
                    Finding::note(name, format!("made a group, without {}", lacks.join(", ")), place)
                }
            }
            Err(e) if e.kind() == Obstacle::Forbidden => {
                Finding::no(name, e, "the group that you are in is not yours").with_fix(delegate())
            }
            Err(e) if e.errno == 0 => {
                Finding::no(name, e, "not mounted, or a v1-only system").with_fix(mount())
            }
            Err(e) => Finding::no(name, e, e.detail.clone()),
        }
    }

    fn judge_v1(&self) -> Finding {
        let name = NAMES[1];
        let working: Vec<&str> = self.v1.iter().filter(|(_, a)| a.is_ok()).map(|(n, _)| n.as_str()).collect();
        match (working.as_slice(), self.v1.first()) {
            ([_, ..], _) => Finding::ok(name, format!("made a group in {}", working.join(", ")), ""),
            ([], Some((_, Err(e)))) => Finding::no(name, e, "v1 takes root"),
            _ => Finding::no(
                name,
                &SysError::new("no v1 hierarchy is mounted", 0),
                "usual today: v2 has it all",
            ),
        }
    }
}
