//! Ratios over records: is what was cheaper still cheaper?

use std::collections::BTreeMap;

use benches::record::Record;
use kit::stats::{Ratio, figure};

use super::chart::escape;

/// One ratio over time: the name of the peer, and date and ratio of each record that has it.
type Series = BTreeMap<String, Vec<(String, Ratio)>>;

/// For a lab, a picture of each comparison that the records of two days at least have.
pub(super) fn of(lab: &str, history: &[Record]) -> String {
    let mut all: BTreeMap<String, Series> = BTreeMap::new();
    for record in history {
        for outcome in record.lab(lab).into_iter().flat_map(|l| &l.outcomes) {
            for row in &outcome.rows {
                let Some(ratio) = row.ours_to_this else { continue };
                let series = all.entry(outcome.title.clone()).or_default();
                let points = series.entry(row.name.clone()).or_default();
                // Of one day, the last.
                points.retain(|(date, _)| *date != record.date);
                points.push((record.date.clone(), ratio));
            }
        }
    }
    // One point is no trend.
    let mut pictures = String::new();
    for (title, series) in &all {
        if series.values().any(|points| points.len() > 1) {
            pictures += &picture(title, series);
        }
    }
    pictures
}

fn picture(title: &str, series: &Series) -> String {
    const WIDTH: f64 = 380.0;
    const LEFT: f64 = 40.0;
    const HEIGHT: f64 = 140.0;
    let mut dates: Vec<&String> = series.values().flatten().map(|(date, _)| date).collect();
    dates.sort();
    dates.dedup();
    let ends = series.values().flatten().flat_map(|(_, r)| [r.low, r.high, 1.0]);
    let (low, high) = ends.fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
    let (low, high) = (low / 1.05, high * 1.05);
    let y = |v: f64| 8.0 + (HEIGHT - 8.0) * (1.0 - (v / low).ln() / (high / low).ln());
    let x = |date: &String| {
        let at = dates.iter().position(|d| *d == date).unwrap_or(0);
        LEFT + 14.0 + (WIDTH - LEFT - 60.0) * at as f64 / (dates.len() - 1).max(1) as f64
    };
    let mut body = String::new();
    for tick in [low * 1.05, 1.0, high / 1.05] {
        body += &format!(
            "<path class=\"axis\" d=\"M{LEFT} {0:.1}H{WIDTH}\"/><text class=\"soft\" x=\"{1}\" y=\"{2:.1}\" \
             text-anchor=\"end\">{3}</text>",
            y(tick),
            LEFT - 5.0,
            y(tick) + 4.0,
            figure(tick)
        );
    }
    let shown = if dates.len() > 4 { vec![dates[0], dates[dates.len() - 1]] } else { dates.clone() };
    for date in shown {
        let at = x(date);
        body += &format!(
            "<text class=\"soft\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{date}</text>",
            HEIGHT + 16.0
        );
    }
    let mut key = 0.0;
    for (i, (name, points)) in series.iter().enumerate() {
        let stroke = format!("style=\"stroke:var(--s{})\"", i % 7);
        let line: Vec<String> =
            points.iter().map(|(d, r)| format!("{:.1} {:.1}", x(d), y(r.ratio))).collect();
        body += &format!("<path class=\"line\" {stroke} d=\"M{}\"/>", line.join("L"));
        for (date, r) in points {
            body += &format!(
                "<path class=\"line\" {stroke} d=\"M{:.1} {:.1}V{:.1}\"/>",
                x(date),
                y(r.low),
                y(r.high)
            );
        }
        let at = HEIGHT + 36.0 + 16.0 * key;
        body += &format!("<path class=\"line\" {stroke} d=\"M{LEFT} {}h20\"/>", at - 4.0);
        body += &format!("<text x=\"{}\" y=\"{at}\">{}</text>", LEFT + 26.0, escape(name));
        key += 1.0;
    }
    format!(
        "<figure><figcaption>{0}</figcaption><svg viewBox=\"0 0 {WIDTH} {1}\" role=\"img\" aria-label=\"{0}, over \
         time\">{body}</svg></figure>\n",
        escape(title),
        HEIGHT + 30.0 + 16.0 * key
    )
}
