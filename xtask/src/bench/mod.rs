//! `cargo xtask bench`: Criterion and the comparisons with peers, lab by lab; their tables, records and pictures.

mod across;
mod chart;
mod criterion;
mod instructions;
mod page;
mod readme;
mod running;
mod settings;
mod table;
mod trend;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use benches::record::{Lab, Record, SCHEMA};
use clap::{Args, ValueEnum};
use kit::machine::{self, Machine};

use crate::{Usage, exit, paths, report};
use running::Progress;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this lab
    lab: Option<String>,
    /// The comparisons with peers, too; --peers=only: nothing else
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "too")]
    peers: Option<Peers>,
    /// Few rounds: to see that all works, not to conclude from
    #[arg(long)]
    quick: bool,
    /// Keep the results in benches/record/, by date and machine
    #[arg(long)]
    record: bool,
    /// Write a page with pictures, of these results or of the records
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Make nothing new: take what benches/record/ has
    #[arg(long, conflicts_with_all = ["peers", "quick", "record"])]
    recorded: bool,
    /// Hold one record against another, and run nothing
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["lab", "peers", "quick", "record", "report", "recorded"])]
    compare: Option<Vec<String>>,
    /// --compare: although the machines differ
    #[arg(long, requires = "compare")]
    across_machines: bool,
    /// Write the README's table from the records
    #[arg(long, exclusive = true)]
    readme: bool,
    /// Count instructions and hold them against the stored counts
    #[arg(long, conflicts_with_all = ["lab", "peers", "quick", "record", "report", "recorded", "compare"])]
    instructions: bool,
    /// --instructions: store the counts of now
    #[arg(long, requires = "instructions")]
    accept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peers {
    /// Criterion's groups as well
    Too,
    /// Nothing else
    Only,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<u8> {
    if options.instructions {
        return instructions::run(options.accept);
    }
    if options.readme {
        readme::write(&folder())?;
        return Ok(0);
    }
    if let Some([a, b]) = options.compare.as_deref() {
        return across::run(&find(a)?, &find(b)?, options.across_machines);
    }
    if options.recorded {
        let mut record = current(&folder())?;
        if let Some(name) = &options.lab {
            let lab = crate::labs::find(name)?.name;
            record.labs.retain(|l| l.lab == lab);
            anyhow::ensure!(!record.labs.is_empty(), "the record of {} has no {lab}", record.date);
        }
        show(options, &record)?;
        return Ok(0);
    }
    let labs = labs(options.lab.as_deref())?;
    let (record, failed) = measure(options, &labs)?;
    let path = if options.record { record.add(&folder())? } else { record.save(&scratch())? };
    report::note(&format!("kept in {}", paths::shown(&path)));
    if !options.record {
        report::note("--record keeps it in benches/record/");
    }
    show(options, &record)?;
    if failed.is_empty() {
        return Ok(0);
    }
    report::complain(&format!("failed, and not in the record: {} (see above)", failed.join(", ")));
    Ok(exit::FAILED)
}

/// Writes the page, and prints the tables.
fn show(options: &Options, record: &Record) -> anyhow::Result<()> {
    if let Some(file) = &options.report {
        let history = history(&folder(), &record.machine);
        kit::run::write_whole(file, &page::page(record, &history))
            .with_context(|| file.display().to_string())?;
        report::note(&format!("wrote {}", file.display()));
    }
    report::print(&table::text(record, report::Style::stdout()))
}

/// What CI holds: the README's table is the record's.
pub(crate) fn check_readme() -> anyhow::Result<()> {
    readme::check(&folder())
}

/// What CI holds: no function takes many more instructions than it did.
pub(crate) fn check_instructions() -> anyhow::Result<()> {
    if instructions::run(false)? != 0 {
        bail!("instruction counts have changed (see above)");
    }
    Ok(())
}

/// Each comparison once, unmeasured: it must work, not be fast.
pub(crate) fn check_peers() -> anyhow::Result<()> {
    for lab in labs(None)? {
        let mut command = running::bench(&lab, true);
        let done = command.args(["--", "--test"]).stdout(std::process::Stdio::null()).status()?;
        anyhow::ensure!(done.success(), "cargo bench --bench {lab}-peers -- --test failed (see above)");
    }
    Ok(())
}

/// The labs that have benches: those with a file here; or the one that was asked for.
fn labs(only: Option<&str>) -> anyhow::Result<Vec<String>> {
    let known = crate::labs::all()?;
    let has = |name: &str| paths::root().join(format!("benches/benches/{name}.rs")).is_file();
    match only {
        None => Ok(known.into_iter().map(|l| l.name).filter(|n| has(n)).collect()),
        Some(name) => {
            let lab = crate::labs::find(name)?;
            if !has(&lab.name) {
                bail!(Usage(format!("{name} has no bench: benches/benches/{name}.rs is not there")));
            }
            Ok(vec![lab.name])
        }
    }
}

/// The results, and the labs that have none because something failed.
fn measure(options: &Options, labs: &[String]) -> anyhow::Result<(Record, Vec<String>)> {
    let peers = options.peers.is_some();
    let parts = options.peers != Some(Peers::Only);
    if peers {
        say_missing(labs);
    }
    let began = Instant::now();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let machine = Machine::fingerprint(paths::root());
    let expected = expected(&machine, options.quick);
    let mut progress = Progress::new(labs, &expected, (parts, peers));
    // Everything is built before anything is measured.
    running::build(labs, (parts, peers))?;
    let mut record = Record {
        schema: SCHEMA,
        date: machine::date(now),
        settings: settings::all(),
        machine,
        quick: options.quick,
        ..Record::default()
    };
    let mut failed = Vec::new();
    for name in labs {
        match lab(name, options.quick, (parts, peers), &mut progress) {
            Ok(lab) => record.labs.push(lab),
            // The others' results are not lost by it.
            Err(e) => {
                report::complain(&format!("{e:#}"));
                failed.push(name.clone());
            }
        }
        record.seconds = began.elapsed().as_secs_f64();
        if !record.labs.is_empty() {
            record.save(&scratch())?;
        }
    }
    progress.end();
    anyhow::ensure!(!record.labs.is_empty(), "nothing was measured");
    Ok((record, failed))
}

fn lab(
    name: &str,
    quick: bool,
    (parts, peers): (bool, bool),
    progress: &mut Progress,
) -> anyhow::Result<Lab> {
    let mut lab = Lab { lab: name.to_owned(), ..Lab::default() };
    if parts {
        let began = Instant::now();
        lab.parts = running::parts(name, quick, progress)?;
        lab.parts_seconds = began.elapsed().as_secs_f64();
    }
    if peers {
        (lab.outcomes, lab.notes) = running::peers(name, quick, progress)?;
    }
    Ok(lab)
}

/// Names the programs that comparisons will do without.
fn say_missing(labs: &[String]) {
    let mut said = Vec::new();
    for (program, package) in labs.iter().flat_map(|l| benches::peers::missing(l)) {
        if !said.contains(&program) {
            report::note(&format!("without {program}: apt install {package} for a comparison with it"));
            said.push(program);
        }
    }
}

/// What the newest results that are like these took, lab by lab: what time is left is told by it.
fn expected(machine: &Machine, quick: bool) -> Vec<Lab> {
    let mut all = records(&folder());
    all.extend(records(&scratch()));
    let like = all.into_iter().filter(|r| r.quick == quick && r.machine.cpus == machine.cpus);
    newest_labs(like.collect())
}

/// Of each lab the newest results.
fn newest_labs(mut records: Vec<Record>) -> Vec<Lab> {
    records.sort_by(|a, b| b.date.cmp(&a.date));
    let mut labs: Vec<Lab> = Vec::new();
    for lab in records.into_iter().flat_map(|r| r.labs) {
        match labs.iter_mut().find(|l| l.lab == lab.lab) {
            None => labs.push(lab),
            // Peers and parts may have been measured apart.
            Some(newer) => {
                if newer.outcomes.is_empty() {
                    (newer.outcomes, newer.notes) = (lab.outcomes, lab.notes);
                }
                if newer.parts.is_empty() {
                    (newer.parts, newer.parts_seconds) = (lab.parts, lab.parts_seconds);
                }
            }
        }
    }
    labs
}

/// Where records are.
fn folder() -> PathBuf {
    paths::root().join("benches/record")
}

/// Where results are that nobody asked to keep.
fn scratch() -> PathBuf {
    paths::root().join("target/bench")
}

/// The records of a folder, oldest first; one that cannot be read is left out, aloud.
fn records(folder: &Path) -> Vec<Record> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let mut files: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    // The second of a day is …-2, and comes after.
    files.sort_by_key(|p| p.file_stem().map(ToOwned::to_owned));
    let mut records = Vec::new();
    for file in files {
        match Record::load(&file) {
            Ok(record) => records.push(record),
            Err(e) => report::complain(&format!("{e}; left out")),
        }
    }
    records.sort_by(|a, b| a.date.cmp(&b.date));
    records
}

/// The records of machines like this one, oldest first.
fn history(folder: &Path, machine: &Machine) -> Vec<Record> {
    records(folder).into_iter().filter(|r| r.machine.like(machine) && !r.quick).collect()
}

/// The newest of the full records that compare most labs with peers: figures of one session.
fn current(folder: &Path) -> anyhow::Result<Record> {
    let full = records(folder).into_iter().filter(|r| !r.quick);
    let Some(mut record) = full.max_by_key(|r| r.labs.iter().filter(|l| !l.outcomes.is_empty()).count())
    else {
        bail!("{} has no record: cargo xtask bench --peers --record makes one", paths::shown(folder));
    };
    let order = crate::labs::all()?;
    record.labs.sort_by_key(|lab| order.iter().position(|l| l.name == lab.lab).unwrap_or(order.len()));
    Ok(record)
}

/// A record by its path, or by its name in `benches/record/`, of which a beginning is enough.
fn find(name: &str) -> anyhow::Result<Record> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(Record::load(path)?);
    }
    let files = std::fs::read_dir(folder()).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = files
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .filter(|p| {
            p.file_stem().is_some_and(|s| s.to_string_lossy().starts_with(name.trim_end_matches(".json")))
        })
        .collect();
    found.sort_by_key(|p| p.as_os_str().len());
    match found.as_slice() {
        [] => bail!(Usage(format!("no record {name:?}: ls benches/record"))),
        [one] => Ok(Record::load(one)?),
        [first, ..] if first.file_stem().is_some_and(|s| s == name) => Ok(Record::load(first)?),
        several => {
            let names: Vec<String> = several.iter().map(|p| paths::shown(p)).collect();
            bail!(Usage(format!("{name:?} may be any of\n  {}", names.join("\n  "))))
        }
    }
}
