//! Running benches: as cargo does, with what they say turned into progress and results.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use benches::asked::Event;
use benches::record::{Lab, Outcome, Part};

use super::criterion;
use crate::{paths, report};

/// `cargo bench` of a lab's target: its parts, or its comparisons with peers.
pub(super) fn bench(lab: &str, peers: bool) -> Command {
    let mut cargo = paths::cargo();
    let target = if peers { format!("{lab}-peers") } else { lab.to_owned() };
    cargo.args(["bench", "--quiet", "--package", "benches", "--bench", &target]);
    cargo.env("CRITERION_HOME", criterion::home()).stdin(Stdio::null());
    cargo
}

/// Builds all that will run.
pub(super) fn build(labs: &[String], (parts, peers): (bool, bool)) -> anyhow::Result<()> {
    let mut cargo = paths::cargo();
    cargo.args(["bench", "--package", "benches", "--no-run"]);
    for lab in labs {
        if parts {
            cargo.args(["--bench", lab]);
        }
        if peers {
            cargo.arg("--bench").arg(format!("{lab}-peers"));
        }
    }
    let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "cargo bench --no-run failed (see above)");
    Ok(())
}

/// Runs a lab's Criterion groups.
pub(super) fn parts(lab: &str, quick: bool, progress: &mut Progress) -> anyhow::Result<Vec<Part>> {
    let list = bench(lab, false).args(["--", "--list"]).output()?;
    let total = String::from_utf8_lossy(&list.stdout).lines().filter(|l| l.ends_with(": benchmark")).count();
    progress.begin(lab, PARTS);
    let start = SystemTime::now();
    let mut command = bench(lab, false);
    command.arg("--").args(quick.then_some("--quick")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut done = 0;
    let (out, err) = (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
    // Criterion tells each of its steps there: it would tear our own line.
    let said = std::thread::spawn(move || std::io::read_to_string(err).unwrap_or_default());
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        // One line of each function has its time.
        if line.contains("time:   [") {
            done += 1;
            progress.within(done, total.max(done));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let said = said.join().unwrap_or_default();
        bail!("cargo bench --bench {lab} failed: {status}\n{}", said.trim_end());
    }
    progress.done();
    Ok(criterion::since(start))
}

/// Runs a lab's comparisons with peers: what they found, and what its author has to say of it.
pub(super) fn peers(
    lab: &str,
    quick: bool,
    progress: &mut Progress,
) -> anyhow::Result<(Vec<Outcome>, Vec<String>)> {
    let mut command = bench(lab, true);
    command.args(["--", "--events"]).args(quick.then_some("--quick")).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let (mut outcomes, mut notes) = (Vec::new(), Vec::new());
    let out = child.stdout.take().context("no pipe")?;
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Event::Begin(title)) => progress.begin(lab, &title),
            Ok(Event::Round(done, of)) => progress.within(done, of),
            Ok(Event::Outcome(outcome)) => {
                outcomes.push(*outcome);
                progress.done();
            }
            Ok(Event::Notes(said)) => notes = said,
            // A peer that talks on standard output.
            Err(_) => {}
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo bench --bench {lab}-peers failed: {status} (see above)");
    }
    Ok((outcomes, notes))
}

/// What a lab's parts are called among its comparisons.
const PARTS: &str = "parts, by Criterion";

/// One thing that is measured.
struct Piece {
    lab: String,
    title: String,
    /// Seconds that it took before.
    expected: f64,
    done: bool,
}

/// How far it is and how long it will take, by what the same pieces took before.
pub(super) struct Progress {
    pieces: Vec<Piece>,
    at: usize,
    /// Of the current piece, 0 to 1.
    share: f64,
    began: Instant,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(labs: &[String], before: &[Lab], (parts, peers): (bool, bool)) -> Self {
        let mut pieces = Vec::new();
        for name in labs {
            let lab = before.iter().find(|l| l.lab == *name);
            let mut piece = |title: &str, expected: f64| {
                pieces.push(Piece { lab: name.clone(), title: title.into(), expected, done: false });
            };
            if parts {
                piece(PARTS, lab.map_or(0.0, |l| l.parts_seconds));
            }
            if peers {
                lab.iter().flat_map(|l| &l.outcomes).for_each(|o| piece(&o.title, o.seconds));
            }
        }
        let terminal = std::io::stderr().is_terminal();
        Self { pieces, at: 0, share: 0.0, began: Instant::now(), terminal }
    }

    fn begin(&mut self, lab: &str, title: &str) {
        if self.pieces.iter().all(|p| p.done) && self.at == 0 {
            self.began = Instant::now();
        }
        let at = self.pieces.iter().position(|p| p.lab == lab && p.title == title);
        self.at = at.unwrap_or_else(|| {
            let (lab, title) = (lab.to_owned(), title.to_owned());
            self.pieces.push(Piece { lab, title, expected: 0.0, done: false });
            self.pieces.len() - 1
        });
        self.share = 0.0;
        if self.terminal { self.draw() } else { report::note(&self.line()) }
    }

    fn within(&mut self, done: usize, of: usize) {
        self.share = done as f64 / of.max(1) as f64;
        if self.terminal {
            self.draw();
        }
    }

    fn done(&mut self) {
        self.pieces[self.at].done = true;
        self.share = 0.0;
    }

    pub(super) fn end(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// The share that is done, and the seconds that are left; none where nothing like it was run before.
    fn left(&self, elapsed: f64) -> Option<(f64, f64)> {
        if self.pieces.iter().any(|p| p.expected <= 0.0) {
            return None;
        }
        let total: f64 = self.pieces.iter().map(|p| p.expected).sum();
        let done: f64 = self.pieces.iter().filter(|p| p.done).map(|p| p.expected).sum();
        let current = self.pieces.get(self.at).filter(|p| !p.done).map_or(0.0, |p| p.expected * self.share);
        let done = done + current;
        // Until there is something to go by, as fast as the last time.
        let pace = if done > 0.1 * total { elapsed / done } else { 1.0 };
        Some((done / total, (total - done) * pace))
    }

    fn line(&self) -> String {
        let piece = &self.pieces[self.at];
        let what = format!("{}: {}", piece.lab, piece.title);
        match self.left(self.began.elapsed().as_secs_f64()) {
            Some((share, left)) => format!("{:3.0} %  {what}  {} left", 100.0 * share, words(left)),
            None => format!("{:3}.  {what}", self.pieces.iter().filter(|p| p.done).count() + 1),
        }
    }

    fn draw(&self) {
        let bar = (self.share * 10.0) as usize;
        let line: String = self.line().chars().take(report::WIDTH - 14).collect();
        let mut err = std::io::stderr();
        let _ = write!(err, "\r\x1b[K[{:10}] {line}", "#".repeat(bar));
        let _ = err.flush();
    }
}

/// Seconds as people say them.
fn words(seconds: f64) -> String {
    let s = seconds.round() as u64;
    if s < 90 { format!("{s} s") } else { format!("{} min", (s + 30) / 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_by_what_it_took_before_and_by_the_pace_of_now() {
        let piece = |expected, done| Piece { lab: "a".into(), title: "b".into(), expected, done };
        let pieces = vec![piece(10.0, true), piece(20.0, false), piece(30.0, false)];
        let mut p = Progress { pieces, at: 1, share: 0.5, began: Instant::now(), terminal: false };
        // 20 of 60 took 40: twice as long as before.
        assert_eq!(p.left(40.0), Some((1.0 / 3.0, 80.0)));
        p.pieces[2].expected = 0.0;
        assert_eq!(p.left(40.0), None);
        assert_eq!((words(89.0).as_str(), words(100.0).as_str()), ("89 s", "2 min"));
    }
}
