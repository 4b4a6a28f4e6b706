//! One builder over all ways of creating a process.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};

use crate::error::SpawnError;
use crate::plan::{Plan, c_string};
use crate::process::{Child, FellBack};
use crate::ways::zygote::Zygote;
use crate::ways::{Started, Way, clone3, fork, posix_spawn, vfork};

/// What to start and how. Descriptors are borrowed until the spawn.
///
/// Defaults: our environment, directory and 0, 1, 2; no other descriptor; no signal blocked; the way
/// that the kernel allows, best first.
#[derive(Debug)]
pub struct Spawn<'fd> {
    program: OsString,
    args: Vec<OsString>,
    clear_env: bool,
    env: BTreeMap<OsString, OsString>,
    cwd: Option<PathBuf>,
    fds: Vec<(RawFd, BorrowedFd<'fd>)>,
    session: bool,
    group: Option<i32>,
    mask: u64,
    parent_death: Option<Signal>,
    cgroup: Option<BorrowedFd<'fd>>,
    ids: Option<(u32, u32)>,
    way: Choice,
}

#[derive(Debug, Clone)]
enum Choice {
    Best,
    Only(Way),
    Zygote(Arc<Zygote>),
}

impl<'fd> Spawn<'fd> {
    /// A program: a path if it has a slash, else looked for in PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            clear_env: false,
            env: BTreeMap::new(),
            cwd: None,
            fds: Vec::new(),
            session: false,
            group: None,
            mask: 0,
            parent_death: None,
            cgroup: None,
            ids: None,
            way: Choice::Best,
        }
    }

    /// One argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Several arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Nothing of our environment.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// One variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Directory to start in. A relative program path is then relative to it.
    #[must_use]
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// The child's descriptor `number` is our `fd`; in any combination, also swaps and cycles.
    #[must_use]
    pub fn fd(mut self, number: RawFd, fd: &'fd impl AsFd) -> Self {
        self.fds.retain(|&(n, _)| n != number);
        self.fds.push((number, fd.as_fd()));
        self
    }

    /// A session of its own, without terminal.
    #[must_use]
    pub fn session(mut self) -> Self {
        self.session = true;
        self
    }

    /// Into this process group; 0 makes a new one.
    #[must_use]
    pub fn group(mut self, group: i32) -> Self {
        self.group = Some(group);
        self
    }

    /// Signals that the child starts with blocked.
    #[must_use]
    pub fn mask(mut self, set: SigSet) -> Self {
        self.mask = set.iter().fold(0, |m, s| m | 1 << (s as i32 - 1));
        self
    }

    /// The signal it gets when the *thread* that spawned it ends; by a zygote: that started the zygote.(by a zygote: that started the zygote).
    #[must_use]
    #[doc(alias = "PR_SET_PDEATHSIG")]
    pub fn parent_death(mut self, signal: Signal) -> Self {
        self.parent_death = Some(signal);
        self
    }

    /// A cgroup v2 directory to start in.
    #[must_use]
    #[doc(alias = "CLONE_INTO_CGROUP")]
    pub fn cgroup(mut self, dir: &'fd impl AsFd) -> Self {
        self.cgroup = Some(dir.as_fd());
        self
    }

    /// User and group, real, effective and saved; no supplementary groups.
    #[must_use]
    pub fn ids(mut self, uid: u32, gid: u32) -> Self {
        self.ids = Some((uid, gid));
        self
    }

    /// This way and no other. [`Way::Zygote`] needs [`zygote`](Self::zygote) instead.
    #[must_use]
    pub fn way(mut self, way: Way) -> Self {
        self.way = Choice::Only(way);
        self
    }

    /// Through this zygote.
    #[must_use]
    pub fn zygote(mut self, zygote: &Arc<Zygote>) -> Self {
        self.way = Choice::Zygote(Arc::clone(zygote));
        self
    }

    /// Starts it. Returns when the new program has begun, or with the reason why not.
    ///
    /// # Errors
    /// [`SpawnError`]; then no child, pidfd or zombie is left.
    pub fn spawn(&self) -> Result<Child, SpawnError> {
        self.prepare()?.spawn()
    }

    /// Decides and allocates everything now, to start it often: environment and PATH are those of now.
    ///
    /// # Errors
    /// [`SpawnError::Invalid`].
    pub fn prepare(&self) -> Result<Prepared<'fd>, SpawnError> {
        Ok(Prepared { plan: self.plan()?, way: self.way.clone() })
    }

    fn plan(&self) -> Result<Plan<'fd>, SpawnError> {
        if let Some(&(highest, _)) = self.fds.iter().max_by_key(|m| m.0.cast_unsigned()) {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
            if u64::from(highest.cast_unsigned()) >= limit {
                let why = format!("descriptor {highest} cannot be: the limit is {limit} (ulimit -n)");
                return Err(SpawnError::Invalid(why));
            }
        }
        let mut env: BTreeMap<OsString, OsString> =
            if self.clear_env { BTreeMap::new() } else { std::env::vars_os().collect() };
        env.extend(self.env.iter().map(|(k, v)| (k.clone(), v.clone())));
        let path = env.get(OsStr::new("PATH")).cloned();
        let program = [c_string("program", &self.program)];
        let argv = program.into_iter().chain(self.args.iter().map(|a| c_string("argument", a)));
        let envp = env.into_iter().map(|(name, value)| {
            let mut pair = name.into_vec();
            pair.push(b'=');
            pair.extend(value.into_vec());
            c_string("environment variable", OsString::from_vec(pair))
        });
        let mut plan = Plan::new(
            self.candidates(path)?,
            argv.collect::<Result<_, _>>()?,
            envp.collect::<Result<_, _>>()?,
            self.cwd.as_ref().map(|d| c_string("directory", d)).transpose()?,
            self.fds.clone(),
        );
        plan.session = self.session;
        plan.group = self.group;
        plan.mask = self.mask;
        plan.parent_death = self.parent_death.map(|s| s as i32);
        plan.cgroup = self.cgroup;
        plan.ids = self.ids;
        Ok(plan)
    }

    /// As execvp(3) does, but before there is a child: afterwards, allocating is forbidden.
    fn candidates(&self, path: Option<OsString>) -> Result<Vec<CString>, SpawnError> {
        if self.program.as_bytes().contains(&b'/') {
            return Ok(vec![c_string("program", &self.program)?]);
        }
        if self.program.is_empty() {
            return Err(SpawnError::Invalid("the program's name is empty".into()));
        }
        let path = path.unwrap_or_else(|| "/bin:/usr/bin".into());
        std::env::split_paths(&path).map(|dir| c_string("program", dir.join(&self.program))).collect()
    }
}

/// A request ready to be started any number of times.
#[derive(Debug)]
pub struct Prepared<'fd> {
    plan: Plan<'fd>,
    way: Choice,
}

impl Prepared<'_> {
    /// Starts it once more.
    ///
    /// # Errors
    /// [`SpawnError`]; then no child, pidfd or zombie is left.
    pub fn spawn(&self) -> Result<Child, SpawnError> {
        match &self.way {
            Choice::Zygote(z) => z.spawn(&self.plan).map(|s| Child::new(s, Way::Zygote, vec![])),
            Choice::Only(way) => by(*way, &self.plan).map(|s| Child::new(s, *way, vec![])),
            Choice::Best => best(&self.plan),
        }
    }
}

fn by(way: Way, plan: &Plan<'_>) -> Result<Started, SpawnError> {
    match way {
        Way::Fork => fork::spawn(plan),
        Way::Vfork => vfork::spawn(plan),
        Way::PosixSpawn => posix_spawn::spawn(plan),
        Way::Clone3 => clone3::spawn(plan),
        Way::Zygote => Err(SpawnError::Invalid("a zygote must be started first: Zygote::start".into())),
    }
}

/// Where another way is taken.
pub const FALL_BACK: kit::Place = kit::here!();

/// Best first; the next one only where the kernel or a filter refuses the call itself.
fn best(plan: &Plan<'_>) -> Result<Child, SpawnError> {
    let mut fell_back = Vec::new();
    for way in [Way::Clone3, Way::PosixSpawn, Way::Vfork] {
        match by(way, plan) {
            Ok(started) => return Ok(Child::new(started, way, fell_back)),
            Err(why) if refused(&why) => fell_back.push(FellBack { from: way, why }),
            Err(e) => return Err(e),
        }
    }
    fork::spawn(plan).map(|s| Child::new(s, Way::Fork, fell_back))
}

/// Refused by kernel or filter, as opposed to failed. posix_spawn's errno may be of either kind, so
/// after it the next way tells exactly.
fn refused(e: &SpawnError) -> bool {
    match e {
        SpawnError::Unsupported { .. } => true,
        SpawnError::Child { way: Way::PosixSpawn, .. } => true,
        SpawnError::Create { source, .. } => {
            matches!(source.errno, libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::E2BIG)
        }
        _ => false,
    }
}
