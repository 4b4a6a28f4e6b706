//! Timelines in characters: a line a lane, time to the right, and a legend in the order of time.

use std::collections::BTreeMap;

use crate::event::{Lanes, Span};
use crate::render::text::clip;
use crate::render::{position, range};
use crate::stats::figure;

/// What fills the spans of each kind, in order of appearance.
const FILLS: [char; 7] = ['=', '#', '.', '~', ':', '-', '%'];

pub(super) fn lanes(drawing: &Lanes, width: usize) -> String {
    let drawing = &in_order(drawing);
    let mut out = format!("{}\n", clip(&drawing.title, width));
    let spans = || drawing.lanes.iter().flat_map(|l| &l.spans);
    let Some((begin, end)) = range(spans().flat_map(|s| [s.from, s.to])) else {
        out.push_str("(nothing happened)\n");
        return out;
    };
    let name_width = drawing.lanes.iter().map(|l| l.name.chars().count()).max().unwrap_or(0).min(16);
    let columns = width.saturating_sub(name_width + 3).clamp(20, 64);
    let column = |t: f64| (position(t, begin, end) * (columns - 1) as f64).round() as usize;

    let mut kinds: Vec<&str> = Vec::new();
    for span in spans().filter(|s| s.to > s.from) {
        if !kinds.contains(&span.kind.as_str()) {
            kinds.push(&span.kind);
        }
    }
    let fill = |kind: &str| FILLS[kinds.iter().position(|k| *k == kind).unwrap_or(0) % FILLS.len()];

    let numbers = number(drawing, &|s| fits(s, &column));
    for (i, lane) in drawing.lanes.iter().enumerate() {
        let mut line = vec![' '; columns];
        for span in &lane.spans {
            let (from, to) = (column(span.from), column(span.to));
            if span.to > span.from {
                line[from..=to].fill(fill(&span.kind));
            }
            if fits(span, &column) {
                let start = from + (to - from + 1 - span.label.chars().count()) / 2;
                for (place, c) in line[start..].iter_mut().zip(span.label.chars()) {
                    *place = c;
                }
            }
        }
        for (j, span) in lane.spans.iter().enumerate() {
            if let Some(n) = numbers.get(&(i, j)) {
                // Two moments in one column would hide each other: the later one moves right.
                let text = n.to_string();
                let mut at = column(span.from).min(columns - text.len());
                while at + text.len() < columns && line[at].is_ascii_digit() {
                    at += 1;
                }
                for (place, c) in line[at..].iter_mut().zip(text.chars()) {
                    *place = c;
                }
            }
        }
        let line: String = line.into_iter().collect();
        out.push_str(&format!("{:<name_width$} |{}\n", clip(&lane.name, name_width), line.trim_end()));
    }
    let (left, right) =
        (format!("{} {}", figure(begin), drawing.unit), format!("{} {}", figure(end), drawing.unit));
    let gap = columns.saturating_sub(left.chars().count() + right.chars().count());
    out.push_str(&format!("{:name_width$}  {left}{:gap$}{right}\n", "", ""));
    if !kinds.iter().all(|k| k.is_empty()) {
        let legend: Vec<String> =
            kinds.iter().filter(|k| !k.is_empty()).map(|k| format!("{0}{0}{0} {k}", fill(k))).collect();
        out.push_str(&format!("{:name_width$}  {}\n", "", clip(&legend.join("   "), columns)));
    }
    out.push_str(&legend(drawing, &numbers, name_width, width));
    out
}

/// The same drawing, with every span's ends in order: a recording from elsewhere may have them the other way.
fn in_order(drawing: &Lanes) -> Lanes {
    let mut drawing = drawing.clone();
    for span in drawing.lanes.iter_mut().flat_map(|l| &mut l.spans) {
        if span.to < span.from {
            std::mem::swap(&mut span.from, &mut span.to);
        }
    }
    drawing
}

/// Whether a span's label can stand inside it, with a character of fill at both ends.
fn fits(span: &Span, column: &dyn Fn(f64) -> usize) -> bool {
    let room = column(span.to) - column(span.from) + 1;
    !span.label.is_empty() && room >= span.label.chars().count() + 2
}

/// Numbers for what is said in the legend, in the order of time.
fn number(drawing: &Lanes, fits: &dyn Fn(&Span) -> bool) -> BTreeMap<(usize, usize), usize> {
    let mut told: Vec<((usize, usize), f64)> = Vec::new();
    for (i, lane) in drawing.lanes.iter().enumerate() {
        for (j, span) in lane.spans.iter().enumerate() {
            if !span.label.is_empty() && !fits(span) {
                told.push(((i, j), span.from));
            }
        }
    }
    told.sort_by(|a, b| a.1.total_cmp(&b.1));
    told.into_iter().enumerate().map(|(n, (key, _))| (key, n + 1)).collect()
}

fn legend(
    drawing: &Lanes,
    numbers: &BTreeMap<(usize, usize), usize>,
    name_width: usize,
    width: usize,
) -> String {
    let mut lines: Vec<(usize, String)> = numbers
        .iter()
        .map(|(&(i, j), &n)| {
            let (lane, span) = (&drawing.lanes[i], &drawing.lanes[i].spans[j]);
            let name = clip(&lane.name, name_width);
            let at = format!("{} {}", figure(span.from), drawing.unit);
            let head = format!("{n:>3}  {at:>10}  {name:<name_width$}  ");
            let hang = " ".repeat(head.chars().count());
            let options = textwrap::Options::new(width).initial_indent(&head).subsequent_indent(&hang);
            (n, textwrap::fill(&span.label, options))
        })
        .collect();
    lines.sort();
    lines.into_iter().map(|(_, l)| format!("{l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_moments_and_legend() {
        let drawing = Lanes::new("race", "us")
            .lane("supervisor", vec![Span::moment(0.0, "", "fork"), Span::moment(100.0, "", "kill(7)")])
            .lane(
                "child",
                vec![Span::new(10.0, 90.0, "runs", "pid 7"), Span::new(91.0, 92.0, "zombie", "dead")],
            );
        let text = lanes(&drawing, 77);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is missing:\n{text}"));
        assert!(text.contains("= pid 7 =") || text.contains("=pid 7="), "{text}");
        assert!(at("fork") < at("dead") && at("dead") < at("kill(7)"), "{text}");
        assert!(text.contains("=== runs") && text.contains("### zombie"), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 77), "{text}");
    }

    #[test]
    fn spans_with_their_ends_swapped_draw() {
        let span = Span::new(80.0, 10.0, "runs", "a label that is longer than the span");
        let text = lanes(&Lanes::new("t", "us").lane("a", vec![Span::new(100.0, 0.0, "x", "y"), span]), 40);
        assert!(text.contains("longer than"), "{text}");
    }

    #[test]
    fn nothing_and_one_moment_draw() {
        assert!(lanes(&Lanes::new("t", "us"), 77).contains("nothing happened"));
        let text = lanes(&Lanes::new("t", "us").lane("a", vec![Span::moment(5.0, "", "x")]), 40);
        assert!(text.contains('1') && text.contains('x'), "{text}");
    }
}
