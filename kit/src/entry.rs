//! The one way in: options, signals, errors and exit codes are the same in every lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, CommandFactory as _, FromArgMatches as _, Parser};

use crate::event::Header;
use crate::machine::Machine;
use crate::render::{self, Terminal};
use crate::run::{Run, write_whole};
use crate::session::{Session, Telling};
use crate::{SysError, cleanup, probe};

/// What a lab is, as its own manifest says: made by [`lab!`](crate::lab).
#[derive(Debug, Clone, Copy)]
pub struct Lab {
    /// The package's name.
    pub name: &'static str,
    /// The package's description: the question.
    pub question: &'static str,
    /// The lab's folder when it was built.
    pub folder: &'static str,
    /// The text of its manifest.
    pub manifest: &'static str,
}

/// The calling package as a [`Lab`].
#[macro_export]
macro_rules! lab {
    () => {
        $crate::Lab {
            name: env!("CARGO_PKG_NAME"),
            question: env!("CARGO_PKG_DESCRIPTION"),
            folder: env!("CARGO_MANIFEST_DIR"),
            manifest: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
        }
    };
}

/// The body of a lab's `main`: `fn main() -> ExitCode { kit::main!(run) }`, where `run` is
/// `fn(&mut Session, &Options) -> anyhow::Result<()>` and `Options` derives `clap::Args`.
#[macro_export]
macro_rules! main {
    ($run:expr) => {
        $crate::entry::run($crate::lab!(), $run)
    };
}

/// Of a lab without options of its own.
#[derive(Debug, Args)]
pub struct NoOptions {}

/// The options that every lab has.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every lab")]
struct Common {
    /// Wait for Enter before each step, and ask its prediction first
    #[arg(long)]
    step: bool,
    /// Print one JSON document on standard output; the narration goes to standard error
    #[arg(long)]
    json: bool,
    /// Write the run as one self-contained HTML page
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Save the run, for --replay
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Show a saved run, or the bundled recording of that name, instead of running
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "default")]
    replay: Option<PathBuf>,
    /// For the back row: few columns, one idea at a time
    #[arg(long)]
    big: bool,
    /// The least that still shows the lesson
    #[arg(long)]
    quick: bool,
    /// No colour (nor with NO_COLOR or TERM=dumb, nor when not on a terminal)
    #[arg(long)]
    no_color: bool,
    /// Show more; twice for still more
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Parser)]
struct Cli<O: Args> {
    #[command(flatten)]
    own: O,
    #[command(flatten)]
    common: Common,
}

impl Common {
    /// Whether the run is kept besides being told.
    fn kept(&self) -> bool {
        self.json || self.save.is_some() || self.report.is_some()
    }
}

/// Options that make no sense together, or a value out of range: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The machine lacks what the lab needs: exit code 4.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Unavailable {
    /// What the lab needs.
    pub what: String,
    /// The evidence: call, errno, path, value.
    pub why: String,
    /// What to do about it, a line each.
    pub fix: Vec<String>,
}

/// The run was asked to end by a signal, and has come back from what it waited for: exit code 130.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const UNAVAILABLE: u8 = 4;
    pub const INTERRUPTED: u8 = 130;
}

/// Runs a lab as its `main`; see [`main!`](crate::main).
pub fn run<O: Args>(lab: Lab, body: impl FnOnce(&mut Session, &O) -> anyhow::Result<()>) -> ExitCode {
    let command = Cli::<O>::command().name(lab.name).about(lab.question).max_term_width(80);
    let parsed = command.try_get_matches().and_then(|m| Ok((Cli::<O>::from_arg_matches(&m)?, m)));
    let (Cli { own, common }, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => {
            // Help asked for is an answer (0), a usage error is not (2); clap knows which.
            let _ = e.print();
            return ExitCode::from(e.exit_code() as u8);
        }
    };
    cleanup::on_interrupt_exit();
    let code = match &common.replay {
        Some(_) if let Some(option) = given::<O>(&matches) => {
            let what = format!("--replay shows a recording as it is; --{option} has no say in it");
            complain(lab, &what, &[recordings(lab)]);
            exit::USAGE
        }
        Some(which) => replay(lab, &common, which),
        None => tell(lab, &common, &own, body),
    };
    cleanup::run_all();
    ExitCode::from(code)
}

/// An option of the lab's own that the command line gives.
fn given<O: Args>(matches: &ArgMatches) -> Option<String> {
    let own = O::augment_args(Command::new(""));
    let id = own.get_arguments().map(|a| a.get_id().as_str());
    id.into_iter().find(|id| matches.value_source(id) == Some(ValueSource::CommandLine)).map(str::to_owned)
}

/// Runs the experiment and tells it.
fn tell<O: Args>(
    lab: Lab,
    common: &Common,
    own: &O,
    body: impl FnOnce(&mut Session, &O) -> anyhow::Result<()>,
) -> u8 {
    // A quick run that nobody keeps reads no file: its own time is what it is about.
    let machine =
        if common.quick && !common.kept() { Machine::brief() } else { Machine::fingerprint(lab.folder) };
    let mut session = session(common);
    session.begin(Header {
        lab: lab.name.into(),
        question: lab.question.into(),
        at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        machine,
        recorded: false,
        params: common.quick.then(|| ("quick".into(), true.into())).into_iter().collect(),
    });
    let outcome = body(&mut session, own);
    let (run, output) = session.end(outcome.as_ref().err().map(|e| format!("{e:#}")));
    let code = match &outcome {
        Ok(()) if run.ok() => 0,
        Ok(()) => exit::FAILED,
        Err(error) => explain(lab, error),
    };
    code.max(output_code(lab, output)).max(keep(lab, common, &run))
}

/// Tells a saved run.
fn replay(lab: Lab, common: &Common, which: &Path) -> u8 {
    let bundled = Path::new(lab.folder).join("recordings").join(which).with_extension("json");
    let is_name = which.components().count() == 1 && which.extension().is_none() && !which.exists();
    let path = if is_name { bundled } else { which.to_owned() };
    let saved = match Run::load(&path) {
        Ok(run) => run,
        Err(e) => {
            complain(lab, &e.to_string(), &[recordings(lab)]);
            return exit::FAILED;
        }
    };
    if saved.header.lab != lab.name {
        let other = &saved.header.lab;
        complain(lab, &format!("{} is a recording of {other:?}", path.display()), &[recordings(lab)]);
        return exit::FAILED;
    }
    let (run, output) = session(common).replay(&saved);
    let code = if run.ok() { 0 } else { exit::FAILED };
    code.max(output_code(lab, output)).max(keep(lab, common, &run))
}

fn session(common: &Common) -> Session {
    let terminal = Terminal::new(common.json, common.big, common.no_color);
    let (stepping, quick, verbose) = (common.step, common.quick, common.verbose);
    Session::new(terminal, Telling { stepping, quick, verbose, kept: common.kept(), json: common.json })
}

/// Says that the narration could not be written (a full disk, say).
fn output_code(lab: Lab, failure: Option<std::io::Error>) -> u8 {
    let Some(e) = failure else { return 0 };
    complain(
        lab,
        &format!("cannot write the narration: {e}"),
        &["make room, or send it elsewhere".to_owned()],
    );
    exit::FAILED
}

/// Prints the document and writes the files that were asked for.
fn keep(lab: Lab, common: &Common, run: &Run) -> u8 {
    let mut code = 0;
    if common.json {
        code = output_code(lab, render::print_line(&run.to_json()).err());
    }
    let files = [
        (&common.save, "save", Run::to_json as fn(&Run) -> String),
        (&common.report, "report", render::html as fn(&Run) -> String),
    ];
    for (path, option, text) in files {
        let Some(path) = path else { continue };
        if let Err(e) = write_whole(path, &text(run)) {
            let next = "nothing was written over; name another file or make room".to_owned();
            complain(lab, &format!("--{option}: cannot write {}: {e}", path.display()), &[next]);
            code = exit::FAILED;
        }
    }
    code
}

/// Says on standard error why a run ended early; the exit code that goes with it.
fn explain(lab: Lab, error: &anyhow::Error) -> u8 {
    if error.is::<Interrupted>() {
        return exit::INTERRUPTED;
    }
    if let Some(Usage(text)) = error.downcast_ref() {
        complain(lab, text, &[format!("cargo xtask run {} -- --help", lab.name)]);
        return exit::USAGE;
    }
    if let Some(missing) = error.downcast_ref::<Unavailable>() {
        complain(lab, &format!("{error:#}"), &with_replay(lab, &missing.fix));
        return exit::UNAVAILABLE;
    }
    let sys = error.chain().find_map(|e| e.downcast_ref::<SysError>());
    // The cause of a failed call may be that the machine lacks what the manifest says the lab needs.
    if sys.is_some()
        && let Some(lacking) = lacking(lab)
    {
        complain(lab, &format!("{error:#}"), &with_replay(lab, &lacking));
        return exit::UNAVAILABLE;
    }
    let doctor = format!("cargo xtask doctor {} says what this machine can do", lab.name);
    let doctor = sys.is_some_and(SysError::may_be_the_machines).then_some(doctor);
    complain(lab, &format!("{error:#}"), doctor.as_slice());
    exit::FAILED
}

/// What of the manifest's `needs` this machine lacks, with the fixes; `None` if nothing. The probes are asked
/// only now, after something failed: a run that works does not pay for them.
fn lacking(lab: Lab) -> Option<Vec<String>> {
    let manifest: toml::Table = lab.manifest.parse().ok()?;
    let needs = manifest.get("package")?.get("metadata")?.get("lab")?.get("needs")?.as_array()?;
    let names: Vec<&str> = needs.iter().filter_map(|n| n.as_str()).collect();
    let lines: Vec<String> = probe::findings(&names)
        .iter()
        .filter(|f| !f.works())
        .flat_map(|f| {
            let mut lines = vec![format!("this machine: {}", f.what)];
            lines.extend([f.evidence.clone()].into_iter().filter(|e| !e.is_empty()));
            lines.extend(f.fix.iter().map(|fix| format!("fix: {fix}")));
            lines
        })
        .collect();
    (!lines.is_empty()).then_some(lines)
}

fn with_replay(lab: Lab, fix: &[String]) -> Vec<String> {
    let mut lines = fix.to_vec();
    if !recording_names(lab).is_empty() {
        lines.push(format!("or: cargo xtask run {} --replay NAME   (shows a recorded run)", lab.name));
        lines.push(recordings(lab));
    }
    lines
}

/// The bundled recordings, in order.
fn recording_names(lab: Lab) -> Vec<String> {
    let folder = Path::new(lab.folder).join("recordings");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|f| f.file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// Names the bundled recordings.
fn recordings(lab: Lab) -> String {
    match recording_names(lab).as_slice() {
        [] => format!("{} has no bundled recording; make one with --save FILE", lab.name),
        names => format!("bundled recordings: {}", names.join(", ")),
    }
}

/// `lab: what`, then what to do, on standard error.
fn complain(lab: Lab, what: &str, next: &[String]) {
    let mut text = format!("{}: {}\n", lab.name, render::plain(what));
    for line in next {
        text.push_str(&format!("  {}\n", render::plain(line)));
    }
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
}
