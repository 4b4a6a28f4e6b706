//! A result as text, table, CSV, JUnit XML and Gradescope's results.json.

use std::fmt::Write as _;

use serde_json::json;

use super::result::{ExerciseResult, Graded, State, TestResult, Told};
use crate::homework::check::failure_lines;
use crate::homework::seed::Seed;
use crate::report;

/// Without what a terminal or a spreadsheet would obey: names and messages are a student's.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A submission's name as that of a file: letters, digits, `-_.`; what is changed gets a mark of its own.
pub(crate) fn file_name(name: &str) -> String {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut changed: String = name.chars().map(|c| if fine(c) { c } else { '_' }).collect();
    // A file's name has 255 bytes at most, and endings follow.
    changed.truncate(changed.floor_char_boundary(180));
    if changed == name && !name.is_empty() && !name.starts_with('.') && name != "grades" {
        return changed;
    }
    let mark = hmac_sha256::Hash::hash(name.as_bytes());
    format!("{}-{:02x}{:02x}{:02x}", changed.trim_start_matches('.'), mark[0], mark[1], mark[2])
}

/// A report for people.
pub(crate) fn text(graded: &Graded) -> String {
    let mut text = format!("{}   {}\n", plain(&graded.submission), graded.score());
    for exercise in &graded.exercises {
        let _ = write!(text, "\n{} ({})   {}\n", exercise.name(), exercise.title, exercise.score());
        if let Some(why) = not_tested(exercise) {
            let indented: String = plain(&why).trim_end().lines().map(|l| format!("  {l}\n")).collect();
            text += &indented;
            continue;
        }
        for test in &exercise.tests {
            text += &test_lines(test);
        }
        if exercise.random {
            let _ = writeln!(text, "  inputs drawn by {}", Seed::replay(graded.seed));
        }
    }
    for remark in &graded.remarks {
        let _ = write!(text, "\nlook at {}", plain(remark));
    }
    text += if graded.remarks.is_empty() { "" } else { "\n" };
    text + "\n"
}

/// Why no test was run, in words.
fn not_tested(exercise: &ExerciseResult) -> Option<String> {
    let words = match exercise.state {
        State::Tested => return None,
        State::NotStarted => "not started",
        State::Missing => "missing",
        State::Refused => "refused",
        State::DoesNotCompile => "does not compile",
        State::CompileLate => "not compiled in time",
        State::GraderFailed => "NOT GRADED, by no fault of the submission",
    };
    Some(format!("{words}: {}", exercise.why))
}

fn test_lines(test: &TestResult) -> String {
    let score = format!("{}/{}", test.points, test.of);
    match &test.outcome {
        Told::Passed => format!("  ok    {:44} {score:>7}\n", test.name),
        Told::Failed(failure) => {
            format!("  FAIL  {:44} {score:>7}\n{}", test.name, plain(&failure_lines(failure)))
        }
        Told::NotGradableHere { why } => {
            format!("  ----  {:44} {:>7}\n", test.name, format!("-/{}", test.of))
                + &report::hanging("        not gradable here: ", why)
        }
        Told::NotRun => format!("  FAIL  {:44} {score:>7}\n", test.name),
    }
}

/// A class, one line a submission: what it got in each exercise.
pub(crate) fn table(all: &[Graded]) -> String {
    let name = |g: &Graded| plain(&g.submission).replace('\n', " ").chars().take(24).collect::<String>();
    let mut text = String::new();
    let mut columns: Vec<String> = Vec::new();
    for e in all.iter().flat_map(|g| &g.exercises) {
        if !columns.contains(&e.name()) {
            columns.push(e.name());
        }
    }
    // More exercises than fit beside each other stand in grades.csv.
    let shown = columns.len() <= 6;
    if shown {
        for (n, column) in columns.iter().enumerate() {
            let _ = writeln!(text, "{:>2} = {column}", n + 1);
        }
        text += "\n";
    }
    let _ = write!(text, "{:24} {:>9}", "SUBMISSION", "POINTS");
    if shown {
        text.extend((1..=columns.len()).map(|n| format!(" {n:>6}")));
    }
    text += "\n";
    for graded in all {
        let _ = write!(text, "{:24} {:>9}", name(graded), format!("{}/{}", graded.points, graded.of));
        for column in columns.iter().filter(|_| shown) {
            let cell = graded.exercises.iter().find(|e| e.name() == *column).map_or_else(String::new, cell);
            let _ = write!(text, " {cell:>6}");
        }
        let mut words = Vec::new();
        if graded.not_gradable_here > 0 {
            words.push(format!("{} not gradable here", graded.not_gradable_here));
        }
        if !graded.remarks.is_empty() {
            words.push(format!("{} to look at", graded.remarks.len()));
        }
        if !graded.is_complete() {
            words.push("NOT ALL GRADED".into());
        }
        let _ = writeln!(text, "   {}", words.join(", "));
    }
    while text.contains(" \n") {
        text = text.replace(" \n", "\n");
    }
    text
}

/// Points, or why there are none.
fn cell(exercise: &ExerciseResult) -> String {
    match exercise.state {
        State::Tested => exercise.points.to_string(),
        State::NotStarted | State::Missing => "-".into(),
        State::Refused => "refus".into(),
        State::DoesNotCompile => "comp".into(),
        State::CompileLate => "late".into(),
        State::GraderFailed => "ERROR".into(),
    }
}

/// RFC 4180, one row a submission.
pub(crate) fn csv(all: &[Graded]) -> String {
    let mut text = "submission,points,of,not_gradable_here,complete,seed,remarks".to_owned();
    let first = all.first().map(|g| g.exercises.as_slice()).unwrap_or_default();
    for exercise in first {
        let _ = write!(text, ",{}", quoted(&exercise.name()));
    }
    text += "\r\n";
    for graded in all {
        let _ = write!(
            text,
            "{},{},{},{},{},{},{}",
            quoted(&graded.submission),
            graded.points,
            graded.of,
            graded.not_gradable_here,
            graded.is_complete(),
            graded.seed,
            graded.remarks.len()
        );
        for exercise in &graded.exercises {
            let _ = write!(text, ",{}", exercise.points);
        }
        text += "\r\n";
    }
    text
}

/// One cell. What a spreadsheet would take for a formula is made text.
fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = format!("{}{}", if formula { "'" } else { "" }, plain(text));
    if text.contains([',', '"', '\n', ' ']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// What many CI systems read: a suite for each exercise of each submission.
pub(crate) fn junit(all: &[Graded]) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"homework\">\n".to_owned();
    for (graded, exercise) in all.iter().flat_map(|g| g.exercises.iter().map(move |e| (g, e))) {
        let count = |of: fn(&Told) -> bool| exercise.tests.iter().filter(|t| of(&t.outcome)).count();
        let failures = count(|t| matches!(t, Told::Failed(_) | Told::NotRun));
        let skipped = count(|t| matches!(t, Told::NotGradableHere { .. }));
        let suite = format!("{} {}", graded.submission, exercise.name());
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">",
            xml(&suite),
            exercise.tests.len()
        );
        for test in &exercise.tests {
            let class = format!("{}.{}", exercise.lab, exercise.id);
            let _ = write!(text, "    <testcase classname=\"{}\" name=\"{}\"", xml(&class), xml(&test.name));
            let inner = match &test.outcome {
                Told::Passed => None,
                Told::Failed(f) => Some(format!(
                    "<failure message=\"{}\">{}</failure>",
                    xml(headline(f)),
                    xml(&failure_lines(f))
                )),
                Told::NotGradableHere { why } => {
                    Some(format!("<skipped message=\"not gradable here: {}\"/>", xml(why)))
                }
                Told::NotRun => {
                    let why = not_tested(exercise).unwrap_or_default();
                    let first = why.lines().next().unwrap_or_default();
                    Some(format!("<failure message=\"{}\">{}</failure>", xml(first), xml(&why)))
                }
            };
            text += &inner.map_or_else(|| "/>\n".to_owned(), |i| format!(">\n      {i}\n    </testcase>\n"));
        }
        text += "  </testsuite>\n";
    }
    text + "</testsuites>\n"
}

/// What broke, in one line.
fn headline(failure: &super::super::judge::Failure) -> &str {
    [&failure.property, &failure.ended, &failure.message]
        .into_iter()
        .find(|t| !t.is_empty())
        .map_or("failed", |t| t.lines().next().unwrap_or_default())
}

/// Text for XML 1.0: marked characters escaped, what it forbids replaced.
fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// <https://gradescope-autograders.readthedocs.io/en/latest/specs/>: `score` and `tests`. A test that could not be graded
/// has no score and no status, which shows it as neither passed nor failed.
pub(crate) fn gradescope(graded: &Graded) -> anyhow::Result<String> {
    let mut tests = Vec::new();
    for exercise in &graded.exercises {
        for test in &exercise.tests {
            let name = format!("{}: {}", exercise.name(), test.name);
            tests.push(match &test.outcome {
                Told::NotGradableHere { why } => {
                    json!({ "name": format!("{name} (not gradable here)"), "output": plain(why), "visibility": "visible" })
                }
                outcome => {
                    let passed = matches!(outcome, Told::Passed);
                    let output = match outcome {
                        Told::Failed(failure) => plain(&failure_lines(failure)),
                        Told::NotRun => plain(&not_tested(exercise).unwrap_or_default()),
                        _ => String::new(),
                    };
                    json!({
                        "name": name,
                        "score": test.points,
                        "max_score": test.of,
                        "status": if passed { "passed" } else { "failed" },
                        "output": output,
                        "output_format": "text",
                        "visibility": "visible",
                    })
                }
            });
        }
    }
    let document = json!({
        "score": graded.points,
        "output": format!("{}\ninputs drawn by {}", graded.score(), Seed::replay(graded.seed)),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_reach_out_of_their_folder_or_cell() {
        assert_eq!(file_name("alice"), "alice");
        for name in ["../alice", "a/b", ".alice", "grades", "a\nb", ""] {
            let file = file_name(name);
            assert!(
                !file.contains(['/', '\n']) && !file.starts_with('.') && file != name,
                "{name:?}: {file:?}"
            );
        }
        assert_ne!(file_name("a/b"), file_name("a_b"));
        assert_eq!(quoted("=1+1"), "'=1+1");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn nothing_of_a_student_is_obeyed_by_a_terminal_or_a_parser() {
        assert_eq!(plain("a\x1b[2Jb\r\n"), "a\u{fffd}[2Jb\u{fffd}\n");
        assert_eq!(xml("<a b=\"c\">&\x1b\0"), "&lt;a b=&quot;c&quot;&gt;&amp;\u{fffd}\u{fffd}");
    }
}
