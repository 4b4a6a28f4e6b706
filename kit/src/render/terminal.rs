//! The terminal: tells the events as they come, at most 80 columns wide.

use std::io::{self, IsTerminal as _, Write};

use crate::event::{Event, Header, Item, Predict, Step};
use crate::machine::date;
use crate::render::text::{BAD, FIGURE, OFF, STEP, clean, fitted, folded, marked, spoken, wrap};
use crate::render::{blocks, chart, lanes};
use crate::stats::figure;
use crate::{cleanup, sys};

/// What stands left of everything in a step.
const INDENT: usize = 3;

/// Tells events on standard output, or on standard error under `--json`.
#[derive(Debug)]
pub(crate) struct Terminal {
    to_stderr: bool,
    colour: bool,
    big: bool,
    width: usize,
    /// The reader went away: tell nothing more.
    closed: bool,
    /// What else went wrong with the output.
    failed: Option<io::Error>,
    recorded: bool,
    checks: Vec<crate::event::Check>,
    /// Lines on the screen that the next output replaces.
    passing: usize,
}

impl Terminal {
    /// A terminal as the options ask for it.
    pub(crate) fn new(json: bool, big: bool, no_color: bool) -> Self {
        let choice = if json {
            anstream::AutoStream::choice(&io::stderr())
        } else {
            anstream::AutoStream::choice(&io::stdout())
        };
        // The back row reads 60 columns in the largest font; nobody reads more than 80.
        let widest = if big { 60 } else { 80 };
        let columns = sys::columns(if json { 2 } else { 1 }).unwrap_or(widest);
        Self {
            to_stderr: json,
            colour: !no_color && choice != anstream::ColorChoice::Never,
            big,
            width: columns.clamp(40, widest),
            closed: false,
            failed: None,
            recorded: false,
            checks: Vec::new(),
            passing: 0,
        }
    }

    /// Whether bars that move have a place to move.
    pub(crate) fn animated(&self) -> bool {
        io::stderr().is_terminal() && (self.to_stderr || io::stdout().is_terminal())
    }

    /// Whether the reader of the narration went away.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// What went wrong with the output, other than a reader that went away.
    pub(crate) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Begin(header) => self.begin(header),
            Event::Step(step) => self.step(step),
            Event::Item(item) => self.item(item),
            Event::Check(check) => self.checks.push(check.clone()),
            Event::End(ending) => {
                self.verdicts();
                self.end(ending);
            }
            // Asked under --step only, by `ask`; metrics are for programs.
            Event::Predict(_) | Event::Metric(..) => {}
        }
    }

    fn begin(&mut self, header: &Header) {
        self.recorded = header.recorded;
        let gap = self.width.saturating_sub(header.lab.len() + header.question.chars().count());
        let mut text = if gap >= 2 && !self.big {
            format!("{STEP}{}{OFF}{:gap$}{}\n", header.lab, "", header.question)
        } else {
            format!("{STEP}{}{OFF}\n{}", header.lab, wrap(&header.question, self.width, ""))
        };
        if header.recorded {
            let label = format!("RECORDED {} on another run's machine:", date(header.at));
            text.push_str(&format!("{BAD}{label}{OFF}\n"));
        }
        text.push_str(&wrap(&header.machine.line(), self.width, ""));
        self.put(&text);
    }

    fn step(&mut self, step: &Step) {
        if self.big {
            let title = format!("{}. {}", step.n, step.title.to_uppercase());
            let rule = "=".repeat(title.chars().count().min(self.width));
            self.put(&format!("\n\n{STEP}{}{OFF}{rule}\n\n", wrap(&title, self.width, "")));
            return;
        }
        let place = if step.at.line == 0 { String::new() } else { step.at.short() };
        let title = wrap(&step.title, self.width - INDENT - 1, "");
        let used = INDENT + title.trim_end().lines().last().map_or(0, |l| l.chars().count());
        let title = title.trim_end().replace('\n', "\n   ");
        let mut text = format!("\n{STEP}{:<2} {title}{OFF}", step.n);
        if !place.is_empty() {
            let gap = self.width.saturating_sub(used + place.chars().count());
            if gap >= 2 {
                text.push_str(&format!("{:gap$}{place}", ""));
            } else {
                text.push_str(&format!("\n{place:>width$}", width = self.width));
            }
        }
        text.push('\n');
        self.put(&text);
    }

    fn item(&mut self, item: &Item) {
        let text = self.drawn(item);
        self.put(&text);
    }

    /// Shows something until the next output takes its place; nothing where lines cannot be taken back.
    pub(crate) fn passing(&mut self, item: &Item) {
        if self.animated() {
            let text = self.drawn(item);
            self.put(&text);
            self.passing = text.lines().count();
        }
    }

    /// Whole lines of text. A terminal gets them folded, so that nothing is cut off; a file gets them as they are.
    pub(crate) fn lines(&mut self, lines: &str) {
        if self.to_stderr || !io::stdout().is_terminal() {
            return self.put(lines);
        }
        let columns = sys::columns(1).unwrap_or(self.width).max(20);
        let folded: String = lines.lines().map(|l| folded(l, columns)).collect();
        self.put(&folded);
    }

    fn drawn(&self, item: &Item) -> String {
        let width = self.width - INDENT;
        let text = match item {
            Item::Say { text } => wrap(&marked(text), width, ""),
            Item::Measure { name, unit, summary } => {
                let value = format!("{} {unit}", figure(summary.median));
                let spread = match summary.n {
                    0 | 1 => String::new(),
                    n => format!(
                        "   n {n}, {}..{} (10th to 90th), max {}",
                        figure(summary.p10),
                        figure(summary.p90),
                        figure(summary.max)
                    ),
                };
                wrap(&format!("{}  {FIGURE}{value}{OFF}{spread}", spoken(name, unit)), width, "  ")
            }
            Item::Table(table) => blocks::rows(table, width),
            Item::Bars(bars) => chart::bars(bars, width),
            Item::Lines(lines) => chart::lines(lines, width),
            Item::Lanes(lanes) => lanes::lanes(lanes, width),
            Item::Hexdump(dump) => blocks::hexdump(dump, width),
            Item::Listing(listing) => blocks::lines(listing, width),
            Item::Figure { title, text, .. } => {
                format!("{}{}\n", wrap(title, width, ""), text.trim_end_matches('\n'))
            }
            Item::Missing { what, why, fix } => {
                let mut text = wrap(&format!("not shown here: {what}"), width, "  ");
                text.push_str(&wrap(&format!("  because: {why}"), width, "    "));
                if !fix.is_empty() {
                    text.push_str(&wrap(&format!("  fix: {fix}"), width, "    "));
                }
                text
            }
        };
        let after = if self.big { "\n" } else { "" };
        let text: String = text.lines().map(|l| format!("{}\n", fitted(l, width))).collect();
        format!("{}{after}", indented(&text))
    }

    /// The checks: those that held side by side, those that failed a line each.
    fn verdicts(&mut self) {
        let checks = std::mem::take(&mut self.checks);
        if checks.is_empty() {
            return;
        }
        let width = self.width - INDENT;
        let (held, failed): (Vec<_>, Vec<_>) = checks.iter().partition(|c| c.ok);
        let mut text = String::new();
        let mut line = String::new();
        for check in held {
            let cell = format!("ok  {}", check.detail);
            if !line.is_empty() && line.chars().count() + 4 + cell.chars().count() > width {
                text.push_str(&wrap(&line, width, "    "));
                line.clear();
            }
            if !line.is_empty() {
                line.push_str("    ");
            }
            line.push_str(&cell);
        }
        text.push_str(&wrap(&line, width, "    "));
        for check in failed {
            let what = format!("{BAD}FAILED{OFF}  {}: {}  ({})", check.name, check.detail, check.at.short());
            text.push_str(&wrap(&what, width, "        "));
        }
        self.put(&format!("\n{}", indented(&text)));
    }

    fn end(&mut self, ending: &crate::event::Ending) {
        let mut text = String::new();
        if !ending.so.is_empty() {
            text.push_str(&format!("\n{}", wrap(&format!("So: {}", marked(&ending.so)), self.width, "    ")));
        }
        if !ending.next.is_empty() {
            text.push_str(&wrap(&format!("next: {}", ending.next), self.width, "    "));
        }
        if self.recorded {
            text.push_str("(all of this was recorded; nothing was measured now)\n");
        }
        self.put(&text);
    }

    /// Puts a prediction's question.
    pub(crate) fn ask(&mut self, predict: &Predict) {
        let width = self.width - INDENT;
        let mut text = wrap(&format!("Predict: {}", predict.question), width, "  ");
        let options: Vec<String> =
            predict.options.iter().zip('a'..).map(|(o, letter)| format!("{letter}) {o}")).collect();
        let one_line = options.join("    ");
        if one_line.chars().count() + 2 <= width {
            text.push_str(&format!("  {one_line}\n"));
        } else {
            for option in options {
                text.push_str(&wrap(&format!("  {option}"), width, "     "));
            }
        }
        text.push_str("> ");
        let text = indented(&text);
        self.put(text.trim_end_matches('\n'));
    }

    /// Tells a prediction's answer.
    pub(crate) fn reveal(&mut self, predict: &Predict, guess: Option<usize>) {
        let width = self.width - INDENT;
        let right = predict.options.get(predict.answer).map_or("", String::as_str);
        let verdict = match guess {
            Some(g) if g == predict.answer => "Yes: ",
            Some(_) => "Not quite: ",
            None => "It is: ",
        };
        let text = format!("{verdict}{FIGURE}{right}{OFF}. {}", predict.why);
        self.put(&format!("{}\n", indented(&wrap(&text, width, ""))));
    }

    /// How many predictions were right.
    pub(crate) fn score(&mut self, right: usize, asked: usize) {
        self.put(&format!("You predicted {right} of {asked}.\n"));
    }

    /// Invites Enter.
    pub(crate) fn wait(&mut self) {
        self.put("\n   [Enter to go on]");
    }

    /// Writes text; only this module's own escape sequences reach the terminal, and only where colour does.
    fn put(&mut self, text: &str) {
        if self.closed || self.failed.is_some() {
            return;
        }
        let clean = match std::mem::take(&mut self.passing) {
            0 => clean(text, self.colour),
            // Up so many lines (CUU), and erase from there to the screen's end (ED).
            n => format!("\x1b[{n}A\x1b[J{}", clean(text, self.colour)),
        };
        let result =
            if self.to_stderr { write_to(io::stderr(), &clean) } else { write_to(io::stdout(), &clean) };
        match result {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
            Err(e) => self.failed = Some(e),
            Ok(()) => {}
        }
    }
}

fn write_to(mut stream: impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// Writes a document to standard output; a reader that went away is success.
pub(crate) fn print_line(text: &str) -> io::Result<()> {
    print_text(&format!("{text}\n"))
}

/// The same of whole lines.
pub(crate) fn print_text(lines: &str) -> io::Result<()> {
    match write_to(io::stdout(), lines) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
            cleanup::run_all();
            sys::exit_now(0)
        }
        other => other,
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|l| if l.is_empty() { "\n".into() } else { format!("{:INDENT$}{l}\n", "") }).collect()
}
