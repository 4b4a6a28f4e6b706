//! Text for people: at most 80 columns, colour only on a terminal, a closed pipe is success.

use std::io::{IsTerminal as _, Write as _};

/// Columns that a line may take.
pub(crate) const WIDTH: usize = 80;

/// Writes to standard output. A reader that went away (`| head`) has what it wanted: exit code 0.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Says something on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says on standard error what went wrong.
pub(crate) fn complain(text: &str) {
    note(&format!("xtask: {text}"));
}

/// Marks that are colours on a terminal and nothing elsewhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    on: bool,
}

impl Style {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self { on: std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// Without any.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { on: false }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Something failed.
    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Something to know.
    pub(crate) fn remark(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// A heading.
    pub(crate) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }
}

/// How many columns a text takes; the texts here have no wide characters.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// `text` broken into lines of at most `width` columns, at blanks where there are any.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(word);
        } else if columns(line) + 1 + columns(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// `first`, then `text` wrapped beside it: each further line begins under the text.
pub(crate) fn hanging(first: &str, text: &str) -> String {
    let indent = columns(first);
    let blank = format!("\n{:indent$}", "");
    format!("{first}{}\n", wrap(text, WIDTH.saturating_sub(indent)).join(&blank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_keeps_words_and_width() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
        assert_eq!(wrap("", 3), [""]);
    }

    #[test]
    fn hanging_lines_begin_under_the_text() {
        let long = "word ".repeat(30);
        for line in hanging("fix:  ", &long).lines() {
            assert!(columns(line) <= WIDTH, "{line}");
            assert!(line.starts_with("fix:  w") || line.starts_with("      w"));
        }
    }
}
