//! What to supervise: a TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Stop by itself after so many milliseconds; else at SIGTERM.
    pub run_for_ms: Option<u64>,
    /// Started in this order, each when the one before is ready; stopped in reverse.
    #[serde(rename = "service")]
    pub services: Vec<Service>,
}

/// One service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Unique; letters, digits, `-`, `_`.
    pub name: String,
    /// Program and arguments.
    pub run: Vec<String>,
    /// Variables besides ours.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Directory to start in.
    pub cwd: Option<PathBuf>,
    /// Whether to start it again.
    #[serde(default)]
    pub restart: Restart,
    /// Pause before the first restart; doubles with each failure, in milliseconds.
    #[serde(default = "default_backoff")]
    pub backoff_ms: u64,
    /// The longest pause, in milliseconds.
    #[serde(default = "default_backoff_max")]
    pub backoff_max_ms: u64,
    /// A descriptor on which the service writes anything once it is ready; closing it alone does not count.
    pub ready_fd: Option<i32>,
    /// From SIGTERM to cgroup.kill, in milliseconds.
    #[serde(default = "default_stop")]
    pub stop_timeout_ms: u64,
}

/// When to start a service again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Whenever it ends.
    #[default]
    Always,
    /// Unless it ended with `exit 0`.
    OnFailure,
    /// Not at all.
    Never,
}

fn default_backoff() -> u64 {
    100
}

fn default_backoff_max() -> u64 {
    5000
}

fn default_stop() -> u64 {
    2000
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is not TOML, or not of this shape.
    #[error("{0}: {1}")]
    Parse(PathBuf, toml::de::Error),
    /// It makes no sense.
    #[error("{0}: service {1:?}: {2}")]
    Service(PathBuf, String, &'static str),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], with file and place.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read(path.into(), e))?;
        Self::parse(&text, path)
    }

    /// Checks a text; `path` is for the messages.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|e| ConfigError::Parse(path.into(), e))?;
        let mut names = std::collections::BTreeSet::new();
        for s in &config.services {
            let bad = |why| Err(ConfigError::Service(path.into(), s.name.clone(), why));
            if s.name.is_empty() || !s.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
                return bad("a name is made of letters, digits, - and _");
            }
            if !names.insert(&s.name) {
                return bad("the name is taken");
            }
            if s.run.is_empty() {
                return bad("run is empty: it needs a program");
            }
            if s.ready_fd.is_some_and(|fd| !(3..256).contains(&fd)) {
                return bad("ready_fd is from 3 to 255");
            }
        }
        Ok(config)
    }
}

impl Service {
    /// The pause before the `n`th restart in a row, from 0.
    pub fn backoff(&self, n: u32) -> Duration {
        let ms = self.backoff_ms.saturating_mul(1u64.checked_shl(n).unwrap_or(u64::MAX));
        Duration::from_millis(ms.min(self.backoff_max_ms))
    }
}

/// What `--supervise` without a file shows: one service of each kind of trouble.
pub const DEMO: &str = include_str!("demo.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_valid() {
        assert!(Config::parse(DEMO, Path::new("demo.toml")).unwrap().services.len() >= 4);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("[[service]]\nname = 'a'\nrun = []", "run is empty"),
            ("[[service]]\nname = 'a/b'\nrun = ['x']", "letters"),
            ("[[service]]\nname = 'a'\nrun = ['x']\n[[service]]\nname = 'a'\nrun = ['x']", "taken"),
            ("[[service]]\nname = 'a'\nrun = ['x']\nready_fd = 1", "ready_fd"),
            ("[[service]]\nname = 'a'\nrun = ['x']\nrestrat = 'always'", "restrat"),
            ("[[service]]\nname = 'a'\nrun = ['x']\nrestart = 'often'", "often"),
            ("services = 3", "services"),
        ] {
            let e = Config::parse(text, Path::new("f.toml")).unwrap_err().to_string();
            assert!(e.contains(word) && e.contains("f.toml"), "{e}");
        }
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let text = "[[service]]\nname = 'a'\nrun = ['x']\nbackoff_ms = 10\nbackoff_max_ms = 35";
        let s = &Config::parse(text, Path::new("f")).unwrap().services[0];
        let ms: Vec<u128> = [0, 1, 2, 70].map(|n| s.backoff(n).as_millis()).into();
        assert_eq!(ms, [10, 20, 35, 35]);
    }
}
