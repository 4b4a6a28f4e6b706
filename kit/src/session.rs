//! What a lab's `main.rs` drives: it turns the telling into events.

use std::io::{self, BufRead as _};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::{
    Bars, Check, Ending, Event, Header, Hexdump, Item, Lanes, Lines, Listing, Metric, Place, Predict, Step,
    Table,
};
use crate::render::{self, Terminal};
use crate::run::Run;
use crate::stats::Summary;
use crate::{cleanup, sys};

/// One run of a lab, being told.
///
/// Everything said goes to the terminal at once and into the [`Run`]. A session lives in `main.rs`: a lab's
/// library returns facts and knows nothing of it.
#[derive(Debug)]
pub struct Session {
    run: Run,
    terminal: Terminal,
    started: Instant,
    /// Wait for Enter before each step, and ask its prediction.
    stepping: bool,
    /// Predictions asked, and guessed right.
    guesses: (usize, usize),
    /// Fewer repetitions, nothing that is not needed.
    quick: bool,
    /// How much more to show: 0, 1, 2.
    verbose: u8,
    /// Whether the run is kept besides being told: as JSON, a report or a saved run.
    kept: bool,
    /// Whether standard output is for programs.
    json: bool,
    so: (String, String),
}

/// How a run is to be told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Telling {
    pub(crate) stepping: bool,
    pub(crate) quick: bool,
    pub(crate) verbose: u8,
    pub(crate) kept: bool,
    pub(crate) json: bool,
}

impl Session {
    /// A session that tells on `terminal`.
    pub(crate) fn new(terminal: Terminal, telling: Telling) -> Self {
        let Telling { stepping, quick, verbose, kept, json } = telling;
        Self {
            run: Run::default(),
            terminal,
            started: Instant::now(),
            stepping,
            guesses: (0, 0),
            quick,
            verbose,
            kept,
            json,
            so: Default::default(),
        }
    }

    pub(crate) fn begin(&mut self, header: Header) {
        self.emit(Event::Begin(Box::new(header)));
    }

    /// Whether `--quick` asks for the least that still shows the lesson.
    pub fn quick(&self) -> bool {
        self.quick
    }

    /// How often `-v` was given.
    pub fn verbose(&self) -> u8 {
        self.verbose
    }

    /// Notes an option that shaped this run, for who compares runs later.
    pub fn param(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.run.header.params.insert(name.into(), value.into());
    }

    /// Begins a step: one idea. The place shown is the caller's.
    #[track_caller]
    pub fn step(&mut self, title: impl Into<String>) {
        self.step_at(title, Place::caller());
    }

    /// Begins a step about the code at `at`; see [`here!`](crate::here).
    pub fn step_at(&mut self, title: impl Into<String>, at: Place) {
        if self.stepping && !self.run.steps.is_empty() {
            self.pause();
        }
        let n = self.run.steps.len() + 1;
        self.emit(Event::Step(Step { n, title: title.into(), at, predict: None, items: Vec::new() }));
    }

    /// A question to answer before the facts are shown: call it right after [`step`](Self::step) and before the
    /// work. Asked under `--step` only; on the page it stands before the facts, with its answer folded.
    pub fn predict(&mut self, predict: Predict) {
        let (answer, options) = (predict.answer, predict.options.len());
        self.emit(Event::Predict(predict.clone()));
        if !self.stepping {
            return;
        }
        self.terminal.ask(&predict);
        let guess = read_line().and_then(|l| guess_of(&l, options));
        if let Some(guess) = guess {
            self.guesses.0 += 1;
            self.guesses.1 += usize::from(guess == answer);
        }
        self.terminal.reveal(&predict, guess);
    }

    /// Says what it means, in a sentence or two. `**…**` marks the figure that matters.
    pub fn say(&mut self, text: impl Into<String>) {
        self.item(Item::Say { text: text.into() });
    }

    /// Shows a measured figure, and records it as a metric.
    pub fn measure(&mut self, name: &str, unit: &str, summary: Summary) {
        self.metric_spread(name, unit, summary);
        self.item(Item::Measure { name: name.into(), unit: unit.into(), summary });
    }

    /// Records a metric without showing it. A value that is not finite is no measurement, and is left out.
    pub fn metric(&mut self, name: &str, unit: &str, value: f64) {
        self.record(name, Metric { value, unit: unit.into(), spread: None });
    }

    /// Records a metric with its spread without showing it.
    pub fn metric_spread(&mut self, name: &str, unit: &str, summary: Summary) {
        if summary.n > 0 {
            self.record(name, Metric { value: summary.median, unit: unit.into(), spread: Some(summary) });
        }
    }

    fn record(&mut self, name: &str, metric: Metric) {
        if metric.value.is_finite() {
            self.emit(Event::Metric(name.into(), metric));
        }
    }

    /// Shows rows and columns.
    pub fn table(&mut self, table: Table) {
        self.item(Item::Table(table));
    }

    /// Shows bars, or a waterfall.
    pub fn bars(&mut self, bars: Bars) {
        self.item(Item::Bars(bars));
    }

    /// Shows an x/y chart.
    pub fn lines(&mut self, lines: Lines) {
        self.item(Item::Lines(lines));
    }

    /// Shows timelines side by side.
    pub fn lanes(&mut self, lanes: Lanes) {
        self.item(Item::Lanes(lanes));
    }

    /// Shows bytes with notes.
    pub fn hexdump(&mut self, dump: Hexdump) {
        self.item(Item::Hexdump(dump));
    }

    /// Shows lines as they are.
    pub fn listing(&mut self, listing: Listing) {
        self.item(Item::Listing(listing));
    }

    /// Shows a drawing of the lab's own: `text` for the terminal (at most 76 columns), `svg` for the page (an
    /// `<svg>` element with a `viewBox`; may use the page's CSS variables; empty: the page shows the text).
    pub fn figure(&mut self, title: impl Into<String>, text: impl Into<String>, svg: impl Into<String>) {
        self.item(Item::Figure { title: title.into(), text: text.into(), svg: svg.into() });
    }

    /// Says which part of the lesson this machine could not show, the evidence, and what would help.
    pub fn missing(&mut self, what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) {
        self.item(Item::Missing { what: what.into(), why: why.into(), fix: fix.into() });
    }

    /// Shows a table on a terminal until the next thing told takes its place, as `top` does. It is no part of the
    /// run: what matters in the end is told again.
    pub fn passing(&mut self, table: Table) {
        self.terminal.passing(&Item::Table(table));
    }

    /// Whether [`passing`](Self::passing) shows anything.
    pub fn on_terminal(&self) -> bool {
        self.terminal.animated()
    }

    /// Whether standard output is for programs (`--json`).
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whole lines, told at once and not kept: events in their thousands, written in one go. Under `--json` they must
    /// be JSON, a document a line, and stand ahead of the run's own; otherwise they are for people.
    ///
    /// # Errors
    ///
    /// Those of write(2), a full disk above all; a reader that went away ends the run, with success.
    pub fn stream_lines(&mut self, lines: &str) -> io::Result<()> {
        if self.json {
            return render::print_text(lines);
        }
        self.terminal.lines(lines);
        self.leave_if_closed();
        self.terminal.failure().map_or(Ok(()), Err)
    }

    /// Keeps lines for the page and the recording without showing them: of what was streamed, the begin.
    pub fn keep(&mut self, listing: Listing) {
        self.run.apply(&Event::Item(Item::Listing(listing)));
    }

    /// Judges something that must hold. A failed one makes the run's exit code 1.
    #[track_caller]
    pub fn check(&mut self, name: &str, ok: bool, detail: impl Into<String>) {
        let at = Place::caller();
        self.emit(Event::Check(Check { name: name.into(), ok, detail: detail.into(), at }));
    }

    /// The lesson in one sentence, and what to run next.
    pub fn so(&mut self, lesson: impl Into<String>, next: impl Into<String>) {
        self.so = (lesson.into(), next.into());
    }

    /// A bar for work of `total` parts that takes more than a moment: on a terminal only, gone when dropped.
    pub fn progress(&self, total: u64, what: &str) -> Progress {
        let bar = if self.terminal.animated() {
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("   {msg}  {bar:30.dim}  {pos}/{len}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("##."));
        bar.set_message(what.to_owned());
        Progress(bar)
    }

    /// Ends the telling; `error` is what ended it early.
    pub(crate) fn end(mut self, error: Option<String>) -> (Run, Option<io::Error>) {
        self.run.ending.error.clone_from(&error);
        let ok = self.run.ok();
        let (so, next) = std::mem::take(&mut self.so);
        let seconds = self.started.elapsed().as_secs_f64();
        self.emit(Event::End(Ending { so, next, error, seconds, ok }));
        if self.guesses.0 > 0 {
            self.terminal.score(self.guesses.1, self.guesses.0);
        }
        (self.run, self.terminal.failure())
    }

    /// Tells a saved run again; the text says that it is one.
    pub(crate) fn replay(mut self, saved: &Run) -> (Run, Option<io::Error>) {
        for event in saved.events() {
            match event {
                Event::Begin(header) => self.begin(Header { recorded: true, ..*header }),
                Event::Step(step) => self.step_at(step.title, step.at),
                Event::Predict(predict) => self.predict(predict),
                other => self.emit(other),
            }
        }
        (self.run, self.terminal.failure())
    }

    fn item(&mut self, item: Item) {
        if self.run.steps.is_empty() {
            // Something told before the first step: it belongs to the question itself.
            self.step_at("Before the experiment", Place { file: "".into(), line: 0 });
        }
        self.emit(Event::Item(item));
    }

    fn emit(&mut self, event: Event) {
        self.run.apply(&event);
        self.terminal.event(&event);
        self.leave_if_closed();
    }

    fn leave_if_closed(&self) {
        if self.terminal.closed() && !self.kept {
            // The reader went away, as with `| head`: nobody is left to tell it to, and that is no failure.
            cleanup::run_all();
            sys::exit_now(0);
        }
    }

    fn pause(&mut self) {
        self.terminal.wait();
        let _ = read_line();
    }
}

/// A progress bar; see [`Session::progress`].
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// `by` parts more are done.
    pub fn add(&self, by: u64) {
        self.0.inc(by);
    }

    /// Says what is being done now.
    pub fn what(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line from standard input; `None` at its end.
fn read_line() -> Option<String> {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(n) if n > 0 => Some(line),
        _ => None,
    }
}

/// `b`, `B)` or `2` as an index below `options`.
fn guess_of(line: &str, options: usize) -> Option<usize> {
    let c = line.trim().chars().next()?.to_ascii_lowercase();
    let index = match c {
        'a'..='z' => c as usize - 'a' as usize,
        '1'..='9' => c as usize - '1' as usize,
        _ => return None,
    };
    (index < options).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::guess_of;

    #[test]
    fn guesses_are_letters_or_numbers() {
        assert_eq!(guess_of("b\n", 3), Some(1));
        assert_eq!(guess_of(" C) because", 3), Some(2));
        assert_eq!(guess_of("1", 3), Some(0));
        assert_eq!(guess_of("d", 3), None);
        assert_eq!(guess_of("", 3), None);
        assert_eq!(guess_of("é", 3), None);
    }
}
