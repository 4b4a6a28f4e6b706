//! Tables, listings and hexdumps in characters.

use crate::event::{Hexdump, Listing, Table};
use crate::render::text::{FIGURE, OFF, clip, wrap};

pub(super) fn rows(table: &Table, width: usize) -> String {
    use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};
    let mut grid = Grid::new();
    grid.load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width as u16);
    // The row that matters is marked by a sign, so that it is marked without colour too.
    let sign = |i: usize| if table.marked.contains(&i) { "> " } else { "" };
    if table.head.iter().any(|h| !h.is_empty()) {
        grid.set_header(&table.head);
    }
    for (i, row) in table.rows.iter().enumerate() {
        grid.add_row(row.iter().enumerate().map(|(c, cell)| match c {
            0 => format!("{}{cell}", sign(i)),
            _ => cell.clone(),
        }));
    }
    for (c, column) in grid.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if table.right.contains(&c) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut out = String::new();
    for line in grid.lines() {
        let line = line.trim_end();
        match line.trim_start().starts_with("> ") {
            true => out.push_str(&format!("{FIGURE}{line}{OFF}\n")),
            false => out.push_str(&format!("{line}\n")),
        }
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
    fn hexdump_folds_equal_rows_and_keeps_noted_ones() {
        let dump = Hexdump::new("zeros", 0x1000, &[0; 96]).note(64, 2, "here");
        let text = hexdump(&dump, 77);
        assert_eq!(text.lines().filter(|l| *l == "*").count(), 1, "{text}");
        assert!(text.contains("00001040") && text.contains("here") && text.contains("00001050"), "{text}");
        assert!(!text.contains("00001030"), "{text}");
    }
}
