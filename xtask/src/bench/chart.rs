//! Pictures of one comparison, as SVG and HTML: ratios with their intervals, distributions, densities.

use benches::record::{Outcome, Row, ratio_words};
use kit::stats::{figure, percentile, sorted};

/// A logarithmic axis from the least to the most of some values, with a little air.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.filter(|v| v.is_finite() && *v > 0.0).collect();
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        // A fiftieth of the range, and never no range at all.
        let air = (high / low).powf(0.04).max(1.01);
        Some(Self { low: low / air, high: high * air })
    }

    /// With a sixth more at either end: a density goes on beyond the last sample.
    fn wider(&self) -> Self {
        let more = (self.high / self.low).powf(1.0 / 6.0);
        Self { low: self.low / more, high: self.high * more }
    }

    /// Where a value is, 0 to 1.
    fn at(&self, value: f64) -> f64 {
        ((value / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0)
    }

    /// Round values along it, at most about `n`: powers of ten and their 2 and 5, or steps of equal size.
    fn ticks(&self, n: usize) -> Vec<f64> {
        let digits: &[f64] = if self.high / self.low > 1e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let (from, to) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let inside = |v: &f64| *v >= self.low && *v <= self.high;
        let powers = (from..=to).flat_map(|e| digits.iter().map(move |d| d * 10_f64.powi(e)));
        let mut ticks: Vec<f64> = powers.filter(inside).collect();
        if ticks.len() < 3 {
            let raw = (self.high - self.low) / 5.0;
            let size = 10_f64.powf(raw.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * size).into_iter().find(|s| *s >= raw).unwrap_or(raw);
            let first = (self.low / step).ceil() as i64;
            ticks = (first..).map(|i| i as f64 * step).take_while(|v| *v <= self.high).collect();
        }
        let skip = ticks.len().div_ceil(n).max(1);
        ticks.into_iter().step_by(skip).collect()
    }
}

/// Text that is safe in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Our cost by each peer's, with intervals: a row a peer. Positions are shares of the width, so that the text
/// is as large on a phone.
pub(super) fn ratios(outcome: &Outcome) -> String {
    let known = outcome.rows.iter().filter_map(|r| r.ours_to_this.as_ref());
    let ends = known.flat_map(|r| [r.low, r.high, 1.0]);
    let Some(axis) = Axis::over(ends) else { return String::new() };
    let percent = |v: f64| 100.0 * axis.at(v);
    let mut out = String::from("<div class=\"ratios\">\n");
    for row in &outcome.rows {
        let Some(r) = &row.ours_to_this else { continue };
        let (low, high) = (percent(r.low), percent(r.high));
        let verdict = row.verdict();
        let class = match &row.finding {
            Some(f) if f.verdict.is_none() => "open",
            _ if r.high < 1.0 => "less",
            _ if r.low > 1.0 => "more",
            _ => "open",
        };
        out += &format!(
            "<div class=\"name\">{}</div><div class=\"track\"><i class=\"one\" style=\"left:{:.2}%\"></i>\
             <i class=\"bar {class}\" style=\"left:{low:.2}%;width:{:.2}%\"></i>\
             <i class=\"dot {class}\" style=\"left:{:.2}%\"></i></div><div class=\"words\">{} {}</div>\n",
            escape(&row.name),
            percent(1.0),
            (high - low).max(0.3),
            percent(r.ratio),
            ratio_words(r),
            escape(&verdict),
        );
    }
    out += "<div class=\"name\"></div><div class=\"ticks\">";
    for tick in axis.ticks(5) {
        out += &format!("<span style=\"left:{:.2}%\">{}</span>", percent(tick), figure(tick));
    }
    out + "</div><div class=\"words soft\">ours / this: below 1 ours costs less</div>\n</div>\n"
}

const WIDTH: f64 = 380.0;
const LEFT: f64 = 8.0;
const RIGHT: f64 = 12.0;

fn measured(outcome: &Outcome) -> impl Iterator<Item = (usize, &Row)> {
    outcome.rows.iter().enumerate().filter(|(_, r)| r.samples.len() > 2)
}

fn axis_of(outcome: &Outcome) -> Option<Axis> {
    Axis::over(measured(outcome).flat_map(|(_, r)| r.samples.iter().copied()))
}

fn x(axis: &Axis, value: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * axis.at(value)
}

/// The axis below a picture of this height.
fn axis_below(axis: &Axis, unit: &str, height: f64) -> String {
    let mut out = format!("<path class=\"axis\" d=\"M{LEFT} {height}H{}\"/>", WIDTH - RIGHT);
    let ticks = axis.ticks(5);
    for tick in &ticks {
        let at = x(axis, *tick);
        out += &format!(
            "<path class=\"axis\" d=\"M{at:.1} {height}v4\"/><text class=\"soft\" x=\"{at:.1}\" y=\"{}\" \
             text-anchor=\"middle\">{}</text>",
            height + 16.0,
            figure(*tick)
        );
    }
    out + &format!(
        "<text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        WIDTH - RIGHT,
        height + 31.0,
        escape(unit)
    )
}

fn svg(height: f64, label: &str, body: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">{body}</svg>\n",
        escape(label)
    )
}

/// A dash for each contender, so that lines can be told apart without colour.
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];

/// The share of rounds that cost at most so much: a line each, with its key below.
pub(super) fn distributions(outcome: &Outcome) -> String {
    let Some(axis) = axis_of(outcome) else { return String::new() };
    const HEIGHT: f64 = 150.0;
    let mut body = axis_below(&axis, &outcome.unit, HEIGHT);
    for share in [0.0, 0.5, 1.0] {
        let y = HEIGHT - (HEIGHT - 10.0) * share;
        body += &format!("<path class=\"axis\" d=\"M{LEFT} {y}H{}\"/>", WIDTH - RIGHT);
        // Where the lines are not: they rise from the left below to the right above.
        let (at, anchor) = if share == 1.0 { (LEFT, "start") } else { (WIDTH - RIGHT, "end") };
        body += &format!(
            "<text class=\"soft\" x=\"{at}\" y=\"{}\" text-anchor=\"{anchor}\">{:.0} %</text>",
            y - 2.0,
            100.0 * share
        );
    }
    let mut key = String::new();
    let mut line = 0.0;
    for (i, row) in measured(outcome) {
        let samples = sorted(&row.samples);
        let mut path = format!("M{:.1} {HEIGHT}", x(&axis, samples[0]));
        for (k, sample) in samples.iter().enumerate() {
            let share = (k + 1) as f64 / samples.len() as f64;
            path += &format!("H{:.1}V{:.1}", x(&axis, *sample), HEIGHT - (HEIGHT - 10.0) * share);
        }
        let (color, dash) = (i % 7, DASHES[i % DASHES.len()]);
        let stroke = format!("style=\"stroke:var(--s{color});stroke-dasharray:{dash}\"");
        body += &format!("<path class=\"line\" {stroke} d=\"{path}\"/>");
        let y = HEIGHT + 46.0 + 16.0 * line;
        key += &format!(
            "<path class=\"line\" {stroke} d=\"M{LEFT} {}h26\"/><text x=\"{}\" y=\"{y}\">{}</text>",
            y - 4.0,
            LEFT + 34.0,
            escape(&row.name)
        );
        line += 1.0;
    }
    let label = format!("{}: share of rounds by cost", outcome.title);
    svg(HEIGHT + 40.0 + 16.0 * line, &label, &(body + &key))
}

/// How the costs lie: for each contender their density, on a logarithmic scale, and their median.
pub(super) fn violins(outcome: &Outcome) -> String {
    let Some(axis) = axis_of(outcome).map(|axis| axis.wider()) else { return String::new() };
    const ROW: f64 = 42.0;
    const STEPS: usize = 120;
    let rows = measured(outcome).count() as f64;
    let mut body = axis_below(&axis, &outcome.unit, ROW * rows);
    for (place, (i, row)) in measured(outcome).enumerate() {
        let logs: Vec<f64> = row.samples.iter().filter(|s| **s > 0.0).map(|s| axis.at(*s)).collect();
        let density = density(&logs, STEPS);
        let most = density.iter().copied().fold(0.0, f64::max).max(1e-12);
        let middle = ROW * place as f64 + 29.0;
        let half = |d: f64| 11.0 * d / most;
        let at = |k: usize| LEFT + (WIDTH - LEFT - RIGHT) * k as f64 / STEPS as f64;
        // Where there is nothing, nothing is drawn: not a line from end to end.
        let seen: Vec<usize> = (0..=STEPS).filter(|k| density[*k] > most / 200.0).collect();
        let upper = seen.iter().map(|k| format!("{:.1} {:.1}", at(*k), middle - half(density[*k])));
        let lower = seen.iter().rev().map(|k| format!("{:.1} {:.1}", at(*k), middle + half(density[*k])));
        let points: Vec<String> = upper.chain(lower).collect();
        body += &format!(
            "<path style=\"fill:var(--s{})\" class=\"violin\" d=\"M{}Z\"/>",
            i % 7,
            points.join("L")
        );
        let median = percentile(&sorted(&row.samples), 0.5);
        body += &format!("<path class=\"median\" d=\"M{:.1} {:.1}v24\"/>", x(&axis, median), middle - 12.0);
        body += &format!(
            "<text x=\"{LEFT}\" y=\"{}\">{} <tspan class=\"soft\">{} {}</tspan></text>",
            middle - 16.0,
            escape(&row.name),
            figure(median),
            escape(&outcome.unit)
        );
    }
    svg(ROW * rows + 36.0, &format!("{}: density of costs", outcome.title), &body)
}

/// A Gaussian kernel's density of places 0 to 1, by Silverman's rule (1986).
fn density(places: &[f64], steps: usize) -> Vec<f64> {
    let n = places.len().max(1) as f64;
    let s = sorted(places);
    let mean = places.iter().sum::<f64>() / n;
    let deviation = (places.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / n).sqrt();
    let quartiles = (percentile(&s, 0.75) - percentile(&s, 0.25)) / 1.34;
    let spread = if quartiles > 0.0 { deviation.min(quartiles) } else { deviation };
    // Not narrower than the picture can show.
    let width = (0.9 * spread * n.powf(-0.2)).max(0.004);
    (0..=steps)
        .map(|k| {
            let at = k as f64 / steps as f64;
            places.iter().map(|p| (-0.5 * ((at - p) / width).powi(2)).exp()).sum::<f64>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_its_values_inside_and_round_ticks() {
        let axis = Axis::over([2.0, 50.0].into_iter()).unwrap();
        assert!(axis.at(2.0) > 0.0 && axis.at(50.0) < 1.0 && (axis.at(10.0) - 0.5).abs() < 0.01);
        assert_eq!(axis.ticks(5), [2.0, 5.0, 10.0, 20.0, 50.0]);
        let narrow = Axis::over([1.01, 1.07].into_iter()).unwrap();
        assert!((2..=6).contains(&narrow.ticks(5).len()), "{:?}", narrow.ticks(5));
        assert!(Axis::over([f64::NAN, 0.0].into_iter()).is_none());
    }

    #[test]
    fn a_density_is_highest_where_most_samples_are() {
        let d = density(&[0.2, 0.21, 0.19, 0.2, 0.8], 100);
        let peak = (0..=100).max_by(|a, b| d[*a].total_cmp(&d[*b])).unwrap();
        assert!((19..=21).contains(&peak), "{peak}");
        assert!(d[80] > d[50]);
    }
}
