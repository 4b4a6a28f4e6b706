//! `cargo xtask homework list` and `status`: what exercises there are, and how far each is.

use clap::Args;

use super::catalogue::{self, Exercise};
use super::progress::{Progress, is_started};
use crate::labs;
use crate::report::{self, Style};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The lab; all labs if none is named
    lab: Option<String>,
}

/// What there is: difficulty, time, points.
pub(crate) fn list(options: &Options) -> anyhow::Result<u8> {
    let exercises = catalogue::chosen(options.lab.as_deref(), None)?;
    let style = Style::stdout();
    let head = format!("{:43} {:>5} {:>8} {:>6}   LEVEL", "EXERCISE", "MIN", "POINTS", "TESTS");
    let mut text = style.strong(&head) + "\n";
    for lab in exercises.chunk_by(|a, b| a.lab == b.lab) {
        text += &format!("{}\n", lab[0].lab);
        for e in lab {
            text += &format!(
                "  {:41} {:>5} {:>8} {:>6}   {}\n",
                named(e),
                e.minutes,
                e.points(),
                e.tests.len(),
                level(e)
            );
        }
    }
    text += &format!(
        "{} exercises · cargo xtask homework check LAB EX · stated in labs/LAB/README.md\n",
        exercises.len()
    );
    report::print(&text)?;
    Ok(0)
}

/// `ex1  A ticket lock`
fn named(exercise: &Exercise) -> String {
    let text = format!("{:4} {}", exercise.id, exercise.title);
    if report::columns(&text) <= 41 { text } else { text.chars().take(40).collect::<String>() + "…" }
}

fn level(exercise: &Exercise) -> &'static str {
    match exercise.difficulty {
        1 => "warm-up",
        2 => "evening",
        _ => "day",
    }
}

/// How far the student is, by what `check` said last.
pub(crate) fn status(options: &Options) -> anyhow::Result<u8> {
    let exercises = catalogue::chosen(options.lab.as_deref(), None)?;
    let progress = Progress::load();
    let style = Style::stdout();
    let (mut points, mut of) = (0, 0);
    let mut next: Option<(&Exercise, bool)> = None;
    let mut text = String::new();
    for lab in exercises.chunk_by(|a, b| a.lab == b.lab) {
        text += &format!("{}\n", style.strong(&lab[0].lab));
        for e in lab {
            let mark = progress.of(e);
            let done = mark.is_some_and(|m| m.points + m.not_here == e.points());
            let word = match mark {
                Some(m) if done && m.not_here > 0 => format!("done, {} not checkable here", m.not_here),
                Some(_) if done => "done".to_owned(),
                Some(m) => format!("{} of {} so far", m.points, e.points()),
                None if is_started(e) => "changed since it was checked".to_owned(),
                None => "not started".to_owned(),
            };
            let got = mark.map_or(0, |m| m.points);
            points += got;
            of += e.points();
            // What is begun comes before what is not.
            let begun = mark.is_some() || is_started(e);
            if !done && next.is_none_or(|(_, before)| begun && !before) {
                next = Some((e, begun));
            }
            text += &format!("  {:41} {:>7}  {word}\n", named(e), format!("{got}/{}", e.points()));
        }
    }
    text += &format!("{points}/{of} points\n");
    if let Some((e, _)) = next {
        text += &format!("next: cargo xtask homework check {} {}\n", e.lab, e.id);
    }
    report::print(&text)?;
    Ok(0)
}

/// Hints are asked for one by one.
#[derive(Debug, Args)]
pub(crate) struct HintOptions {
    lab: String,
    /// The exercise, as ex1 or 1
    exercise: String,
    /// 1: a question, 2: the idea, 3: nearly the code
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    level: u8,
}

/// `cargo xtask homework hint LAB EX [LEVEL]`
pub(crate) fn hint(options: &HintOptions) -> anyhow::Result<u8> {
    labs::find(&options.lab)?;
    let exercise = &catalogue::chosen(Some(&options.lab), Some(&options.exercise))?[0];
    let hints = exercise.hints.iter().take(options.level.into());
    let mut text: String =
        hints.enumerate().map(|(n, h)| report::hanging(&format!("{}  ", n + 1), h)).collect();
    if usize::from(options.level) < exercise.hints.len() {
        let more =
            format!("cargo xtask homework hint {} {} {}", exercise.lab, exercise.id, options.level + 1);
        text += &format!("more: {more}\n");
    }
    report::print(&text)?;
    Ok(0)
}
