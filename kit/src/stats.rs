//! What a set of measurements says, and whether two sets differ.

use serde::{Deserialize, Serialize};

/// How often something was measured, and how it spread. All figures in the unit of the samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of measurements.
    pub n: usize,
    /// Smallest.
    pub min: f64,
    /// 10th percentile.
    pub p10: f64,
    /// Median.
    pub median: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Summary {
    /// The summary of `samples`; of none at all, zeros with `n` 0. Samples that are not finite are left out.
    pub fn of(samples: &[f64]) -> Self {
        let sorted = sorted(samples);
        let at = |p| percentile(&sorted, p);
        Self {
            n: sorted.len(),
            min: at(0.0),
            p10: at(0.10),
            median: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            max: at(1.0),
        }
    }

    /// A thing measured once.
    pub fn once(value: f64) -> Self {
        Self::of(&[value])
    }
}

/// The finite samples in order.
pub fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|x| x.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The `p`-quantile (0 to 1) of samples in order, between neighbours in proportion (type 7 of Hyndman and
/// Fan, 1996: what numpy and R do). 0 of no samples.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = p.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// The ratio of two things measured in turn, round by round: A B A B …
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Rounds.
    pub n: usize,
    /// Median over the rounds of a / b.
    pub ratio: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
}

/// What a [`Ratio`] of costs allows to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A costs less: the whole interval is below 1.
    Less,
    /// A costs more: the whole interval is above 1.
    More,
    /// The interval holds 1: no difference shown.
    NoDifference,
}

impl Ratio {
    /// The paired ratio of costs `a` and `b`, where `a[i]` and `b[i]` were measured next to each other, so that
    /// what the machine did to one it did to the other. The interval is a percentile bootstrap (Efron, 1979)
    /// of the median with a fixed seed: the same samples give the same interval. Of few rounds that is too narrow;
    /// so it is never narrower than the ratios between which the median is by the binomial distribution alone.
    ///
    /// Rounds in which one of the two is not a positive number are left out; with fewer than two left, `None`.
    pub fn paired(a: &[f64], b: &[f64]) -> Option<Self> {
        let ratios = Self::of_rounds(a, b);
        if ratios.len() < 2 {
            return None;
        }
        let median = |values: &[f64]| percentile(&sorted(values), 0.5);
        let mut random = SplitMix(0x5eed);
        let mut resample = vec![0.0; ratios.len()];
        let medians: Vec<f64> = (0..2000)
            .map(|_| {
                resample.fill_with(|| ratios[random.below(ratios.len())]);
                median(&resample)
            })
            .collect();
        let medians = sorted(&medians);
        let ratios = sorted(&ratios);
        let n = ratios.len();
        let outside = beyond(n);
        Some(Self {
            n,
            ratio: percentile(&ratios, 0.5),
            low: percentile(&medians, 0.025).min(ratios[outside]),
            high: percentile(&medians, 0.975).max(ratios[n - 1 - outside]),
        })
    }

    /// a / b, a round each; without the rounds in which one of the two is not a positive number.
    pub fn of_rounds(a: &[f64], b: &[f64]) -> Vec<f64> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        a.iter().zip(b).filter(|&(&a, &b)| positive(a) && positive(b)).map(|(a, b)| a / b).collect()
    }

    /// What may be said of A against B.
    pub fn verdict(&self) -> Verdict {
        match (self.low, self.high) {
            (_, high) if high < 1.0 => Verdict::Less,
            (low, _) if low > 1.0 => Verdict::More,
            _ => Verdict::NoDifference,
        }
    }
}

/// How many of `n` sorted samples may be left out at each end so that the median of what they are drawn from is within
/// the others in 95 of 100 cases: each is above it or below with a half. Fewer than six cannot promise that: none.
fn beyond(n: usize) -> usize {
    // The chance that just k of n are below; of more than a thousand it would be 0 in 64 bits.
    let mut just = 0.5_f64.powi(n.min(1000) as i32);
    let mut below = just;
    let mut k = 0;
    while 2.0 * below <= 0.05 && n <= 1000 {
        k += 1;
        just *= (n - k + 1) as f64 / k as f64;
        below += just;
    }
    // With one more left out than promised; of so many the normal distribution does.
    if n > 1000 { n / 2 - (0.98 * (n as f64).sqrt()).ceil() as usize } else { k.saturating_sub(1) }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}..{:.2}, n {})", self.ratio, self.low, self.high, self.n)
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): enough for resampling and shuffling, and the same on every machine.
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0 (bias below 2^-32 for any `n` that fits a `u32`).
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }
}

/// A figure as people write it: three significant digits, thousands kept whole.
pub fn figure(x: f64) -> String {
    let size = x.abs();
    if !x.is_finite() {
        "-".into()
    } else if x == 0.0 {
        "0".into()
    } else if size >= 1e13 {
        format!("{x:.1e}")
    } else if size >= 1e9 {
        format!("{:.2}G", x / 1e9)
    } else if size >= 1e7 {
        format!("{:.1}M", x / 1e6)
    } else if size >= 99.95 || (x.fract() == 0.0 && size >= 1.0) {
        grouped(x)
    } else if size >= 9.995 {
        format!("{x:.1}")
    } else if size >= 0.01 {
        format!("{x:.2}")
    } else if size >= 0.0001 {
        format!("{x:.4}")
    } else {
        format!("{x:.1e}")
    }
}

/// A whole number with commas: 12,345.
fn grouped(x: f64) -> String {
    let digits = format!("{:.0}", x.abs());
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    if x < 0.0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_a_known_set() {
        let s = Summary::of(&(1..=101).map(f64::from).collect::<Vec<_>>());
        assert_eq!(
            (s.n, s.min, s.p10, s.median, s.p90, s.p99, s.max),
            (101, 1.0, 11.0, 51.0, 91.0, 100.0, 101.0)
        );
    }

    #[test]
    fn nothing_measured_is_zeros_not_nan() {
        assert_eq!(Summary::of(&[]), Summary::default());
        assert_eq!(Summary::of(&[f64::NAN]).n, 0);
    }

    #[test]
    fn the_binomial_distribution_says_how_many_are_beyond() {
        // From tables of the sign test, two-sided, 5 %.
        let known = [(5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7), (40, 13), (100, 39)];
        for (n, k) in known {
            assert_eq!(beyond(n), k, "{n}");
        }
        assert!((467..=470).contains(&beyond(1000)) && (467..=470).contains(&beyond(1001)));
    }

    /// Costs of A and B with a true ratio, noise of `spread`, and a machine that slows down over the rounds.
    fn rounds(truth: f64, spread: f64, n: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
        let mut random = SplitMix(seed);
        let mut noise = || 1.0 + spread * (random.below(2001) as f64 / 1000.0 - 1.0);
        let drift = |i: usize| 100.0 * (1.0 + i as f64 / n as f64);
        ((0..n).map(|i| truth * drift(i) * noise()).collect(), (0..n).map(|i| drift(i) * noise()).collect())
    }

    #[test]
    fn paired_ratio_finds_the_truth_through_drift() {
        for truth in [0.5, 0.9, 1.2, 3.0] {
            let (a, b) = rounds(truth, 0.05, 40, 1);
            let r = Ratio::paired(&a, &b).unwrap();
            assert!(r.low <= truth * 1.02 && truth * 0.98 <= r.high, "{truth}: {r}");
            assert_eq!(r.verdict(), if truth < 1.0 { Verdict::Less } else { Verdict::More });
        }
    }

    #[test]
    fn no_difference_is_rarely_called_one() {
        let called = (0..200)
            .filter(|&seed| {
                let (a, b) = rounds(1.0, 0.2, 30, seed);
                Ratio::paired(&a, &b).unwrap().verdict() != Verdict::NoDifference
            })
            .count();
        assert!(called <= 30, "{called} of 200 sets without a difference were called different");
    }

    #[test]
    fn outliers_do_not_move_the_median() {
        let (mut a, b) = rounds(1.0, 0.05, 31, 7);
        a[3] *= 1000.0;
        a[20] *= 1000.0;
        assert!((Ratio::paired(&a, &b).unwrap().ratio - 1.0).abs() < 0.05);
    }

    #[test]
    fn too_few_rounds_say_nothing() {
        assert_eq!(Ratio::paired(&[1.0], &[2.0]), None);
        assert_eq!(Ratio::paired(&[1.0, f64::NAN], &[2.0, 2.0]), None);
        assert_eq!(Ratio::paired(&[1.0, 1.0], &[0.0, 2.0]), None);
    }

    #[test]
    fn figures_read_well() {
        let cases = [
            (0.0, "0"),
            (0.3142, "0.31"),
            (8.4, "8.40"),
            (23.45, "23.4"),
            (17.0, "17"),
            (312.6, "313"),
            (99.96, "100"),
            (12345.6, "12,346"),
            (1_234_567.0, "1,234,567"),
            (48_000_000.0, "48.0M"),
            (0.0097, "0.0097"),
            (0.000012, "1.2e-5"),
            (1e308, "1.0e308"),
            (f64::NAN, "-"),
            (-1234.0, "-1,234"),
        ];
        for (x, text) in cases {
            assert_eq!(figure(x), text);
        }
    }
}
