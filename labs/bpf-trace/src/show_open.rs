//! `open`: which files, by whom, with which flags, and what came of it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::fd::BorrowedFd;

use bpf_trace::json::{Lines, quoted};
use bpf_trace::names;
use bpf_trace::open::{self, HERE, Open, Opens, Words};
use bpf_trace::ring::text;
use bpf_trace::{TraceError, Tracer};
use kit::stats::figure;
use kit::{Session, Table};

use crate::args::Options;
use crate::show::{self, Begin, View, time};

/// Paths that are counted each by itself; further ones are counted together.
const PATHS: usize = 100_000;

/// Text is handed on when it is so long: a page or two of events, or a slice of a million.
const CHUNK: usize = 1 << 20;

struct Shown<'a> {
    view: Opens,
    options: &'a Options,
    told: Told,
    begin: Begin,
}

/// What has been taken in.
struct Told {
    /// When it began: ns, CLOCK_MONOTONIC.
    origin: u64,
    timed: bool,
    paths: HashMap<Vec<u8>, Sum>,
    /// Of paths beyond those.
    others: Sum,
    events: u64,
    failed: u64,
    /// What is still to be written.
    lines: Lines,
    words: Words,
}

#[derive(Default)]
struct Sum {
    opens: u64,
    failed: u64,
    /// The last errno.
    errno: u32,
    slowest: u64,
}

impl Sum {
    fn cells(&self, timed: bool, path: String) -> Vec<String> {
        let failed = if self.failed == 0 { "-".into() } else { figure(self.failed as f64) };
        let error = if self.failed == 0 { "-".into() } else { names::errno(self.errno) };
        let slowest = timed.then(|| time(self.slowest));
        [figure(self.opens as f64), failed, error].into_iter().chain(slowest).chain([path]).collect()
    }

    fn add(&mut self, e: &Open<'_>) {
        self.opens += 1;
        self.slowest = self.slowest.max(e.ns);
        if let Some(errno) = e.errno() {
            self.failed += 1;
            self.errno = errno;
        }
    }
}

pub fn show(s: &mut Session, o: &Options) -> anyhow::Result<()> {
    s.step_at("See every file that is opened, where the call returns", HERE);
    let view = Opens::start(&open::Options {
        filter: o.filter()?,
        failed: o.failed,
        timing: o.latency,
        slower_than: o.slower.map_or(0, |d| d.as_nanos() as u64),
        means: o.means(),
        ring: o.ring,
    })?;
    let told = Told {
        origin: show::now(),
        timed: o.latency || o.slower.is_some(),
        paths: HashMap::new(),
        others: Sum::default(),
        events: 0,
        failed: 0,
        lines: Lines::default(),
        words: Words::default(),
    };
    let mut shown = Shown { view, options: o, told, begin: Begin::default() };
    show::watch(s, o, &mut shown)?;
    s.so(
        "a call's arguments are still in its registers when it returns: one program sees both ends of it",
        "--failed, --slower 1ms, --json, -- COMMAND",
    );
    Ok(())
}

/// The columns of [`line`].
const HEAD: &str = "     at s      pid  process                  fd  path\n";

/// An event as a line for people.
fn line(e: &Open<'_>, origin: u64, timed: bool, out: &mut String) {
    let at = e.at.saturating_sub(origin) as f64 / 1e9;
    let result = e.errno().map_or_else(|| e.result.to_string(), names::errno);
    let _ = write!(out, "{at:>9.3}  {:>7}  {:<15}  {result:>9}  ", e.pid, text(e.comm));
    out.push_str(&show::path(e.path.unwrap_or_default()));
    if e.path == Some(b"") {
        out.push_str("''");
    }
    if e.is_cut() {
        out.push_str("...");
    }
    let _ = write!(out, "  {}", names::open_flags(e.flags));
    if e.makes() {
        let _ = write!(out, " {:#o}", e.mode);
    }
    if e.resolve != 0 {
        let _ = write!(out, " {}", names::resolve_flags(e.resolve));
    }
    let relative = e.path.is_some_and(|p| !p.starts_with(b"/")) || e.folder().is_some();
    match e.folder() {
        Some(folder) => {
            let _ = write!(out, "  in {}", quoted(&folder));
        }
        None if relative && e.dirfd == libc::AT_FDCWD => out.push_str("  in a folder that could not be read"),
        None if relative => {
            let _ = write!(out, "  in descriptor {}", e.dirfd);
        }
        None => {}
    }
    if timed {
        let _ = write!(out, "  took {}", time(e.ns));
    }
    out.push('\n');
}

impl Told {
    fn take(&mut self, e: &Open<'_>, json: bool) {
        if json {
            e.json(self.origin, &mut self.words, &mut self.lines);
        } else {
            if self.events == 0 {
                self.lines.text.push_str(HEAD);
            }
            line(e, self.origin, self.timed, &mut self.lines.text);
        }
        self.events += 1;
        self.failed += u64::from(e.errno().is_some());
        let path = e.path.unwrap_or(b"?");
        let room = self.paths.len() < PATHS;
        match self.paths.get_mut(path) {
            Some(sum) => sum.add(e),
            None if room => self.paths.entry(path.to_vec()).or_default().add(e),
            None => self.others.add(e),
        }
    }

    fn table(&self, top: usize) -> Table {
        let mut paths: Vec<_> = self.paths.iter().collect();
        paths.sort_by_key(|(path, sum)| (std::cmp::Reverse(sum.opens), *path));
        let slowest = if self.timed { &["slowest"][..] } else { &[] };
        let mut table = Table::new([&["opens", "failed", "last error"][..], slowest, &["path"]].concat())
            .right([vec![0, 1], if self.timed { vec![3] } else { vec![] }].concat());
        for (path, sum) in paths.into_iter().take(top) {
            table.push(sum.cells(self.timed, show::path(path)));
        }
        if self.others.opens > 0 {
            let rest = format!("(all but the first {PATHS} paths)");
            table.push(self.others.cells(self.timed, rest));
        }
        table
    }
}

impl View for Shown<'_> {
    fn tracer(&self) -> &Tracer {
        self.view.tracer()
    }

    fn ring(&self) -> Option<BorrowedFd<'_>> {
        Some(self.view.ring())
    }

    fn ring_advice(&self) -> &'static str {
        " (--ring makes it larger)"
    }

    fn take(&mut self, s: &mut Session) -> anyhow::Result<()> {
        let Self { view, told, begin, .. } = self;
        let (json, mut done) = (s.json(), Ok(()));
        view.take(|e| {
            told.take(&e, json);
            if told.lines.text.len() >= CHUNK {
                if !json {
                    begin.note(&told.lines.text);
                }
                done = std::mem::replace(&mut done, Ok(())).and_then(|()| show::stream(s, &told.lines.text));
                told.lines.text.clear();
            }
        });
        done?;
        if !json {
            begin.note(&told.lines.text);
        }
        show::stream(s, &told.lines.text)?;
        told.lines.text.clear();
        Ok(())
    }

    fn so_far(&mut self) -> Result<Option<Table>, TraceError> {
        Ok(None)
    }

    fn result(&mut self, s: &mut Session) -> anyhow::Result<u64> {
        let (top, told) = (self.options.top, &self.told);
        self.begin.keep(s, told.events);
        if told.events == 0 {
            s.say("No file was opened.");
        } else {
            s.table(told.table(top));
        }
        show::left_out(s, told.paths.len(), top);
        s.metric("failed", "1", told.failed as f64);
        Ok(told.events)
    }
}
