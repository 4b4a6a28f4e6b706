//! Spec of exercise 1: add.

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex1.rs"]
mod exercise;

use kit::spec::property;
use kit::stats::SplitMix;

#[test]
#[ignore = "exercise: edit labs/demo/exercises/ex1.rs"]
fn adds() {
    kit::spec::run(|| {
        let mut random = SplitMix(kit::spec::seed());
        let (a, b) = (random.below(100) as u8, random.below(100) as u8);
        let sum = property("small numbers are added", "what does + do?");
        let seen: u8 = exercise::add(a, b);
        sum.same(a + b, seen);
    });
}

#[test]
#[ignore = "exercise: edit labs/demo/exercises/ex1.rs"]
fn wraps() {
    kit::spec::run(|| {
        let sum = property("the sum is modulo 256", "what comes after 255?");
        let seen: u8 = exercise::add(255, 2);
        sum.same(1, seen);
    });
}

#[test]
#[ignore = "exercise: edit labs/demo/exercises/ex1.rs"]
fn elsewhere() {
    kit::spec::run(|| {
        let seen: u8 = exercise::add(1, 1);
        property("one and one is two", "count").same(2, seen);
    });
}
