//! Exercise 2: greet.

/// What `ex2.txt` says.
pub fn greeting() -> &'static str {
    unimplemented!("TODO(you): say what the file says")
}
