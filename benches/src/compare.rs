//! Several ways to do one job, measured in turn, and what may be said of the difference.
//!
//! Rounds are interleaved and their order is shuffled, so that what the machine does to one contender it does to
//! all. What is reported is the median, and the paired ratio to the first contender with its 95 % interval.

use std::collections::BTreeMap;
use std::time::Instant;

use kit::Summary;
use kit::stats::{SplitMix, percentile, sorted};

use crate::asked::Event;
pub use crate::asked::{Asked, publish};
use crate::counts::Counts;
use crate::judge::judge;
use crate::noise::{Noise, Watch};
pub use crate::record::{Outcome, Row};

/// What one round of one contender gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Its cost; less is better.
    pub cost: f64,
    /// What was counted beside it, by name: system calls, page faults.
    pub counts: Vec<(&'static str, f64)>,
}

impl From<f64> for Sample {
    fn from(cost: f64) -> Self {
        Self { cost, counts: Vec::new() }
    }
}

/// Measures one round; returns its cost, or why it could not be measured.
type Measure<'a> = Box<dyn FnMut() -> Result<Sample, String> + 'a>;

/// Counts what explains a contender's time, outside of what is timed.
type Counter<'a> = Box<dyn FnOnce() -> Counts + 'a>;

/// Several ways to do one job. The first contender is ours: the others are held against it.
pub struct Comparison<'a> {
    title: String,
    unit: &'static str,
    unfair: String,
    contenders: Vec<(String, Measure<'a>)>,
    counters: Vec<(usize, Counter<'a>)>,
    base: Option<&'static str>,
    apart: Option<&'static str>,
    noise: Option<Noise>,
    headline: bool,
}

impl<'a> Comparison<'a> {
    /// A comparison of costs in `unit`; `unfair` says what is not fair about it.
    pub fn new(title: impl Into<String>, unit: &'static str, unfair: impl Into<String>) -> Self {
        let (title, unfair) = (title.into(), unfair.into());
        Self {
            title,
            unit,
            unfair,
            contenders: Vec::new(),
            counters: Vec::new(),
            base: None,
            apart: None,
            noise: None,
            headline: false,
        }
    }

    /// With one more contender; ours comes first.
    #[must_use]
    pub fn contender<S: Into<Sample>>(
        mut self,
        name: impl Into<String>,
        mut measure: impl FnMut() -> Result<S, String> + 'a,
    ) -> Self {
        self.contenders.push((name.into(), Box::new(move || measure().map(Into::into))));
        self
    }

    /// With counts beside the costs of the contender that was added last.
    #[must_use]
    pub fn counted(mut self, count: impl FnOnce() -> Counts + 'a) -> Self {
        self.counters.push((self.contenders.len() - 1, Box::new(count)));
        self
    }

    /// Each contender's cost is told as a multiple of this one's as well.
    #[must_use]
    pub fn against(mut self, base: &'static str) -> Self {
        self.base = Some(base);
        self
    }

    /// Costs are such that other processes do not change them, for this reason: they are no noise then.
    #[must_use]
    pub fn apart(mut self, why: &'static str) -> Self {
        self.apart = Some(why);
        self
    }

    /// It stands in the README's table.
    #[must_use]
    pub fn headline(mut self) -> Self {
        self.headline = true;
        self
    }

    /// The noise is taken to be this instead of watched: for tests, and for costs that were measured before.
    #[must_use]
    pub fn with_noise(mut self, noise: Noise) -> Self {
        self.noise = Some(noise);
        self
    }

    /// Measures as many rounds as asked for, of `full`, after one of warm-up. A contender that fails is out, with
    /// its reason.
    pub fn run(mut self, asked: Asked, full: usize) -> Outcome {
        let rounds = asked.rounds(full);
        let began = Instant::now();
        asked.tell(&Event::Begin(self.title.clone()));
        let mut watch = self.noise.is_none().then(Watch::begin);
        let (samples, missing) = self.measure(asked, rounds, &mut watch);
        let noise = watch.map(Watch::end).or(self.noise).unwrap_or_default();
        let mut rows = self.rows(&samples, missing, &noise);
        for (i, count) in std::mem::take(&mut self.counters) {
            if !asked.test && rows[i].missing.is_none() {
                rows[i].counts.extend(count());
            }
        }
        let outcome = Outcome {
            title: self.title,
            unit: self.unit.into(),
            unfair: self.unfair,
            base: self.base.map(str::to_owned),
            apart: self.apart.map(str::to_owned),
            headline: self.headline,
            rows,
            noise: Some(noise),
            seconds: began.elapsed().as_secs_f64(),
        };
        asked.tell(&Event::Outcome(Box::new(outcome.clone())));
        outcome
    }

    /// The samples of each contender, and why it has none.
    fn measure(
        &mut self,
        asked: Asked,
        rounds: usize,
        watch: &mut Option<Watch>,
    ) -> (Vec<Vec<Sample>>, Vec<Option<String>>) {
        let count = self.contenders.len();
        let mut samples = vec![Vec::with_capacity(rounds); count];
        let mut missing: Vec<Option<String>> = vec![None; count];
        let mut random = SplitMix(0xbe7c);
        for round in 0..=rounds {
            let mut order: Vec<usize> = (0..count).collect();
            for i in (1..count).rev() {
                order.swap(i, random.below(i + 1));
            }
            for i in order {
                if missing[i].is_some() {
                    continue;
                }
                match (self.contenders[i].1)() {
                    Ok(sample) if !(sample.cost.is_finite() && sample.cost >= 0.0) => {
                        missing[i] = Some(format!("a cost of {} is none", sample.cost));
                    }
                    Ok(_) if round == 0 => {}
                    Ok(sample) => samples[i].push(sample),
                    Err(why) => missing[i] = Some(why),
                }
            }
            // Ten times in all.
            if let Some(watch) = watch
                && round > 0
                && round * 10 / rounds > (round - 1) * 10 / rounds
            {
                watch.look();
            }
            asked.tell(&Event::Round(round, rounds));
        }
        (samples, missing)
    }

    fn rows(&self, samples: &[Vec<Sample>], missing: Vec<Option<String>>, noise: &Noise) -> Vec<Row> {
        let costs: Vec<Vec<f64>> = samples.iter().map(|s| s.iter().map(|s| s.cost).collect()).collect();
        let base = self.base.and_then(|b| self.contenders.iter().position(|(name, _)| name == b));
        let whole = |i: usize| missing[i].is_none();
        let held = |i: usize, j: usize| {
            let both = i != j && whole(i) && whole(j);
            both.then(|| judge(&costs[i], &costs[j], noise, self.apart.is_some())).flatten()
        };
        let rows = self.contenders.iter().enumerate().map(|(i, (name, _))| {
            let (ours_to_this, finding) = held(0, i).unzip();
            Row {
                name: name.clone(),
                summary: Summary::of(&costs[i]),
                ours_to_this,
                finding,
                to_base: base.and_then(|b| held(i, b)).map(|(ratio, _)| ratio),
                counts: counts(&samples[i]),
                missing: missing[i].clone(),
                samples: costs[i].iter().map(|c| crate::record::rounded(*c)).collect(),
            }
        });
        rows.collect()
    }
}

/// The median of each count.
fn counts(samples: &[Sample]) -> BTreeMap<String, f64> {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, count) in samples.iter().flat_map(|s| &s.counts) {
        all.entry(name).or_default().push(*count);
    }
    all.into_iter().map(|(name, counts)| (name.to_owned(), percentile(&sorted(&counts), 0.5))).collect()
}
