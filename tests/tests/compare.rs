//! The comparison harness on costs that are known: it must find the truth, and refuse where it cannot.

use benches::compare::{Asked, Comparison};
use benches::judge::{Finding, judge};
use benches::noise::Noise;
use kit::stats::{Ratio, SplitMix, Verdict};

/// Costs that vary by up to `spread` around 1, at random.
struct Costs(SplitMix);

impl Costs {
    fn new(seed: u64) -> Self {
        Self(SplitMix(seed))
    }

    /// Uniform in 0 to 1.
    fn any(&mut self) -> f64 {
        self.0.below(1 << 20) as f64 / f64::from(1 << 20)
    }

    fn around(&mut self, center: f64, spread: f64) -> f64 {
        // The sum of four is bell-shaped.
        let bell = (0..4).map(|_| self.any()).sum::<f64>() / 2.0 - 1.0;
        center * (1.0 + spread * bell)
    }

    fn pairs(
        &mut self,
        n: usize,
        mut each: impl FnMut(&mut Self, usize) -> (f64, f64),
    ) -> (Vec<f64>, Vec<f64>) {
        (0..n).map(|i| each(self, i)).unzip()
    }
}

fn judged((ours, theirs): &(Vec<f64>, Vec<f64>), noise: &Noise) -> (Ratio, Finding) {
    judge(ours, theirs, noise, false).expect("enough rounds for a ratio")
}

fn quiet() -> Noise {
    Noise::default()
}

#[test]
fn a_known_ratio_is_within_its_interval_as_often_as_is_said() {
    let mut missed = 0;
    for (truth, rounds) in [(0.5, 7), (0.9, 12), (1.1, 30), (4.0, 30)] {
        let (mut held, mut right) = (0, 0);
        for seed in 0..25 {
            let pairs = Costs::new(seed).pairs(rounds, |c, _| (c.around(truth, 0.1), c.around(1.0, 0.1)));
            let (ratio, finding) = judged(&pairs, &quiet());
            held += usize::from(ratio.low <= truth && truth <= ratio.high);
            let expected = if truth < 1.0 { Verdict::Less } else { Verdict::More };
            right += usize::from(finding.verdict == Some(expected));
        }
        assert!(held >= 22, "{truth}: {held} of 25 intervals hold the truth");
        assert!(right >= 24, "{truth}: {right} of 25 verdicts are right");
        missed += 25 - held;
    }
    // 95 % is said: an interval that always holds the truth is wider than it need be.
    assert!((1..=9).contains(&missed), "{missed} of 100 intervals do not hold the truth");
}

#[test]
fn where_there_is_no_difference_one_is_rarely_shown() {
    let wrong = (0..50).filter(|&seed| {
        let pairs = Costs::new(seed).pairs(30, |c, _| (c.around(1.0, 0.3), c.around(1.0, 0.3)));
        judged(&pairs, &quiet()).1.verdict != Some(Verdict::NoDifference)
    });
    let wrong = wrong.count();
    assert!(wrong <= 8, "{wrong} of 50 were called different");
}

#[test]
fn drift_of_the_machine_is_taken_out_by_pairs() {
    for seed in 0..8 {
        // Both become three times dearer over the rounds.
        let pairs = Costs::new(seed).pairs(40, |c, i| {
            let drift = 1.0 + i as f64 / 20.0;
            (0.8 * c.around(drift, 0.05), c.around(drift, 0.05))
        });
        let (ratio, finding) = judged(&pairs, &quiet());
        assert!(ratio.low < 0.82 && ratio.high > 0.78, "{ratio}");
        assert_eq!(finding.verdict, Some(Verdict::Less), "{finding:?}");
    }
}

#[test]
fn drift_of_one_contender_across_the_other_is_refused() {
    for seed in 0..8 {
        let pairs =
            Costs::new(seed).pairs(40, |c, i| (c.around(0.7 + i as f64 / 50.0, 0.03), c.around(1.0, 0.03)));
        let (_, finding) = judged(&pairs, &quiet());
        assert!(finding.verdict.is_none() && finding.why.contains("moved"), "{finding:?}");
    }
}

#[test]
fn drift_of_one_contender_that_stays_cheaper_is_told() {
    let pairs = Costs::new(3).pairs(40, |c, i| (c.around(0.3 + i as f64 / 100.0, 0.03), c.around(1.0, 0.03)));
    let (_, finding) = judged(&pairs, &quiet());
    assert!(finding.verdict == Some(Verdict::Less) && finding.why.contains("moved"), "{finding:?}");
}

#[test]
fn outliers_move_nothing() {
    for seed in 0..8 {
        let pairs = Costs::new(seed).pairs(40, |c, i| {
            let hit = |every: usize| if i % every == 0 { 50.0 } else { 1.0 };
            (0.9 * c.around(1.0, 0.04) * hit(9), c.around(1.0, 0.04) * hit(11))
        });
        let (ratio, finding) = judged(&pairs, &quiet());
        assert!(ratio.low < 0.92 && ratio.high > 0.88 && ratio.high < 1.0, "{ratio}");
        assert_eq!(finding.verdict, Some(Verdict::Less), "{finding:?}");
    }
}

#[test]
fn two_modes_on_both_sides_are_refused_and_on_one_side_told() {
    for seed in 0..8 {
        let of = |low: f64, high: f64| {
            let pairs = Costs::new(seed).pairs(40, |c, _| {
                let mode = if c.any() < 0.6 { low } else { high };
                (c.around(mode, 0.03), c.around(1.0, 0.03))
            });
            judged(&pairs, &quiet()).1
        };
        let both = of(0.5, 2.0);
        assert!(both.verdict.is_none() && both.why.contains("took turns"), "{both:?}");
        let one = of(0.3, 0.6);
        assert!(one.verdict == Some(Verdict::Less) && one.why.contains("took turns"), "{one:?}");
    }
}

#[test]
fn two_modes_of_the_machine_are_taken_out_by_pairs() {
    let pairs = Costs::new(5).pairs(40, |c, _| {
        let machine = if c.any() < 0.5 { 1.0 } else { 2.0 };
        (0.8 * c.around(machine, 0.03), c.around(machine, 0.03))
    });
    assert_eq!(judged(&pairs, &quiet()).1, Finding { verdict: Some(Verdict::Less), why: String::new() });
}

#[test]
fn a_machine_that_others_use_is_refused_unless_they_cannot_be_the_cause() {
    let of = |truth: f64| Costs::new(1).pairs(40, |c, _| (c.around(truth, 0.03), c.around(1.0, 0.03)));
    let half = Noise { others: 0.5, ..quiet() };
    let refused = judged(&of(0.8), &half).1;
    assert!(refused.verdict.is_none() && refused.why.contains("not quiet"), "{refused:?}");
    // No half of a machine makes a thing ten times dearer.
    assert_eq!(judged(&of(0.1), &half).1.verdict, Some(Verdict::Less));
    let (ours, theirs) = of(0.8);
    let apart = judge(&ours, &theirs, &half, true).map(|(_, f)| f.verdict);
    assert_eq!(apart, Some(Some(Verdict::Less)), "costs that others do not touch");
    let stolen = Noise { steal: 0.3, ..quiet() };
    assert_eq!(judge(&ours, &theirs, &stolen, true).map(|(_, f)| f.verdict), Some(None));
}

#[test]
fn costs_of_zero_are_not_left_out_in_silence() {
    let (mut ours, theirs) = Costs::new(1).pairs(16, |c, _| (c.around(0.8, 0.03), c.around(1.0, 0.03)));
    ours[..8].fill(0.0);
    let finding = judged(&(ours, theirs), &quiet()).1;
    assert!(finding.verdict.is_none() && finding.why.contains("8 of 16"), "{finding:?}");
}

#[test]
fn what_is_no_cost_is_not_taken_for_one() {
    let outcome = Comparison::new("broken", "us", "nothing")
        .contender("ours", || Ok(1.0))
        .contender("nan", || Ok(f64::NAN))
        .with_noise(quiet())
        .run(Asked::default(), 6);
    assert!(outcome.rows[1].missing.as_ref().is_some_and(|why| why.contains("NaN")), "{outcome:?}");
}

#[test]
fn too_few_rounds_are_refused() {
    let finding = judged(&(vec![1.0; 5], vec![2.0; 5]), &quiet()).1;
    assert!(finding.verdict.is_none() && finding.why.contains("too few"), "{finding:?}");
    assert!(judge(&[1.0], &[2.0], &quiet(), false).is_none());
}

#[test]
fn contenders_are_run_in_turn_and_who_fails_is_named() {
    let log = std::cell::RefCell::new(Vec::new());
    let tick = std::cell::Cell::new(0_u32);
    let cost = |who: char, base: f64| {
        log.borrow_mut().push(who);
        // The machine slows down all the time: pairing takes that out.
        tick.set(tick.get() + 1);
        Ok(base * (1.0 + f64::from(tick.get()) / 1000.0))
    };
    let outcome = Comparison::new("known", "us", "nothing")
        .contender("ours", || cost('o', 50.0))
        .contender("peer", || cost('p', 100.0))
        .contender("same", || cost('s', 50.0))
        .contender("gone", || Err::<f64, _>("no such program: apt install it".into()))
        .against("peer")
        .with_noise(quiet())
        .run(Asked::default(), 40);
    let log = log.into_inner();
    // 41 rounds, one of them to warm up; each has everybody once, and not always in the same order.
    let rounds: Vec<String> = log.chunks(3).map(|round| round.iter().collect()).collect();
    assert_eq!(rounds.len(), 41);
    let sorted = |round: &String| {
        let mut letters: Vec<char> = round.chars().collect();
        letters.sort_unstable();
        letters.into_iter().collect::<String>()
    };
    assert!(rounds.iter().all(|r| sorted(r) == "ops"), "{rounds:?}");
    assert!(rounds.iter().any(|r| r != &rounds[0]), "{rounds:?}");

    let rows = &outcome.rows;
    let ratio = rows[1].ours_to_this.unwrap();
    assert!((ratio.ratio - 0.5).abs() < 0.02, "{ratio}");
    assert_eq!(rows[1].finding.as_ref().unwrap().verdict, Some(Verdict::Less));
    assert_eq!((rows[0].summary.n, rows[0].samples.len()), (40, 40));
    assert!((rows[2].ours_to_this.unwrap().ratio - 1.0).abs() < 0.02);
    assert!((rows[0].to_base.unwrap().ratio - 0.5).abs() < 0.02 && rows[1].to_base.is_none());
    let text = outcome.markdown();
    assert!(text.contains("not measured: no such program") && text.contains("ours costs less"), "{text}");
}
