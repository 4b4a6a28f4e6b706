//! A run as one document: the JSON of `--json`, the file of `--save`, the source of every replay.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cleanup;
use crate::event::{Check, Ending, Event, Header, Metric, Step};

/// The document's version; see `docs/architecture.md`.
pub const SCHEMA: u32 = 1;

/// No saved run is larger: a bigger file is something else.
const MAX_SAVED: u64 = 64 << 20;

/// Everything that a run told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Which lab, where, with which options.
    #[serde(flatten)]
    pub header: Header,
    /// What was shown, step by step.
    pub steps: Vec<Step>,
    /// Numbers by name.
    pub metrics: BTreeMap<String, Metric>,
    /// What had to hold.
    pub checks: Vec<Check>,
    /// How it ended.
    #[serde(flatten)]
    pub ending: Ending,
}

/// Why a saved run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(String, io::Error),
    /// The file is too large to be a saved run.
    #[error("{0} is larger than {max} MiB: not a saved run", max = MAX_SAVED >> 20)]
    Huge(String),
    /// The file is not what `--save` writes.
    #[error("{0} is not a saved run: {1}")]
    Shape(String, serde_json::Error),
    /// The file is of another version.
    #[error("{0} has schema {1}; this kit reads schema {SCHEMA}")]
    Schema(String, u32),
}

impl Run {
    /// Takes one event in.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Begin(header) => {
                self.schema = SCHEMA;
                self.header = (**header).clone();
            }
            Event::Step(step) => self.steps.push(step.clone()),
            Event::Predict(predict) => {
                if let Some(step) = self.steps.last_mut() {
                    step.predict = Some(predict.clone());
                }
            }
            Event::Item(item) => {
                if let Some(step) = self.steps.last_mut() {
                    step.items.push(item.clone());
                }
            }
            Event::Metric(name, metric) => {
                self.metrics.insert(name.clone(), metric.clone());
            }
            Event::Check(check) => self.checks.push(check.clone()),
            Event::End(ending) => self.ending = ending.clone(),
        }
    }

    /// The events again, as they came. Metrics and checks follow the steps.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let steps = self.steps.iter().flat_map(|step| {
            let bare = Step { predict: None, items: Vec::new(), ..step.clone() };
            std::iter::once(Event::Step(bare))
                .chain(step.predict.clone().map(Event::Predict))
                .chain(step.items.iter().cloned().map(Event::Item))
        });
        std::iter::once(Event::Begin(Box::new(self.header.clone())))
            .chain(steps)
            .chain(self.metrics.iter().map(|(n, m)| Event::Metric(n.clone(), m.clone())))
            .chain(self.checks.iter().cloned().map(Event::Check))
            .chain(std::iter::once(Event::End(self.ending.clone())))
    }

    /// Whether all checks held and nothing ended the run early.
    pub fn ok(&self) -> bool {
        self.ending.error.is_none() && self.checks.iter().all(|c| c.ok)
    }

    /// The document as JSON, one line an element of the outermost level.
    pub fn to_json(&self) -> String {
        // Strings, numbers and maps with string keys: there is nothing that could fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads a saved run.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        let read = |e| LoadError::Read(name.clone(), e);
        let mut text = String::new();
        let file = fs::File::open(path).map_err(read)?;
        file.take(MAX_SAVED + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > MAX_SAVED {
            return Err(LoadError::Huge(name));
        }
        let run: Self = serde_json::from_str(&text).map_err(|e| LoadError::Shape(name.clone(), e))?;
        if run.schema != SCHEMA {
            return Err(LoadError::Schema(name, run.schema));
        }
        Ok(run)
    }
}

/// Writes `text` to `path` whole or not at all: an older file stays until the new one is on disk.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    // A pipe or a device cannot be replaced by a rename, nor should it be.
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes());
    }
    // A link stays a link: what it points to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut partial = path.clone().into_os_string();
    partial.push(format!(".{}.partial", std::process::id()));
    // Whatever happens, Ctrl-C included, the partial file goes; after the rename there is none.
    let gone = PathBuf::from(&partial);
    let _undo = cleanup::defer("remove the partial file", move || {
        let _ = fs::remove_file(gone);
    });
    let mut file = fs::File::create(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}
