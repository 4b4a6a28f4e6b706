//! The comparison harness on costs that are known.

use benches::compare::Comparison;
use kit::stats::Verdict;

#[test]
fn finds_a_known_ratio_and_names_who_failed() {
    let tick = std::cell::Cell::new(0u32);
    let cost = |base: f64| {
        // The machine slows down all the time: pairing takes that out.
        tick.set(tick.get() + 1);
        Ok(base * (1.0 + f64::from(tick.get()) / 1000.0))
    };
    let outcome = Comparison::new("known", "us", "nothing")
        .contender("ours", || cost(50.0))
        .contender("peer", || cost(100.0))
        .contender("same", || cost(50.0))
        .contender("gone", || Err("no such program: apt install it".into()))
        .run(40);
    let ratio = outcome.rows[1].ours_to_this.unwrap();
    assert!((ratio.ratio - 0.5).abs() < 0.02 && ratio.verdict() == Verdict::Less, "{ratio}");
    assert_eq!(outcome.rows[0].summary.n, 40);
    let same = outcome.rows[2].ours_to_this.unwrap();
    assert!((same.ratio - 1.0).abs() < 0.02, "{same}");
    let text = outcome.markdown();
    assert!(text.contains("not measured: no such program") && text.contains("ours costs less"), "{text}");
}
