//! Tables, listings and hexdumps in characters.

use crate::event::{Hexdump, Listing, Table};
use crate::render::text::{FIGURE, OFF, clip, wrap};
use textwrap::core::display_width;

/// What stands between two columns.
const GAP: usize = 2;

/// A word may be broken where it has room for so many characters at least.
const BREAK: usize = 24;

pub(super) fn rows(table: &Table, width: usize) -> String {
    use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table as Grid, Width, presets};
    let least = least_widths(table);
    if least.iter().map(|w| w + GAP).sum::<usize>() > width + GAP {
        return in_words(table, width);
    }
    let mut grid = Grid::new();
    grid.load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        // The gap behind the last column is not shown.
        .set_width((width + GAP) as u16);
    if table.head.iter().any(|h| !h.is_empty()) {
        grid.set_header(&table.head);
    }
    for row in signed(table) {
        grid.add_row(row);
    }
    for (c, column) in grid.column_iter_mut().enumerate() {
        column.set_padding((0, GAP as u16));
        let least = least.get(c).map_or(0, |w| w + GAP);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least as u16)));
        if table.right.contains(&c) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.lines().map(|line| with_mark(line.trim_end())).collect()
}

/// The rows; the one that matters is marked by a sign, so that it is marked without colour too.
fn signed(table: &Table) -> impl Iterator<Item = Vec<String>> {
    table.rows.iter().enumerate().map(|(i, row)| {
        let mut row = row.clone();
        if let Some(first) = row.first_mut().filter(|_| table.marked.contains(&i)) {
            first.insert_str(0, "> ");
        }
        row
    })
}

fn with_mark(line: &str) -> String {
    match line.trim_start().starts_with("> ") {
        true => format!("{FIGURE}{line}{OFF}\n"),
        false => format!("{line}\n"),
    }
}

/// How wide each column must be so that no word is broken that is not long, and no figure at all.
fn least_widths(table: &Table) -> Vec<usize> {
    let mut least = vec![0; table.head.len()];
    for (is_head, row) in std::iter::once((true, table.head.clone())).chain(signed(table).map(|r| (false, r)))
    {
        for (c, cell) in row.iter().enumerate().take(least.len()) {
            let longest = cell.split_whitespace().map(display_width).max().unwrap_or(0).min(BREAK);
            let figure = !is_head && table.right.contains(&c);
            least[c] = least[c].max(if figure { display_width(cell) } else { longest });
        }
    }
    least
}

/// Where the columns do not fit beside each other: a row is its cells with their heads, in as many lines as they take.
fn in_words(table: &Table, width: usize) -> String {
    let mut out = String::new();
    for (i, row) in table.rows.iter().enumerate() {
        let mut line = if table.marked.contains(&i) { "> ".to_owned() } else { String::new() };
        let mut lines = Vec::new();
        for (c, cell) in row.iter().enumerate().filter(|(_, cell)| !cell.is_empty()) {
            // What a row is about needs no head, unless it is a figure.
            let needed = c > 0 || table.right.contains(&c);
            let head = table.head.get(c).filter(|head| needed && !head.is_empty());
            let word = head.map_or_else(|| cell.clone(), |head| format!("{head} {cell}"));
            let gap = if line.is_empty() || line.ends_with(' ') { "" } else { "  " };
            if gap.len() + display_width(&line) + display_width(&word) > width {
                lines.push(std::mem::replace(&mut line, format!("  {word}")));
            } else {
                line.push_str(gap);
                line.push_str(&word);
            }
        }
        lines.push(line);
        out.push_str(&with_mark(wrap(&lines.join("\n"), width, "    ").trim_end()));
    }
    out
}

pub(super) fn lines(listing: &Listing, width: usize) -> String {
    let mut out = if listing.title.is_empty() { String::new() } else { wrap(&listing.title, width, "") };
    let longest = listing.lines.iter().filter(|l| !l.note.is_empty()).map(|l| l.text.chars().count()).max();
    for line in &listing.lines {
        if line.note.is_empty() {
            out.push_str(&format!("{}\n", clip(&line.text, width)));
            continue;
        }
        // Notes stand below each other where that leaves them room.
        let column = longest.unwrap_or(0).min(width / 2);
        let text = format!("{:<column$}  <- {}", line.text, line.note);
        out.push_str(&wrap_verbatim(&text, width, column + 5));
    }
    out
}

/// A line that keeps its inner spaces; what does not fit goes below, from column `hang`.
fn wrap_verbatim(text: &str, width: usize, hang: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text}\n");
    }
    let cut = text
        .char_indices()
        .take(width + 1)
        .filter(|&(_, c)| c == ' ')
        .map(|(i, _)| i)
        .last()
        .filter(|&i| i > hang)
        .unwrap_or_else(|| text.char_indices().nth(width).map_or(text.len(), |(i, _)| i));
    let (first, rest) = text.split_at(cut);
    let hang = hang.min(width / 2);
    let indent = " ".repeat(hang);
    let rest = textwrap::fill(rest.trim_start(), width - hang);
    format!("{}\n{}\n", first.trim_end(), textwrap::indent(&rest, &indent).trim_end())
}

pub(super) fn hexdump(dump: &Hexdump, width: usize) -> String {
    let per_row = if width >= 75 { 16 } else { 8 };
    let mut out = wrap(&dump.title, width, "");
    let mut notes = dump.notes.iter().peekable();
    let mut before: Option<&[u8]> = None;
    let mut skipping = false;
    for (i, row) in dump.bytes.chunks(per_row).enumerate() {
        let from = i * per_row;
        let noted = dump.notes.iter().any(|n| (from..from + row.len()).contains(&n.from));
        // As hexdump(1): a row like the one before is not shown again.
        if !noted && before == Some(row) && from + row.len() < dump.bytes.len() {
            if !skipping {
                out.push_str("*\n");
            }
            skipping = true;
            continue;
        }
        (before, skipping) = (Some(row), false);
        let hex: String = row.iter().map(|b| format!("{b:02x} ")).collect();
        let text: String =
            row.iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { b as char } else { '.' }).collect();
        out.push_str(&format!("{:08x}  {hex:<w$} {text}\n", dump.base + from as u64, w = per_row * 3));
        while let Some(note) = notes.next_if(|n| n.from < from + per_row) {
            let bytes =
                dump.bytes.get(note.from..(note.from + note.len).min(dump.bytes.len())).unwrap_or(&[]);
            let mut hex: String = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
            if bytes.len() > 8 {
                hex.push('…');
            }
            let line = format!("  +{:<4x} {hex:<18} {}", note.from, note.text);
            out.push_str(&wrap_verbatim(&line, width, 27));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::text::clean;

    #[test]
    fn rows_fit_and_the_one_that_matters_has_a_sign() {
        let long = "a long cell that has to be broken into several lines to fit ".repeat(3);
        let table = Table::new(["what", "figure", "why"])
            .right([1])
            .row(["one", "1", &long])
            .mark(["two", "22", "short"]);
        let text = clean(&rows(&table, 60), false);
        assert!(text.lines().all(|l| l.chars().count() <= 60), "{text}");
        assert!(text.lines().any(|l| l.starts_with("> two")), "{text}");
    }

    #[test]
    fn no_word_and_no_figure_is_broken_however_narrow_it_is() {
        let long = "namespace::Class<Parameter>::function_with_a_long_name";
        let table = Table::new(["%", "samples", "function", "not with 0"])
            .right([0, 1, 3])
            .row(["80.4", "111,222", "irqentry_exit", "1.23 us"])
            .mark(["0.7", "1", long, "12 ms"]);
        for width in 37..=77 {
            let text = clean(&rows(&table, width), false);
            assert!(text.lines().all(|l| display_width(l) <= width), "{width}: {text}");
            for word in ["80.4", "111,222", "irqentry_exit", "1.23 us", "12 ms", "samples", "> "] {
                assert!(text.contains(word), "{width}: {word} in {text}");
            }
        }
        let narrow = clean(&rows(&table, 37), false);
        assert!(narrow.starts_with("% 80.4  samples 111,222\n  function irqentry_exit"), "{narrow}");
    }

    #[test]
    fn hexdump_folds_equal_rows_and_keeps_noted_ones() {
        let dump = Hexdump::new("zeros", 0x1000, &[0; 96]).note(64, 2, "here");
        let text = hexdump(&dump, 77);
        assert_eq!(text.lines().filter(|l| *l == "*").count(), 1, "{text}");
        assert!(text.contains("00001040") && text.contains("here") && text.contains("00001050"), "{text}");
        assert!(!text.contains("00001030"), "{text}");
    }
}
