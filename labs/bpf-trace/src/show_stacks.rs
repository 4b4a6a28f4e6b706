//! What `profile` and `offcpu` share: stacks as a flame graph, as files, and in words.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use bpf_trace::flame::Drawing;
use bpf_trace::kallsyms::Kallsyms;
use bpf_trace::stacks::{self, Kind, Stack};
use kit::stats::figure;
use kit::{Session, SysError, Table};

use crate::args::Options;

/// Files that are asked for: made before the trace begins, so that nobody waits in vain.
pub struct Files {
    folded: Option<(PathBuf, File)>,
    svg: Option<(PathBuf, File)>,
}

impl Files {
    pub fn create(o: &Options) -> Result<Self, SysError> {
        let create = |path: &Option<PathBuf>| match path {
            None => Ok(None),
            Some(path) => {
                let call = format!("create({:?})", path.display().to_string());
                File::create(path).map(|file| Some((path.clone(), file))).map_err(SysError::io(call))
            }
        };
        Ok(Self { folded: create(&o.folded)?, svg: create(&o.svg)? })
    }
}

/// What the stacks are of.
pub struct Told<'a> {
    /// The figure's title.
    pub title: &'a str,
    /// The lowest box.
    pub root: &'a str,
    /// A weight in words.
    pub say: &'a dyn Fn(u64) -> String,
    /// The head of the weights' column, and one in it.
    pub column: &'a str,
    pub cell: &'a dyn Fn(u64) -> String,
    /// What a weight is divided by in the folded form.
    pub unit: u64,
}

/// Tells the stacks: where most was spent, the graph, the files.
pub fn tell(
    s: &mut Session,
    o: &Options,
    files: &mut Files,
    told: &Told<'_>,
    all: &[Stack],
) -> anyhow::Result<()> {
    let sum: u64 = all.iter().map(|s| s.weight).sum();
    let mut table = Table::new(["%", told.column, "function", "of"]).right([0, 1]);
    for (frame, weight) in stacks::leaves(all).into_iter().take(o.top) {
        let of = match frame.kind {
            Kind::Kernel => "kernel",
            Kind::User => "program",
            _ => "no name",
        };
        let share = format!("{:.1}", 100.0 * weight as f64 / sum.max(1) as f64);
        table.push([share, (told.cell)(weight), stacks::one_line(&frame.name), of.into()]);
    }
    s.table(table);
    let mut drawing = Drawing { title: told.title, root: told.root, say: told.say, alone: false };
    s.figure(told.title, stacks::in_words(all, 8), drawing.svg(all));
    drawing.alone = true;
    write(s, &mut files.folded, || stacks::folded(all, told.unit))?;
    write(s, &mut files.svg, || drawing.svg(all))?;
    Ok(())
}

fn write(
    s: &mut Session,
    file: &mut Option<(PathBuf, File)>,
    text: impl FnOnce() -> String,
) -> Result<(), SysError> {
    if let Some((path, file)) = file {
        let call = format!("write({:?})", path.display().to_string());
        file.write_all(text().as_bytes()).map_err(SysError::io(call))?;
        s.say(format!("Written: {}.", path.display()));
    }
    Ok(())
}

/// Says what is without a name, and why.
pub fn nameless(s: &mut Session, kernel: &Kallsyms, all: &[Stack]) {
    if let Some((why, fix)) = kernel.missing() {
        s.missing("names of the kernel's functions", why, fix);
    }
    let sum: u64 = all.iter().map(|s| s.weight).sum();
    let without = all.iter().filter(|s| s.leaf().is_none_or(|f| f.kind == Kind::Nameless));
    let without: u64 = without.map(|s| s.weight).sum();
    if without > 0 {
        s.say(format!(
            "{} % are in code without a name: a stripped file (shown as file+address), code made at run time, or a \
             process that was gone before it could be asked.",
            figure(100.0 * without as f64 / sum.max(1) as f64)
        ));
    }
}
