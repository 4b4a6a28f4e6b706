//! Text for a terminal: marks, widths, and nothing that a terminal would obey.

/// The three marks: a step, the figure that matters, a failed check. Each is a word or a sign as well.
pub(super) const STEP: &str = "\x1b[1;36m";
pub(super) const FIGURE: &str = "\x1b[1;33m";
pub(super) const BAD: &str = "\x1b[1;31m";
pub(super) const OFF: &str = "\x1b[0m";

/// Text that a terminal shows and does not obey: control characters become `?`.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_control(c) && c != '\n' { '?' } else { c }).collect()
}

/// Control characters, and those that reorder the text around them (Unicode Bidirectional Algorithm, UAX #9).
pub(super) fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A metric's name as it is said: `pio_exit_ns` in `ns` is "pio exit".
pub(super) fn spoken(name: &str, unit: &str) -> String {
    let name = name.strip_suffix(unit).and_then(|n| n.strip_suffix('_')).unwrap_or(name);
    name.replace('_', " ")
}

/// `text` cut to `width` characters, with `…` where something was cut.
pub(super) fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The text as it may reach the terminal: of all escape sequences only the marks above, and those only in `colour`.
pub(super) fn clean(text: &str, colour: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(mark) = [STEP, FIGURE, BAD, OFF].into_iter().find(|m| rest.starts_with(m)) {
            if colour {
                out.push_str(mark);
            }
            rest = &rest[mark.len()..];
            continue;
        }
        match c {
            '\n' => out.push('\n'),
            '\t' => out.push_str("    "),
            c if is_control(c) => out.push('?'),
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// `**…**` as the mark of the figure that matters.
pub(super) fn marked(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in text.split("**").enumerate() {
        if i > 0 {
            out.push_str(if i % 2 == 1 { FIGURE } else { OFF });
        }
        out.push_str(part);
    }
    out
}

/// Text in lines of at most `width`, each ended; later lines begin with `hang`.
pub(super) fn wrap(text: &str, width: usize, hang: &str) -> String {
    let options = textwrap::Options::new(width.max(20)).subsequent_indent(hang);
    text.lines().flat_map(|l| textwrap::wrap(l, &options)).map(|l| format!("{}\n", l.trim_end())).collect()
}

/// A line cut to `width` columns, if it is wider in spite of all: a figure beyond reason, wide characters.
pub(super) fn fitted(line: &str, width: usize) -> String {
    if textwrap::core::display_width(line) <= width {
        return line.to_owned();
    }
    let bare = clean(line, false);
    let mut cut = String::new();
    for c in bare.chars() {
        cut.push(c);
        if textwrap::core::display_width(&cut) >= width {
            cut.pop();
            break;
        }
    }
    cut + "…"
}

/// A line in as many lines as its width needs: broken behind a blank where one is near the end, else anywhere, as a
/// terminal would do, but the rest is indented.
pub(super) fn folded(line: &str, width: usize) -> String {
    const INDENT: &str = "      ";
    let (mut out, mut current) = (String::new(), String::new());
    for c in clean(line, false).chars() {
        current.push(c);
        if textwrap::core::display_width(&current) <= width {
            continue;
        }
        current.pop();
        let half = current.char_indices().nth(current.chars().count() / 2).map_or(0, |(at, _)| at);
        let at = current.rfind(' ').map(|at| at + 1).filter(|at| *at > half && c != ' ');
        let rest = current.split_off(at.unwrap_or(current.len()));
        out.push_str(&current);
        out.push('\n');
        current = format!("{INDENT}{rest}{c}");
    }
    out + &current + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_line_fits_and_is_whole() {
        let line = "/a/long/\u{4e2d}\u{4e2d}/path".repeat(9);
        let folded = folded(&line, 20);
        assert!(folded.lines().all(|l| textwrap::core::display_width(l) <= 20), "{folded}");
        assert_eq!(folded.replace("\n      ", "").trim_end(), line);
        assert_eq!(super::folded("short", 20), "short\n");
        assert_eq!(super::folded("cat  lived 1.17 ms and more", 20), "cat  lived 1.17 ms \n      and more\n");
    }

    #[test]
    fn escape_sequences_of_others_do_not_reach_the_terminal() {
        assert_eq!(clean("a\x1b]0;owned\x07b\x1b[2Jc\u{202e}d", true), "a?]0;owned?b?[2Jc?d");
        assert_eq!(clean(&format!("{STEP}x{OFF}\n"), false), "x\n");
        assert_eq!(clean(&format!("{STEP}x{OFF}\n"), true), format!("{STEP}x{OFF}\n"));
    }

    #[test]
    fn whatever_is_told_fits() {
        assert_eq!(fitted("short", 20), "short");
        let wide = fitted(&"\u{4e2d}".repeat(50), 20);
        assert!(textwrap::core::display_width(&wide) <= 20 && wide.ends_with('…'), "{wide}");
        let marked = fitted(&format!("{FIGURE}{}{OFF}", "x".repeat(15)), 20);
        assert!(marked.starts_with(FIGURE), "marks have no width");
    }

    #[test]
    fn the_figure_that_matters_is_marked() {
        assert_eq!(marked("a **7** b"), format!("a {FIGURE}7{OFF} b"));
    }
}
