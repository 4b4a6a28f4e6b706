//! The renderers: each reads the same events.

mod blocks;
mod chart;
pub(crate) mod html;
mod lanes;
mod terminal;
mod text;

pub(crate) use html::html;
pub(crate) use terminal::{Terminal, print_line, print_text};
pub(crate) use text::plain;

/// Where `value` lies between `low` and `high`, 0 to 1; the middle where they are the same.
fn position(value: f64, low: f64, high: f64) -> f64 {
    if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
}

/// Smallest and largest of the finite values; `None` of none.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |r, v| match r {
        None => Some((v, v)),
        Some((low, high)) => Some((low.min(v), high.max(v))),
    })
}

/// A value on its scale; NaN where the scale has no place for it.
fn scaled(value: f64, scale: crate::event::Scale) -> f64 {
    use crate::event::Scale;
    match scale {
        Scale::Linear => value,
        Scale::Log if value > 0.0 => value.log10(),
        // 0.9 -> 1, 0.99 -> 2, …; all there is (1.0) at seven nines.
        Scale::Nines if (0.0..=1.0).contains(&value) => -(1.0 - value).max(1e-7).log10(),
        Scale::Log | Scale::Nines => f64::NAN,
    }
}

/// The value at a place of the scale, as a reader writes it.
fn tick(place: f64, scale: crate::event::Scale) -> String {
    use crate::event::Scale;
    use crate::stats::figure;
    match scale {
        Scale::Linear => figure(place),
        Scale::Log => figure(10f64.powf(place)),
        Scale::Nines => {
            let percent = (100.0 * (1.0 - 10f64.powf(-place))).max(0.0);
            let digits = ((place - 1e-6).ceil() as usize).saturating_sub(2);
            format!("{percent:.digits$} %")
        }
    }
}
