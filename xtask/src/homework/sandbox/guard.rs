//! Which sandbox there is on this machine, found out by trying, and what it leaves open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kit::cleanup::{Deferred, defer};
use nix::unistd::geteuid;

use super::limits::Cgroups;
use super::{Limits, Plan, View, view};
use crate::homework::process::{Ended, Ran};
use crate::homework::room::Room;
use crate::report;

/// Slots that there are at most, in round numbers: one a CPU.
const MANY: u32 = 4096;

/// How far what is run is trusted, and what the machine has against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The user's own code: it may do what the user may, but nothing of it stays.
    Own { namespaces: bool },
    /// Somebody else's: namespaces, a view, seccomp, limits.
    Closed,
    /// Somebody else's, where namespaces are forbidden: Landlock if there is that, seccomp, limits.
    Ajar { landlock: bool },
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    kind: Kind,
    root: bool,
    cgroups: bool,
    limits: Limits,
    /// Why there are no namespaces, if there are none.
    why: String,
}

/// What to run, and what it is to see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Task {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) folder: PathBuf,
    pub(crate) seconds: u64,
    pub(crate) view: View,
    pub(crate) may_nest: bool,
    pub(crate) may_look: bool,
    /// With the capabilities for BPF and perf events, if we have them.
    pub(crate) privileged: bool,
    /// Which of the runs at the same time this is: each has its own user and cgroups.
    pub(crate) slot: usize,
}

/// The user of slot 0, where we are root; nobody else's, as the numbers of distributions end below.
const FIRST_USER: u32 = 61_200;

impl Guard {
    /// For code of the user's own.
    pub(crate) fn own() -> Self {
        let mut guard = Self::of(Kind::Own { namespaces: true });
        if let Err(e) = guard.works(None) {
            guard.kind = Kind::Own { namespaces: false };
            guard.why = format!("{e:#}");
        }
        guard
    }

    /// For code of somebody else, which is built and run in this room.
    ///
    /// # Errors
    ///
    /// None works, not the weakest.
    pub(crate) fn closed(room: &Room) -> anyhow::Result<Self> {
        let mut guard = Self::of(Kind::Closed);
        let probe = format!("benchtop-probe-{}", std::process::id());
        guard.cgroups = !Cgroups::make(&probe, &guard.limits).procs().is_empty();
        let Err(e) = guard.works(Some(room)) else { return Ok(guard) };
        guard.why = format!("{e:#}");
        let mut last = e;
        let users: &[bool] = if guard.root { &[true, false] } else { &[false] };
        for (root, landlock) in users.iter().flat_map(|r| [(*r, true), (*r, false)]) {
            (guard.root, guard.kind) = (root, Kind::Ajar { landlock });
            match guard.works(Some(room)) {
                Ok(()) => return Ok(guard),
                Err(e) => last = e,
            }
        }
        Err(last.context("no sandbox works here, not the weakest: nothing of somebody else's is run"))
    }

    fn of(kind: Kind) -> Self {
        let root = geteuid().is_root() && has_users();
        Self { kind, root, cgroups: false, limits: Limits::default(), why: String::new() }
    }

    /// Runs something harmless in it: of the room's, rustc.
    fn works(&self, room: Option<&Room>) -> anyhow::Result<()> {
        let mut task = Task { program: "/bin/sh".into(), folder: "/".into(), seconds: 20, ..Task::default() };
        task.arguments = ["-c", ":"].map(str::to_owned).into();
        if let Some(room) = room {
            task.program = room.rustc().to_owned();
            task.arguments = vec!["--version".into()];
            task.folder = room.root();
            task.view.read = vec![room.toolchain(), room.root(), room.target()];
        }
        let ran = self.run(&task, None)?;
        anyhow::ensure!(ran.ended == Ended::Exit(0), "{} {}", ran.ended, ran.stderr.trim());
        Ok(())
    }

    /// Whether what runs in it may open a device: here it may be for root alone.
    pub(crate) fn opens(&self, device: &Path) -> anyhow::Result<()> {
        let mut task = Task { program: "/bin/sh".into(), folder: "/".into(), seconds: 20, ..Task::default() };
        task.arguments = vec!["-c".into(), format!(": <>{}", device.display())];
        task.view.devices = vec![device.to_owned()];
        let ran = self.run(&task, None)?;
        anyhow::ensure!(ran.ended == Ended::Exit(0), "{}", ran.stderr.trim());
        Ok(())
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, task: &Task, secret: Option<&[u8]>) -> anyhow::Result<Ran> {
        let mut plan = Plan {
            program: task.program.clone(),
            arguments: task.arguments.clone(),
            folder: task.folder.clone(),
            seconds: task.seconds,
            may_nest: task.may_nest,
            may_look: task.may_look,
            privileged: task.privileged && self.root,
            ..Plan::default()
        };
        let Kind::Own { namespaces } = self.kind else {
            return self.run_closed(task, plan, secret);
        };
        plan.namespaces = namespaces;
        // As text: what is not text in the environment is not for us.
        plan.variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name != "BENCHTOP_REQUIRE")
            .chain(task.variables.clone())
            .collect();
        super::run(&plan, secret)
    }

    fn run_closed(&self, task: &Task, mut plan: Plan, secret: Option<&[u8]>) -> anyhow::Result<Ran> {
        let name = format!("benchtop-{}-{}", std::process::id(), task.slot);
        let cgroups = if self.cgroups { Cgroups::make(&name, &self.limits) } else { Cgroups::none() };
        plan.cgroups = cgroups.procs();
        plan.namespaces = self.kind == Kind::Closed;
        plan.landlock = self.kind == Kind::Ajar { landlock: true };
        plan.limits = Some(Limits { cpu: task.seconds * 4, ..self.limits });
        let mut view = task.view.clone();
        let fixed =
            [("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"), ("HOME", "/tmp"), ("TMPDIR", "/tmp")];
        plan.variables = fixed.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        plan.variables.extend(task.variables.clone());
        if self.root && !plan.privileged {
            let user = FIRST_USER + task.slot as u32;
            let group = view.devices.iter().find_map(|d| view::group_of(d)).unwrap_or(user);
            plan.user = Some((user, group));
        }
        let scratch = if plan.namespaces { None } else { Some(TempFolder::new(task.slot)?) };
        if let Some(TempFolder { path, .. }) = &scratch {
            plan.variables.insert("TMPDIR".into(), path.display().to_string());
            view.write.push(path.clone());
        }
        if let Some((user, group)) = plan.user {
            for folder in &view.write {
                std::os::unix::fs::chown(folder, Some(user), Some(group))?;
            }
        }
        plan.view = Some(view);
        super::run(&plan, secret)
    }

    /// Says it on standard error.
    pub(crate) fn tell(&self) {
        for words in self.words() {
            let text = words.trim_start();
            report::note(report::hanging(&words[..words.len() - text.len()], text).trim_end());
        }
    }

    /// What a grader must know: how it is closed, and what it leaves open.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        match self.kind {
            Kind::Own { namespaces: true } => (),
            Kind::Own { namespaces: false } => words.push(format!(
                "no PID namespace here ({}): what a test starts is looked for and killed",
                self.why
            )),
            Kind::Closed => {
                words.push("sandbox: namespaces (processes, files, network, IPC), seccomp, limits; nothing of a submission stays".into());
            }
            Kind::Ajar { landlock } => {
                words.push(format!("WEAK SANDBOX: no namespaces here: {}", self.why));
                words.push(
                    "  not covered: network, the list of processes, disk space beyond 256 MB a file".into(),
                );
                words.push(if landlock { "  files: Landlock" } else { "  not covered: files; no Landlock either: solutions are readable where their user may read them" }.into());
                if !self.root {
                    words.push(format!(
                        "  not covered: processes of user {}, as whom submissions run",
                        geteuid()
                    ));
                }
            }
        }
        if !matches!(self.kind, Kind::Own { .. }) && !self.cgroups {
            words.push(format!(
                "  no cgroup can be made here: memory is limited for each process ({} GB), not for all of a submission's together",
                self.limits.memory >> 30
            ));
        }
        words
    }
}

/// Whether this user namespace has the users that submissions run as.
fn has_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if first <= FIRST_USER && FIRST_USER + MANY <= first.saturating_add(count))
    })
}

/// A folder that goes when this is dropped, and on Ctrl-C.
struct TempFolder {
    path: PathBuf,
    _undo: Deferred,
}

impl TempFolder {
    fn new(slot: usize) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("benchtop-{}-{slot}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        let gone = path.clone();
        let undo = defer("a temporary folder", move || drop(std::fs::remove_dir_all(gone)));
        Ok(Self { path, _undo: undo })
    }
}

/// A device that a finding is about.
pub(crate) fn device(finding: &str) -> Option<&'static Path> {
    (finding == "kvm" || finding.starts_with("kvm.")).then(|| Path::new("/dev/kvm")).filter(|d| d.exists())
}
