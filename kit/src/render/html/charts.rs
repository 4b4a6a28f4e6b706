//! Bars and curves as SVG. Colours are the page's CSS variables; every curve is also named at its end.

use std::fmt::Write as _;

use super::escape;
use crate::event::{Axis, Bars, Lines, Scale};
use crate::render::text::clip;
use crate::render::{position, range, scaled, tick};
use crate::stats::figure;

const WIDTH: f64 = 800.0;
/// Width of a character of the 12-pixel monospaced font.
const CHAR: f64 = 7.3;

pub(super) fn bars(chart: &Bars) -> String {
    const ROW: f64 = 26.0;
    let end = range(chart.bars.iter().map(|b| b.start.unwrap_or(0.0) + b.value)).map_or(0.0, |r| r.1);
    let sum: f64 = chart.bars.iter().map(|b| b.value.max(0.0)).filter(|v| v.is_finite()).sum();
    let tails: Vec<String> = chart
        .bars
        .iter()
        .map(|b| {
            let mut tail = format!("{} {}", figure(b.value), chart.unit);
            if chart.share && sum > 0.0 {
                let _ = write!(tail, "  {:.0} %", 100.0 * b.value.max(0.0) / sum);
            }
            if !b.note.is_empty() {
                let _ = write!(tail, "  {}", b.note);
            }
            tail
        })
        .collect();
    let longest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0) as f64 * CHAR;
    let left = longest(&mut chart.bars.iter().map(|b| b.label.chars().count().min(36))) + 12.0;
    let right = longest(&mut tails.iter().map(|t| t.chars().count().min(48))) + 12.0;
    let room = (WIDTH - left - right).max(120.0);
    let height = ROW * chart.bars.len() as f64 + 4.0;
    let mut out = svg(WIDTH, height, &chart.title);
    for (i, (bar, tail)) in chart.bars.iter().zip(&tails).enumerate() {
        let y = ROW * i as f64 + 2.0;
        let x = left + room * position(bar.start.unwrap_or(0.0), 0.0, end.max(f64::MIN_POSITIVE));
        // What is more than nothing is seen, however small.
        let least = if bar.value > 0.0 { 1.5 } else { 0.0 };
        let w = (room * position(bar.value, 0.0, end.max(f64::MIN_POSITIVE))).max(least);
        let after = (x + w).min(left + room) + 8.0;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{:.1}\" style=\"fill:var(--s0)\"/>\
             <text x=\"{after:.1}\" y=\"{:.1}\">{}</text>",
            left - 8.0,
            y + 16.0,
            escape(&clip(&bar.label, 36)),
            ROW - 6.0,
            y + 16.0,
            escape(&clip(tail, 48)),
        );
    }
    out.push_str("</svg>");
    out
}

pub(super) fn lines(chart: &Lines) -> String {
    const TOP: f64 = 26.0;
    const HEIGHT: f64 = 300.0;
    const LEFT: f64 = 76.0;
    let name_width = chart.series.iter().map(|s| s.name.chars().count().min(24)).max().unwrap_or(0);
    let right = WIDTH - name_width as f64 * CHAR - 18.0;
    let points: Vec<Vec<(f64, f64)>> = chart
        .series
        .iter()
        .map(|s| {
            let place = |&(x, y): &(f64, f64)| (scaled(x, chart.x.scale), scaled(y, chart.y.scale));
            s.points.iter().map(place).filter(|p| p.0.is_finite() && p.1.is_finite()).collect()
        })
        .collect();
    let all = || points.iter().flatten();
    let (Some(xs), Some(mut ys)) = (range(all().map(|p| p.0)), range(all().map(|p| p.1))) else {
        return "<p>(no points)</p>".into();
    };
    if chart.y.scale == Scale::Linear && ys.0 > 0.0 {
        // Lengths are read from zero.
        ys.0 = 0.0;
    }
    let x_at = |x: f64| LEFT + (right - LEFT) * position(x, xs.0, xs.1);
    let y_at = |y: f64| TOP + (HEIGHT - TOP) * (1.0 - position(y, ys.0, ys.1));
    let mut out = svg(WIDTH, HEIGHT + 46.0, &chart.title);
    for (place, text) in ticks(xs, &chart.x) {
        let x = x_at(place);
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{x:.1} {TOP} V{HEIGHT}\"/>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            HEIGHT + 16.0
        );
    }
    for (place, text) in ticks(ys, &chart.y) {
        let y = y_at(place);
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {y:.1} H{right:.1}\"/>\
             <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text x=\"4\" y=\"14\">{}</text>",
        (LEFT + right) / 2.0,
        HEIGHT + 38.0,
        escape(&chart.x.label),
        escape(&chart.y.label)
    );
    let mut name_places: Vec<f64> = Vec::new();
    for (i, (series, points)) in chart.series.iter().zip(&points).enumerate() {
        let Some(&(_, last_y)) = points.last() else { continue };
        let path: String = points
            .iter()
            .enumerate()
            .map(|(j, &(x, y))| format!("{}{:.1} {:.1}", if j == 0 { "M" } else { "L" }, x_at(x), y_at(y)))
            .collect();
        // Dashes tell curves apart on paper without colour.
        let dash = ["none", "8 4", "2 3", "10 3 2 3"][i % 4];
        let colour = format!("var(--s{})", i % 7);
        let _ = write!(
            out,
            "<path d=\"{path}\" style=\"fill:none;stroke:{colour};stroke-width:2.2;stroke-dasharray:{dash}\"/>"
        );
        if points.len() <= 24 {
            for &(x, y) in points {
                let _ = write!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" style=\"fill:{colour}\"/>",
                    x_at(x),
                    y_at(y)
                );
            }
        }
        // Names of curves that end at the same height are moved apart.
        let mut y = y_at(last_y) + 4.0;
        while name_places.iter().any(|&taken| (taken - y).abs() < 14.0) {
            y += 14.0;
        }
        name_places.push(y);
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{y:.1}\" style=\"fill:{colour}\">{}</text>",
            right + 8.0,
            escape(&clip(&series.name, 24))
        );
    }
    out.push_str("</svg>");
    out
}

/// Places and words of an axis: powers of ten, nines, or round steps.
fn ticks((low, high): (f64, f64), axis: &Axis) -> Vec<(f64, String)> {
    let step = match axis.scale {
        Scale::Log | Scale::Nines if high - low >= 1.0 => ((high - low) / 8.0).ceil().max(1.0),
        _ => round_step((high - low) / 5.0),
    };
    if step <= 0.0 || !step.is_finite() {
        return vec![(low, tick(low, axis.scale))];
    }
    let first = (low / step - 1e-9).ceil();
    let count = ((high / step + 1e-9).floor() - first).clamp(0.0, 20.0) as usize;
    (0..=count).map(|i| (first + i as f64) * step).map(|place| (place, tick(place, axis.scale))).collect()
}

/// The next of 1, 2, 5 times a power of ten.
fn round_step(rough: f64) -> f64 {
    if rough <= 0.0 || !rough.is_finite() {
        return 0.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    let factor = rough / power;
    power
        * if factor <= 1.0 {
            1.0
        } else if factor <= 2.0 {
            2.0
        } else if factor <= 5.0 {
            5.0
        } else {
            10.0
        }
}

/// The begin of a drawing.
pub(super) fn svg(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\"><title>{}</title>",
        escape(title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let linear = ticks((0.0, 97.0), &Axis::default());
        assert_eq!(linear.iter().map(|t| t.1.as_str()).collect::<Vec<_>>(), ["0", "20", "40", "60", "80"]);
        let log = ticks((0.0, 3.0), &Axis { scale: Scale::Log, ..Axis::default() });
        assert_eq!(log.iter().map(|t| t.1.as_str()).collect::<Vec<_>>(), ["1", "10", "100", "1,000"]);
        assert_eq!(ticks((4.0, 4.0), &Axis::default()).len(), 1);
    }

    #[test]
    fn bars_of_zero_and_nothing_draw() {
        assert!(bars(&Bars::new("t", "us")).ends_with("</svg>"));
        assert!(!bars(&Bars::new("t", "us").bar("a", 0.0, "")).contains("NaN"));
    }
}
