//! Bars and curves in characters.

use crate::event::{Bar, Bars, Lines};
use crate::render::text::clip;
use crate::render::{position, range, scaled, tick};
use crate::stats::figure;

/// Bars, one a line; a waterfall where the bars have a start.
pub(super) fn bars(chart: &Bars, width: usize) -> String {
    let mut out = String::new();
    if !chart.title.is_empty() {
        out.push_str(&format!("{}\n", clip(&chart.title, width)));
    }
    let sum: f64 = chart.bars.iter().map(|b| b.value.max(0.0)).filter(|v| v.is_finite()).sum();
    let end = range(chart.bars.iter().map(|b| b.start.unwrap_or(0.0) + b.value)).map_or(0.0, |r| r.1);
    let label_width = chart.bars.iter().map(|b| b.label.chars().count()).max().unwrap_or(0).min(width / 3);
    let tails_of = |share: bool| -> Vec<String> {
        let tail = |b: &Bar| {
            let mut tail = format!("{:>9} {}", figure(b.value), chart.unit);
            if share && sum > 0.0 {
                tail.push_str(&format!("  {:>3.0} %", 100.0 * b.value.max(0.0) / sum));
            }
            if !b.note.is_empty() {
                tail.push_str(&format!("  {}", b.note));
            }
            tail
        };
        chart.bars.iter().map(tail).collect()
    };
    const LEAST: usize = 8;
    let fits = |tails: &[String]| tails.iter().all(|t| label_width + 1 + LEAST + t.chars().count() <= width);
    // Where it is narrow, the bars say as much as the shares.
    let tails = Some(tails_of(chart.share)).filter(|t| fits(t)).unwrap_or_else(|| tails_of(false));
    let tail_width = tails.iter().map(|t| t.chars().count()).max().unwrap_or(0);
    let room = width.saturating_sub(label_width + 1 + tail_width).clamp(LEAST, 40);
    for (bar, tail) in chart.bars.iter().zip(&tails) {
        let columns = |v: f64| if end > 0.0 { (v.max(0.0) / end * room as f64).round() as usize } else { 0 };
        let before = columns(bar.start.unwrap_or(0.0)).min(room.saturating_sub(1));
        // Something that took time is seen, however small.
        let length = columns(bar.value).clamp(usize::from(bar.value > 0.0), room - before);
        let drawn = format!("{:before$}{}", "", "#".repeat(length));
        let line = format!("{:<label_width$} {drawn:<room$}{tail}", clip(&bar.label, label_width));
        out.push_str(&format!("{}\n", clip(line.trim_end(), width)));
    }
    out
}

/// What marks the points of each curve.
const MARKS: [char; 8] = ['*', 'o', '+', 'x', '#', '@', '%', '&'];
const HEIGHT: usize = 12;
const LABEL: usize = 10;

/// Curves on a grid of characters, joined by straight lines between their points.
pub(super) fn lines(chart: &Lines, width: usize) -> String {
    let points = |s: &crate::event::Series| -> Vec<(f64, f64)> {
        let scale = |&(x, y): &(f64, f64)| (scaled(x, chart.x.scale), scaled(y, chart.y.scale));
        s.points.iter().map(scale).filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let series: Vec<Vec<(f64, f64)>> = chart.series.iter().map(points).collect();
    let all = || series.iter().flatten();
    let mut out = format!("{}\n", clip(&chart.title, width));
    let (Some((x0, x1)), Some((y0, y1))) = (range(all().map(|p| p.0)), range(all().map(|p| p.1))) else {
        out.push_str("(no points)\n");
        return out;
    };
    let columns = width.saturating_sub(LABEL + 3).clamp(20, 60);
    let mut grid = vec![vec![' '; columns]; HEIGHT];
    for (points, mark) in series.iter().zip(MARKS.iter().cycle()) {
        let column = |x: f64| (position(x, x0, x1) * (columns - 1) as f64).round() as usize;
        let row = |y: f64| HEIGHT - 1 - (position(y, y0, y1) * (HEIGHT - 1) as f64).round() as usize;
        for pair in points.windows(2) {
            let ((xa, ya), (xb, yb)) = (pair[0], pair[1]);
            let (from, to) = (column(xa), column(xb));
            // Points that share a column are joined there from one to the other.
            let steps = to.abs_diff(from).max(row(ya).abs_diff(row(yb))).max(1);
            for i in 0..=steps {
                let part = i as f64 / steps as f64;
                grid[row(ya + (yb - ya) * part)][column(xa + (xb - xa) * part)] = *mark;
            }
        }
        if let [(x, y)] = points[..] {
            grid[row(y)][column(x)] = *mark;
        }
    }
    out.push_str(&format!("{}\n", clip(&chart.y.label, width)));
    for (i, row) in grid.iter().enumerate() {
        // Three labels are enough to read the rest.
        let label = match i {
            _ if i == 0 || i == HEIGHT / 2 || i == HEIGHT - 1 => {
                tick(y1 - (y1 - y0) * i as f64 / (HEIGHT - 1) as f64, chart.y.scale)
            }
            _ => String::new(),
        };
        let line: String = row.iter().collect();
        out.push_str(&format!("{label:>LABEL$} |{}\n", line.trim_end()));
    }
    out.push_str(&format!("{:LABEL$} +{}\n", "", "-".repeat(columns)));
    let (left, right) = (tick(x0, chart.x.scale), tick(x1, chart.x.scale));
    let label = clip(&chart.x.label, columns.saturating_sub(left.len() + right.len() + 2));
    out.push_str(&format!(
        "{:LABEL$}  {left}{label:^w$}{right}\n",
        "",
        w = columns.saturating_sub(left.chars().count() + right.chars().count())
    ));
    let legend: Vec<String> =
        chart.series.iter().zip(MARKS.iter().cycle()).map(|(s, m)| format!("{m} {}", s.name)).collect();
    for line in textwrap::wrap(&legend.join("   "), width.saturating_sub(LABEL + 2).max(20)) {
        out.push_str(&format!("{:LABEL$}  {line}\n", ""));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Scale;

    #[test]
    fn a_waterfall_starts_each_bar_where_it_began() {
        let chart = Bars::new("", "us").from(0.0, "a", 50.0).from(50.0, "b", 50.0).with_share();
        let text = bars(&chart, 77);
        let at = |line: &str| line[2..].find('#').unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(at(lines[0]) < at(lines[1]), "{text}");
        assert!(lines.iter().all(|l| l.contains("50 %")), "{text}");
    }

    #[test]
    fn bars_without_length_or_of_nothing_draw() {
        let text = bars(&Bars::new("t", "us").bar("zero", 0.0, "").bar("nan", f64::NAN, ""), 77);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(bars(&Bars::new("t", "us"), 77), "t\n");
    }

    #[test]
    fn curves_rise_from_left_below_to_right_above() {
        let chart = Lines::new("cdf", "us", "share")
            .scales(Scale::Log, Scale::Nines)
            .series("a", vec![(1.0, 0.0), (10.0, 0.9), (100.0, 0.99), (0.0, 0.5)]);
        let text = lines(&chart, 77);
        let rows: Vec<&str> = text.lines().filter(|l| l.contains('|')).collect();
        assert_eq!(rows.len(), HEIGHT);
        assert!(rows[0].ends_with('*') && rows[HEIGHT - 1].contains("|*"), "{text}");
        assert!(text.contains("99 %") && text.contains("100"), "{text}");
    }

    #[test]
    fn a_chart_without_points_says_so() {
        assert!(lines(&Lines::new("t", "x", "y"), 77).contains("no points"));
    }
}
