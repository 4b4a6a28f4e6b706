//! What may be said of two sets of costs that were measured in turn; and when nothing may.
//!
//! The paired ratio and its interval are [`Ratio`]'s. A verdict needs more: that the ratio was one thing (not two
//! that took turns, not one that moved), and that nobody else had enough of the machine to be the cause.

use kit::stats::{Ratio, Verdict, sorted};
use serde::{Deserialize, Serialize};

use crate::noise::{Noise, QUIET};

/// Fewer rounds than this are not judged: of five, all on one side are still chance in one case of sixteen.
pub const ENOUGH: usize = 6;

/// What may be said of our cost against another's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Less, more or no difference shown; none: not judged.
    pub verdict: Option<Verdict>,
    /// Why it was not judged, or what to know about it.
    pub why: String,
}

impl Finding {
    fn refused(why: String) -> Self {
        Self { verdict: None, why }
    }

    /// In words, for a table.
    pub fn words(&self) -> String {
        let verdict = match self.verdict {
            Some(Verdict::Less) => "ours costs less",
            Some(Verdict::More) => "ours costs more",
            Some(Verdict::NoDifference) => "no difference shown",
            None => "not judged",
        };
        if self.why.is_empty() { verdict.into() } else { format!("{verdict}: {}", self.why) }
    }
}

/// Judges costs `ours` and `theirs`, paired by round in the order of the rounds. `apart`: other processes cannot have
/// touched the costs.
pub fn judge(ours: &[f64], theirs: &[f64], noise: &Noise, apart: bool) -> Option<(Ratio, Finding)> {
    let ratio = Ratio::paired(ours, theirs)?;
    let rounds = ours.len().min(theirs.len());
    let finding = if ratio.n < rounds {
        // The rest would be judged as if they were all.
        Finding::refused(format!("in {} of {rounds} rounds a cost was 0", rounds - ratio.n))
    } else {
        find(&ratio, &Ratio::of_rounds(ours, theirs), noise, apart)
    };
    Some((ratio, finding))
}

fn find(ratio: &Ratio, ratios: &[f64], noise: &Noise, apart: bool) -> Finding {
    if ratio.n < ENOUGH {
        return Finding::refused(format!("{} rounds are too few", ratio.n));
    }
    // Whoever has a share s of the machine can make another that needs it 1/(1-s) times dearer, and may have done it
    // to one contender only: one that uses two processors where the other uses one, say.
    let share = noise.share(apart);
    let margin = 1.0 / (1.0 - share);
    if share > QUIET && ratio.low < margin && ratio.high > 1.0 / margin {
        return Finding::refused("the machine was not quiet".into());
    }
    if let Some((low, high, share)) = modes(ratios) {
        let words =
            format!("two ratios took turns, {low:.2} and {high:.2} ({:.0} % of the rounds)", 100.0 * share);
        if low < 1.0 && high > 1.0 {
            return Finding::refused(words);
        }
        return Finding { verdict: Some(ratio.verdict()), why: words };
    }
    if let Some((first, second)) = moved(ratios) {
        let words = format!("it moved from {:.2} to {:.2} while it was measured", first.ratio, second.ratio);
        if first.verdict() != second.verdict() {
            return Finding::refused(words);
        }
        return Finding { verdict: Some(ratio.verdict()), why: words };
    }
    Finding { verdict: Some(ratio.verdict()), why: String::new() }
}

/// Two values that samples gather around, if they do, and the share of the larger: the split that leaves least
/// variance within its sides (Otsu, 1979), taken for real when the sides' means are further apart than six times
/// their deviation (Ashman's D; a normal distribution split in the middle has 2.7, a uniform one 3.5).
fn modes(samples: &[f64]) -> Option<(f64, f64, f64)> {
    const APART: f64 = 6.0;
    /// A side with less is outliers, which the median does not mind.
    const SIDE: f64 = 0.2;
    let logs: Vec<f64> = sorted(samples).iter().map(|x| x.ln()).collect();
    let n = logs.len();
    let side = ((SIDE * n as f64).ceil() as usize).max(3);
    if n < 2 * side + 2 {
        return None;
    }
    let spread = |part: &[f64]| {
        let mean = part.iter().sum::<f64>() / part.len() as f64;
        (mean, part.iter().map(|x| (x - mean).powi(2)).sum::<f64>())
    };
    let split = (side..=n - side).map(|at| (spread(&logs[..at]), spread(&logs[at..]), at));
    let ((low, v1), (high, v2), at) = split.min_by(|a, b| (a.0.1 + a.1.1).total_cmp(&(b.0.1 + b.1.1)))?;
    let deviation = ((v1 + v2) / n as f64).sqrt().max(1e-9);
    // A tenth: two modes nearer than that are of no interest to anybody.
    let real = high - low > APART * deviation && high - low > 0.1;
    real.then(|| (low.exp(), high.exp(), (n - at) as f64 / n as f64))
}

/// The ratio of the first half and of the second, if these cannot be the same: their intervals have a gap, of more
/// than the twentieth part.
fn moved(ratios: &[f64]) -> Option<(Ratio, Ratio)> {
    let (first, second) = ratios.split_at(ratios.len() / 2);
    if first.len() < ENOUGH {
        return None;
    }
    let ones = vec![1.0; second.len()];
    let (first, second) = (Ratio::paired(first, &ones)?, Ratio::paired(second, &ones)?);
    let gap = (first.low / second.high).max(second.low / first.high);
    (gap > 1.05).then_some((first, second))
}
