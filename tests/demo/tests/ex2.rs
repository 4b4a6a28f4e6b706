//! Spec of exercise 2: greet.

#[forbid(unsafe_code, reason = "this exercise needs none")]
#[allow(dead_code, reason = "a starter uses nothing yet")]
#[path = "../exercises/ex2.rs"]
mod exercise;

#[test]
#[ignore = "exercise: edit labs/demo/exercises/ex2.rs"]
fn greets() {
    kit::spec::run(|| {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/exercises/ex2.txt");
        let said = std::fs::read_to_string(file).expect("the file is beside the spec");
        let greeting = kit::spec::property("the greeting is what the file says, and that is hello", "read the file");
        let seen: String = exercise::greeting().to_owned();
        greeting.same("hello".to_owned(), seen.clone());
        greeting.same(said.lines().last().unwrap_or_default().to_owned(), seen);
    });
}
