//! Timelines as SVG.

use std::fmt::Write as _;

use super::charts::svg;
use super::escape;
use crate::event::Lanes;
use crate::render::text::clip;
use crate::render::{position, range};
use crate::stats::figure;

const WIDTH: f64 = 800.0;
const CHAR: f64 = 7.3;
const ROW: f64 = 46.0;

pub(super) fn lanes(drawing: &Lanes) -> String {
    let spans = || drawing.lanes.iter().flat_map(|l| &l.spans);
    let Some((begin, end)) = range(spans().flat_map(|s| [s.from, s.to])) else {
        return "<p>(nothing happened)</p>".into();
    };
    let longest = drawing.lanes.iter().map(|l| l.name.chars().count().min(20)).max().unwrap_or(0);
    let left = longest as f64 * CHAR + 16.0;
    let x_at = |t: f64| left + (WIDTH - 24.0 - left) * position(t, begin, end);
    let mut kinds: Vec<&str> = Vec::new();
    for span in spans() {
        if !kinds.contains(&span.kind.as_str()) {
            kinds.push(&span.kind);
        }
    }
    let colour = |kind: &str| format!("var(--s{})", kinds.iter().position(|k| *k == kind).unwrap_or(0) % 7);
    let height = ROW * drawing.lanes.len() as f64 + 26.0;
    let mut out = svg(WIDTH, height, &drawing.title);
    let mut legend: Vec<(f64, String)> = Vec::new();
    for (i, lane) in drawing.lanes.iter().enumerate() {
        let y = ROW * i as f64 + 4.0;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <path class=\"axis\" d=\"M{left:.1} {:.1} H{:.1}\"/>",
            left - 10.0,
            y + 24.0,
            escape(&clip(&lane.name, 20)),
            y + 19.0,
            WIDTH - 24.0
        );
        for span in &lane.spans {
            let (x, to) = (x_at(span.from), x_at(span.to));
            let fill = colour(&span.kind);
            if span.to > span.from {
                let _ = write!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"22\" style=\"fill:{fill};opacity:.55\"/>",
                    y + 8.0,
                    (to - x).max(1.0)
                );
            } else {
                let _ = write!(
                    out,
                    "<path d=\"M{x:.1} {:.1} V{:.1}\" style=\"stroke:{fill};stroke-width:3\"/>",
                    y + 4.0,
                    y + 34.0
                );
            }
            if span.label.chars().count() as f64 * CHAR + 6.0 <= to - x {
                let _ = write!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    f64::midpoint(x, to),
                    y + 23.0,
                    escape(&span.label)
                );
            } else if !span.label.is_empty() {
                let at = format!("{} {}", figure(span.from), drawing.unit);
                legend.push((span.from, format!("{at:>10}  {}: {}", lane.name, span.label)));
            }
        }
    }
    let _ = write!(
        out,
        "<text class=\"soft\" x=\"{left:.1}\" y=\"{y:.1}\">{} {unit}</text>\
         <text class=\"soft\" x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{} {unit}</text></svg>",
        figure(begin),
        WIDTH - 24.0,
        figure(end),
        y = height - 6.0,
        unit = escape(&drawing.unit)
    );
    let named: Vec<String> = kinds
        .iter()
        .filter(|k| !k.is_empty())
        .map(|k| format!("<span style=\"color:{}\">&#9632;</span> {}", colour(k), escape(k)))
        .collect();
    if !named.is_empty() {
        let _ = write!(out, "<p>{}</p>", named.join(" &nbsp; "));
    }
    if !legend.is_empty() {
        legend.sort_by(|a, b| a.0.total_cmp(&b.0));
        let lines: Vec<String> = legend.iter().map(|(_, l)| escape(l)).collect();
        let _ = write!(out, "<pre>{}</pre>", lines.join("\n"));
    }
    out
}
